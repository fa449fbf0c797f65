// Package guests holds the addresses that lately logged in or did real work
// here: no peer and no weak evidence bans them. They stay on this node, are
// bounded in number, and each has an end.
package guests

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sort"
	"sync"
	"time"

	"banmesh/internal/ban"
)

// Limits and defaults.
const (
	// DefaultStay is how long an address is a guest after its last success.
	DefaultStay = 30 * 24 * time.Hour
	// MaxStay bounds it.
	MaxStay = 365 * 24 * time.Hour
	// MaxGuests bounds the set: 28 bytes each, 2.8 MB. Where it is full the guest
	// whose end is next makes room.
	MaxGuests = 100_000
	// maxNeighbours bounds the guests of one IPv6 /48, which one subscriber may
	// hold: it has 65,536 networks and must not push out everybody else.
	maxNeighbours = 64
	// maxTopics bounds the topics by which an address can be a guest.
	maxTopics = 250
)

// refreshAfter is how old a guest's last success must be for another one to be
// written down. It keeps a client that logs in each second from filling the
// file.
const refreshAfter = 10 * time.Minute

// A Guest is an address, or an IPv6 /64, that lately succeeded here.
type Guest struct {
	Prefix netip.Prefix
	// Topic is the one of the newest success.
	Topic ban.Topic
	// Worked says that it moved bytes and that no login is known.
	Worked bool
	// Last is the newest success, to a second, Until the end.
	Last, Until time.Time
}

// String gives the reason for people: "logged in (sshd) at 2026-…".
func (g Guest) String() string {
	did := "it logged in"
	if g.Worked {
		did = "it was served"
	}
	return fmt.Sprintf("a guest of this node: %s (%s) at %s", did, g.Topic, g.Last.UTC().Format(time.RFC3339))
}

// record is a guest in memory. Addresses are 16 bytes, IPv4 mapped, and of IPv6
// the last 8 are zero.
type record struct {
	addr  [16]byte
	last  uint32 // Unix seconds
	until uint32
	topic uint8
	flags uint8
}

const flagWorked = 1

// Options are the inputs of [Open].
type Options struct {
	// Path is the file that keeps the guests; "" keeps them in memory alone.
	Path string
	// Stay is how long an address is a guest after its last success; 0 is
	// [DefaultStay].
	Stay time.Duration
	Now  func() time.Time // nil means [time.Now]
	// Changed is told about an address that became a guest, or is none any more.
	// It is called without a lock held, and may be nil.
	Changed func(ban.Target)
}

// A Set is the guests of a node. Its methods may be called concurrently.
type Set struct {
	o Options

	mu     sync.RWMutex
	list   []record // by address
	topics []ban.Topic
	most   int // MaxGuests, less in tests
	file   *journal
}

// Open reads the guests that were kept. A damaged end of the file, of a crash
// while it was written, is cut off.
func Open(o Options) (*Set, error) {
	s, err := Read(o)
	if err != nil || o.Path == "" {
		return s, err
	}
	s.drop(s.o.Now())
	s.file = &journal{path: o.Path}
	if err := s.rewrite(); err != nil {
		return nil, err
	}
	return s, nil
}

// Read gives the guests of a file as they are now and leaves the file alone:
// changes of the set are kept nowhere.
func Read(o Options) (*Set, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stay <= 0 {
		o.Stay = DefaultStay
	}
	s := &Set{o: o, most: MaxGuests}
	if o.Path == "" {
		return s, nil
	}
	if err := s.load(o.Path); err != nil {
		return nil, err
	}
	return s, nil
}

