// Package desired holds the bans that are wanted of a packet filter, and works
// out the elements that a kernel is to hold for them: in as little memory as a
// million of them allow, with checksums by which the next process recognises
// them.
package desired

import (
	"encoding/binary"
	"net/netip"

	"banmesh/internal/ban"
)

// Counts gives, for each hash map, how many bans there are, and how many of
// them last beyond a time.
func (s *State) Counts(beyond Second) (all, lasting [3]int) {
	all = [3]int{s.host4.len(), len(s.host6), s.net6.len()}
	for k := KindHost4; k <= KindNet6; k++ {
		s.EachOf(k, func(_ netip.Prefix, v Slot) bool {
			if v.Until > beyond {
				lasting[k]++
			}
			return true
		})
	}
	return all, lasting
}

// Canonical says whether a prefix is masked, IPv4 as such, and in no zone.
func Canonical(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() && p.Addr().Zone() == ""
}

// State holds the wanted bans in as little memory as a million of them allow:
// one slot a prefix, and more only for a prefix that is banned in several
// topics.
type State struct {
	host4 slotTable[uint32]
	host6 map[[16]byte]Slot     // rare: bans of IPv6 are mostly a /64
	net6  slotTable[uint64]     // IPv6 /64
	wide  map[netip.Prefix]Slot // every other prefix
	// parts has the prefixes that are banned in more than one topic.
	parts   map[netip.Prefix][]Part
	touched uint32 // of no meaning
	lapses  lapses // when their shorter parts end

	Classes  []Class // by index; class 0 is no class
	byTopics map[string]uint16
	byID     map[uint32]uint16
	last     struct { // the class that a single topic was given last
		topic ban.Topic
		by    string
		class uint16
	}

	Checksums checksums
	swept     uint32 // the bucket up to which ended bans have been let go
	soonest   Second // no ban ends before
}

// A Slot is the element that the kernel is to hold of a prefix.
type Slot struct {
	Until Second
	Class uint16 // index in state.classes; 0 is no ban
}

// New gives a state without bans.
func New() *State {
	return &State{
		host6:     make(map[[16]byte]Slot),
		wide:      make(map[netip.Prefix]Slot),
		parts:     make(map[netip.Prefix][]Part),
		Classes:   make([]Class, 1),
		byTopics:  make(map[string]uint16),
		byID:      make(map[uint32]uint16),
		Checksums: make(checksums),
		soonest:   Never,
	}
}

// Successor gives a state without bans in which classes keep the numbers that
// they have in s.
func (s *State) Successor() *State {
	n := New()
	n.Classes, n.byTopics, n.byID = s.Classes, s.byTopics, s.byID
	return n
}

// Size gives how many prefixes are banned.
func (s *State) Size() int { return s.host4.len() + len(s.host6) + s.net6.len() + len(s.wide) }

// A Kind says in which map of the kernel a prefix goes.
type Kind uint8

// The kinds.
const (
	KindHost4 Kind = iota // an IPv4 address
	KindHost6             // an IPv6 address
	KindNet6              // an IPv6 /64
	KindWide              // any other prefix
)

// KindOf gives the kind of a prefix.
func KindOf(p netip.Prefix) Kind {
	switch four, bits := p.Addr().Is4(), p.Bits(); {
	case four && bits == 32:
		return KindHost4
	case !four && bits == 128:
		return KindHost6
	case !four && bits == 64:
		return KindNet6
	}
	return KindWide
}

func hostKey(p netip.Prefix) uint32 {
	a := p.Addr().As4()
	return binary.BigEndian.Uint32(a[:])
}

func netKey(p netip.Prefix) uint64 {
	a := p.Addr().As16()
	return binary.BigEndian.Uint64(a[:])
}

