package firewall

import (
	"container/heap"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// state holds the wanted bans in as little memory as a million of them allow:
// one slot a prefix, and more only for a prefix that is banned in several
// topics.
type state struct {
	host4 places[uint32]
	host6 map[[16]byte]slot     // rare: what is banned of IPv6 is mostly a /64
	net6  places[uint64]        // IPv6 /64
	wide  map[netip.Prefix]slot // every other prefix
	// parts has the prefixes that are banned in more than one topic.
	parts   map[netip.Prefix][]part
	touched uint32 // of no meaning
	lapses  lapses // when their shorter parts end

	classes  []class // by index; class 0 is no class
	byTopics map[string]uint16
	byID     map[uint32]uint16
	last     struct { // the class that a single topic was given last
		topic ban.Topic
		by    string
		class uint16
	}

	stamps  stamps
	swept   uint32 // the bucket up to which ended bans have been let go
	soonest second // no ban ends before
}

// A slot is what the kernel is to hold of a prefix.
type slot struct {
	until second
	class uint16 // index in state.classes; 0 is no ban
}

// A part is one topic of a prefix that is banned in several.
type part struct {
	topic ban.Topic
	by    string
	until second
}

// A second counts from the Unix epoch, to the year 2106.
type second uint32

// never is the end of a ban without end.
const never second = math.MaxUint32

// secondOf rounds up, so that no ban ends early.
func secondOf(t time.Time) second {
	if t.IsZero() {
		return never
	}
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return second(min(max(s, 0), int64(never)))
}

func (s second) time() time.Time { return time.Unix(int64(s), 0) }

func newState() *state {
	return &state{
		host6:    make(map[[16]byte]slot),
		wide:     make(map[netip.Prefix]slot),
		parts:    make(map[netip.Prefix][]part),
		classes:  make([]class, 1),
		byTopics: make(map[string]uint16),
		byID:     make(map[uint32]uint16),
		stamps:   make(stamps),
		soonest:  never,
	}
}

func (s *state) size() int { return s.host4.len() + len(s.host6) + s.net6.len() + len(s.wide) }

// kindOf says in which map of the kernel a prefix goes.
type kind uint8

const (
	kindHost4 kind = iota
	kindHost6
	kindNet6
	kindWide
)

func kindOf(p netip.Prefix) kind {
	switch four, bits := p.Addr().Is4(), p.Bits(); {
	case four && bits == 32:
		return kindHost4
	case !four && bits == 128:
		return kindHost6
	case !four && bits == 64:
		return kindNet6
	}
	return kindWide
}

func hostKey(p netip.Prefix) uint32 {
	a := p.Addr().As4()
	return binary.BigEndian.Uint32(a[:])
}

func netKey(p netip.Prefix) uint64 {
	a := p.Addr().As16()
	return binary.BigEndian.Uint64(a[:])
}

func (s *state) get(p netip.Prefix) slot {
	switch kindOf(p) {
	case kindHost4:
		return s.host4.get(hostKey(p))
	case kindHost6:
		return s.host6[p.Addr().As16()]
	case kindNet6:
		return s.net6.get(netKey(p))
	}
	return s.wide[p]
}

// touch readies the place of a prefix for add ([places.touch]).
func (s *state) touch(p netip.Prefix) {
	switch kindOf(p) {
	case kindHost4:
		s.touched += s.host4.touch(hostKey(p))
	case kindNet6:
		s.touched += s.net6.touch(netKey(p))
	}
}

// put stores a slot, or forgets the prefix when it has no class, and keeps the
// stamps in step.
func (s *state) put(p netip.Prefix, old, v slot) {
	if old.class != 0 {
		s.stamp(p, old, false)
	}
	if v.class != 0 {
		s.stamp(p, v, true)
		s.soonest = min(s.soonest, v.until)
	}
	switch k := kindOf(p); {
	case k == kindHost4:
		s.host4.put(hostKey(p), v)
	case k == kindHost6 && v.class != 0:
		s.host6[p.Addr().As16()] = v
	case k == kindHost6:
		delete(s.host6, p.Addr().As16())
	case k == kindNet6:
		s.net6.put(netKey(p), v)
	case v.class != 0:
		s.wide[p] = v
	default:
		delete(s.wide, p)
	}
}

// each calls f for every prefix and slot, until f says no.
func (s *state) each(f func(netip.Prefix, slot) bool) {
	more := true
	for k := kindHost4; k <= kindWide && more; k++ {
		s.eachOf(k, func(p netip.Prefix, v slot) bool {
			more = f(p, v)
			return more
		})
	}
}

// eachOf is each for the prefixes of one kind, in random order.
func (s *state) eachOf(k kind, f func(netip.Prefix, slot) bool) {
	switch k {
	case kindHost4:
		s.host4.each(func(k uint32, v slot) bool { return f(hostPrefix(k), v) })
	case kindHost6:
		for k, v := range s.host6 {
			if !f(host6Prefix(k), v) {
				return
			}
		}
	case kindNet6:
		s.net6.each(func(k uint64, v slot) bool { return f(net6Prefix(k), v) })
	case kindWide:
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

// partsOf gives the topics of a prefix; the caller must not keep the result.
func (s *state) partsOf(p netip.Prefix, v slot) []part {
	if v.class == 0 {
		return nil
	}
	if more, ok := s.parts[p]; ok {
		return more
	}
	one := part{topic: s.classes[v.class].topics[0], until: v.until}
	if by := s.classes[v.class].by; by != nil {
		one.by = by[0]
	}
	return []part{one}
}

// add makes a ban wanted and says whether the kernel's element changes.
// by is whose word it rests on, as [label] gives it.
func (s *state) add(p netip.Prefix, topic ban.Topic, by string, until, now second) (changed bool, err error) {
	old := s.get(p)
	if _, several := s.parts[p]; !several {
		if old.class == 0 || (len(s.classes[old.class].topics) == 1 && s.classes[old.class].topics[0] == topic) {
			if l := &s.last; l.class == 0 || l.topic != topic || l.by != by {
				c, err := s.intern([]ban.Topic{topic}, []string{by})
				if err != nil {
					return false, err
				}
				l.topic, l.by, l.class = topic, by, c
			}
			v := slot{until, s.last.class}
			if v != old {
				s.put(p, old, v)
			}
			return v != old, nil
		}
	}
	parts := slices.Clone(s.partsOf(p, old))
	if i := slices.IndexFunc(parts, func(q part) bool { return q.topic == topic }); i >= 0 {
		parts[i].until, parts[i].by = until, by
	} else {
		parts = append(parts, part{topic, by, until})
	}
	return s.setParts(p, old, parts, now)
}

// remove makes a ban unwanted and says whether the kernel's element changes.
func (s *state) remove(p netip.Prefix, topic ban.Topic, now second) (changed bool, err error) {
	old := s.get(p)
	parts := slices.Clone(s.partsOf(p, old))
	left := slices.DeleteFunc(slices.Clone(parts), func(q part) bool { return q.topic == topic })
	if len(left) == len(parts) {
		return false, nil
	}
	return s.setParts(p, old, left, now)
}

// setParts gives a prefix its topics, of which those that have ended are left
// out.
func (s *state) setParts(p netip.Prefix, old slot, parts []part, now second) (changed bool, err error) {
	parts = slices.DeleteFunc(parts, func(q part) bool { return q.until <= now })
	slices.SortFunc(parts, func(a, b part) int { return strings.Compare(string(a.topic), string(b.topic)) })
	var v slot
	if len(parts) > 0 {
		topics, by := make([]ban.Topic, len(parts)), make([]string, len(parts))
		first := never
		for i, q := range parts {
			topics[i], by[i] = q.topic, q.by
			v.until = max(v.until, q.until)
			first = min(first, q.until)
		}
		if v.class, err = s.intern(topics, by); err != nil {
			return false, err
		}
		if first < v.until {
			heap.Push(&s.lapses, lapse{first, p})
		}
	}
	if len(parts) > 1 {
		s.parts[p] = parts
	} else {
		delete(s.parts, p)
	}
	if v != old {
		s.put(p, old, v)
	}
	return v != old, nil
}

// lapse ends the parts that are over of prefixes that stay banned otherwise,
// and gives those prefixes: the kernel's own timeouts end whole elements only.
func (s *state) lapse(now second) (changed []netip.Prefix, err error) {
	for len(s.lapses) > 0 && s.lapses[0].at <= now {
		p := heap.Pop(&s.lapses).(lapse).prefix
		parts, ok := s.parts[p]
		if !ok {
			continue
		}
		did, err := s.setParts(p, s.get(p), slices.Clone(parts), now)
		if err != nil {
			return changed, err
		}
		if did {
			changed = append(changed, p)
		}
	}
	return changed, nil
}

type lapse struct {
	at     second
	prefix netip.Prefix
}

// lapses is a heap, the earliest first. It may hold what no longer matters.
type lapses []lapse

func (l lapses) Len() int           { return len(l) }
func (l lapses) Less(i, j int) bool { return l[i].at < l[j].at }
func (l lapses) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *lapses) Push(x any)        { *l = append(*l, x.(lapse)) }
func (l *lapses) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// sweep lets go of bans that have ended and says how many, and whether one was
// a wide prefix. It looks at all bans once one has ended, and at most once a
// bucket unless asked to by force.
func (s *state) sweep(now second, force bool) (gone int, wide bool) {
	if b := uint32(now) >> bucketBits; b != s.swept {
		s.swept = b
	} else if !force {
		return 0, false
	}
	if s.soonest > now {
		return 0, false
	}
	s.soonest = never
	lasts := func(p netip.Prefix, v slot) bool {
		if v.until > now {
			s.soonest = min(s.soonest, v.until)
			return true
		}
		s.stamp(p, v, false)
		delete(s.parts, p)
		gone++
		return false
	}
	s.host4.keep(func(k uint32, v slot) bool { return lasts(hostPrefix(k), v) })
	s.net6.keep(func(k uint64, v slot) bool { return lasts(net6Prefix(k), v) })
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
	s.stamps.tidy()
	return gone, gone > narrow
}

// forget drops every ban of topics that no scope knows any more.
func (s *state) forget(known func(ban.Topic) bool, now second) (changed []netip.Prefix, err error) {
	var stale []netip.Prefix
	s.each(func(p netip.Prefix, v slot) bool {
		if !slices.ContainsFunc(s.classes[v.class].topics, func(t ban.Topic) bool { return !known(t) }) {
			return true
		}
		stale = append(stale, p)
		return true
	})
	for _, p := range stale {
		old := s.get(p)
		left := slices.DeleteFunc(slices.Clone(s.partsOf(p, old)), func(q part) bool { return !known(q.topic) })
		if _, err := s.setParts(p, old, left, now); err != nil {
			return changed, err
		}
		changed = append(changed, p)
	}
	return changed, nil
}