// Add makes the address of a success a guest, or keeps it one for longer. worked
// says that it moved bytes and did not log in. Addresses that are nobody's, such
// as loopback, are left out.
func (s *Set) Add(topic ban.Topic, addr netip.Addr, at time.Time, worked bool) error {
	key, ok := keyOf(addr)
	if !ok {
		return nil
	}
	now := s.o.Now()
	if at.After(now) {
		at = now
	}
	until := at.Add(s.o.Stay)
	if !until.After(now) {
		return nil
	}
	r := record{addr: key, last: seconds(at), until: seconds(until)}
	if worked {
		r.flags = flagWorked
	}
	s.mu.Lock()
	var known bool
	r.topic, known = s.topic(topic)
	if !known {
		s.mu.Unlock()
		return fmt.Errorf("%d topics of guests are the most", maxTopics)
	}
	var gone []record
	i, found := s.find(key)
	if found {
		old := &s.list[i]
		if worked && old.flags&flagWorked == 0 && int64(old.until) > now.Unix() {
			r.flags, r.topic = old.flags, old.topic // a login says more
		}
		if r.last < old.last+uint32(refreshAfter/time.Second) && r.flags == old.flags && int64(old.until) > now.Unix() {
			s.mu.Unlock()
			return nil
		}
		*old = r
	} else {
		gone = s.room(key, now)
		i, _ = s.find(key)
		s.list = slices.Insert(s.list, i, r)
	}
	err := s.write(r)
	s.mu.Unlock()
	s.tell(append(gone, r)...)
	return err
}

// room drops guests until one more has room: those that are over, else the one
// of a full neighbourhood or of all whose end is next.
func (s *Set) room(key [16]byte, now time.Time) (gone []record) {
	lo, hi := s.neighbours(key)
	if hi-lo >= maxNeighbours {
		i := lo + earliest(s.list[lo:hi])
		gone = append(gone, s.list[i])
		s.list = slices.Delete(s.list, i, i+1)
	}
	if len(s.list) < s.most {
		return gone
	}
	gone = append(gone, s.drop(now)...)
	if len(s.list) < s.most {
		return gone
	}
	// A hundredth at once, so that a full set is searched through once for many.
	ends := make([]uint32, len(s.list))
	for i, r := range s.list {
		ends[i] = r.until
	}
	slices.Sort(ends)
	last, left := ends[len(ends)/100], len(ends)/100+1
	s.list = slices.DeleteFunc(s.list, func(r record) bool {
		if r.until <= last && left > 0 {
			gone, left = append(gone, r), left-1
			return true
		}
		return false
	})
	return gone
}

// earliest gives the index of the record whose end is next.
func earliest(list []record) (at int) {
	for i, r := range list {
		if r.until < list[at].until {
			at = i
		}
	}
	return at
}

// neighbours gives the range of the records in an IPv6 address's /48; it is
// empty for IPv4.
func (s *Set) neighbours(key [16]byte) (lo, hi int) {
	if is4(key) {
		return 0, 0
	}
	var next [16]byte
	copy(next[:6], key[:6])
	lo, _ = s.find(next)
	for i := 5; i >= 0; i-- {
		if next[i]++; next[i] != 0 {
			hi, _ = s.find(next)
			return lo, hi
		}
	}
	return lo, len(s.list)
}

// drop removes the guests that are over.
func (s *Set) drop(now time.Time) (gone []record) {
	s.list = slices.DeleteFunc(s.list, func(r record) bool {
		if int64(r.until) <= now.Unix() {
			gone = append(gone, r)
			return true
		}
		return false
	})
	return gone
}

// Expire ends the guests whose time is over, and compacts the file where it has
// grown.
func (s *Set) Expire() error {
	s.mu.Lock()
	gone := s.drop(s.o.Now())
	err := s.compact()
	s.mu.Unlock()
	s.tell(gone...)
	return err
}

// Remove ends a guest, by an address or a prefix, and says how many it ended.
func (s *Set) Remove(t ban.Target) (int, error) {
	p, ok := t.Prefix()
	if !ok {
		return 0, nil
	}
	s.mu.Lock()
	var gone []record
	lo, hi := s.overlapping(p)
	gone = append(gone, s.list[lo:hi]...)
	s.list = slices.Delete(s.list, lo, hi)
	var errs []error
	for _, r := range gone {
		r.until = 0
		errs = append(errs, s.write(r))
	}
	s.mu.Unlock()
	s.tell(gone...)
	return len(gone), errors.Join(errs...)
}