// Get gives the element of a prefix, the zero Slot where it is not banned.
func (s *State) Get(p netip.Prefix) Slot {
	switch KindOf(p) {
	case KindHost4:
		return s.host4.get(hostKey(p))
	case KindHost6:
		return s.host6[p.Addr().As16()]
	case KindNet6:
		return s.net6.get(netKey(p))
	}
	return s.wide[p]
}

// Touch readies the place of a prefix for add ([slotTable.touch]).
func (s *State) Touch(p netip.Prefix) {
	switch KindOf(p) {
	case KindHost4:
		s.touched += s.host4.touch(hostKey(p))
	case KindNet6:
		s.touched += s.net6.touch(netKey(p))
	}
}

// put stores a slot, or forgets the prefix when it has no class, and keeps the
// checksums in step.
func (s *State) put(p netip.Prefix, old, v Slot) {
	if old.Class != 0 {
		s.sum(p, old, false)
	}
	if v.Class != 0 {
		s.sum(p, v, true)
		s.soonest = min(s.soonest, v.Until)
	}
	switch k := KindOf(p); {
	case k == KindHost4:
		s.host4.put(hostKey(p), v)
	case k == KindHost6 && v.Class != 0:
		s.host6[p.Addr().As16()] = v
	case k == KindHost6:
		delete(s.host6, p.Addr().As16())
	case k == KindNet6:
		s.net6.put(netKey(p), v)
	case v.Class != 0:
		s.wide[p] = v
	default:
		delete(s.wide, p)
	}
}

// Each calls f for every prefix and slot, until f says no.
func (s *State) Each(f func(netip.Prefix, Slot) bool) {
	more := true
	for k := KindHost4; k <= KindWide && more; k++ {
		s.EachOf(k, func(p netip.Prefix, v Slot) bool {
			more = f(p, v)
			return more
		})
	}
}

// EachOf is each for the prefixes of one kind, in random order.
func (s *State) EachOf(k Kind, f func(netip.Prefix, Slot) bool) {
	switch k {
	case KindHost4:
		s.host4.each(func(k uint32, v Slot) bool { return f(hostPrefix(k), v) })
	case KindHost6:
		for k, v := range s.host6 {
			if !f(host6Prefix(k), v) {
				return
			}
		}
	case KindNet6:
		s.net6.each(func(k uint64, v Slot) bool { return f(net6Prefix(k), v) })
	case KindWide:
		for p, v := range s.wide {
			if !f(p, v) {
				return
			}
		}
	}
}

func hostPrefix(k uint32) netip.Prefix {
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], k)
	return netip.PrefixFrom(netip.AddrFrom4(a), 32)
}

func host6Prefix(k [16]byte) netip.Prefix { return netip.PrefixFrom(netip.AddrFrom16(k), 128) }

func net6Prefix(k uint64) netip.Prefix {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:], k)
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// Sweep lets go of bans that have ended and says how many, and whether one was
// a wide prefix. It looks at all bans once one has ended, and at most once a
// bucket unless asked to by force.
func (s *State) Sweep(now Second, force bool) (gone int, wide bool) {
	if b := uint32(now) >> BucketBits; b != s.swept {
		s.swept = b
	} else if !force {
		return 0, false
	}
	if s.soonest > now {
		return 0, false
	}
	s.soonest = Never
	lasts := func(p netip.Prefix, v Slot) bool {
		if v.Until > now {
			s.soonest = min(s.soonest, v.Until)
			return true
		}
		s.sum(p, v, false)
		delete(s.parts, p)
		gone++
		return false
	}
	s.host4.keep(func(k uint32, v Slot) bool { return lasts(hostPrefix(k), v) })
	s.net6.keep(func(k uint64, v Slot) bool { return lasts(net6Prefix(k), v) })
	for k, v := range s.host6 {
		if !lasts(host6Prefix(k), v) {
			delete(s.host6, k)
		}
	}
	narrow := gone
	for p, v := range s.wide {
		if !lasts(p, v) {
			delete(s.wide, p)
		}
	}
	s.Checksums.tidy()
	return gone, gone > narrow
}