// Protects says whether a target is a guest, or a prefix that has one or is in
// one, and why. It costs a binary search.
func (s *Set) Protects(t ban.Target) (string, bool) {
	g, ok := s.Find(t)
	if !ok {
		return "", false
	}
	return g.String(), true
}

// Find gives the guest that a target is, has or is in; of several the first by
// address.
func (s *Set) Find(t ban.Target) (Guest, bool) {
	p, ok := t.Prefix()
	if !ok {
		return Guest{}, false
	}
	now := s.o.Now().Unix()
	s.mu.RLock()
	defer s.mu.RUnlock()
	lo, hi := s.overlapping(p)
	for _, r := range s.list[lo:hi] {
		if int64(r.until) > now {
			return s.guest(r), true
		}
	}
	return Guest{}, false
}

// overlapping gives the range of the records that overlap a prefix.
func (s *Set) overlapping(p netip.Prefix) (lo, hi int) {
	first := p.Masked().Addr()
	bits := p.Bits()
	if first.Is4() {
		bits += 96
	} else {
		bits = min(bits, 64)
	}
	key, end := first.As16(), first.As16()
	if !first.Is4() {
		clear(key[8:])
		end = key
	}
	for i := bits; i < 128; i++ {
		end[i/8] |= 0x80 >> (i % 8)
	}
	lo, _ = s.find(key)
	hi = lo + sort.Search(len(s.list)-lo, func(i int) bool { return bytes.Compare(s.list[lo+i].addr[:], end[:]) > 0 })
	return lo, hi
}

// All lists the guests, by address.
func (s *Set) All() []Guest {
	now := s.o.Now().Unix()
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]Guest, 0, len(s.list))
	for _, r := range s.list {
		if int64(r.until) > now {
			list = append(list, s.guest(r))
		}
	}
	return list
}

// Len counts the guests, those among them that are over since the last
// [Set.Expire] too.
func (s *Set) Len() int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.list)
}

func (s *Set) guest(r record) Guest {
	g := Guest{Worked: r.flags&flagWorked != 0, Last: time.Unix(int64(r.last), 0), Until: time.Unix(int64(r.until), 0)}
	if int(r.topic) < len(s.topics) {
		g.Topic = s.topics[r.topic]
	}
	if a := netip.AddrFrom16(r.addr); a.Is4In6() {
		g.Prefix = netip.PrefixFrom(a.Unmap(), 32)
	} else {
		g.Prefix = netip.PrefixFrom(a, 64)
	}
	return g
}

func (s *Set) tell(list ...record) {
	if s.o.Changed == nil {
		return
	}
	for _, r := range list {
		if t, err := ban.TargetOfPrefix(s.guest(r).Prefix); err == nil {
			s.o.Changed(t)
		}
	}
}

// find gives the place of an address in the list, and whether it is there.
func (s *Set) find(key [16]byte) (int, bool) {
	return slices.BinarySearchFunc(s.list, key, func(r record, key [16]byte) int { return bytes.Compare(r.addr[:], key[:]) })
}

// topic gives the number of a topic, a new one where it has none.
func (s *Set) topic(name ban.Topic) (uint8, bool) {
	if i := slices.Index(s.topics, name); i >= 0 {
		return uint8(i), true
	}
	if len(s.topics) >= maxTopics {
		return 0, false
	}
	s.topics = append(s.topics, name)
	return uint8(len(s.topics) - 1), true
}

// keyOf gives the key of an address: of IPv6 its /64, for clients take a new
// address in it each day.
func keyOf(a netip.Addr) (key [16]byte, ok bool) {
	a = a.Unmap()
	if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
		return key, false
	}
	key = a.As16()
	if !a.Is4() {
		clear(key[8:])
	}
	return key, true
}

func is4(key [16]byte) bool { return netip.AddrFrom16(key).Is4In6() }

func seconds(t time.Time) uint32 { return uint32(max(0, min(t.Unix(), 1<<32-1))) }
