package desired

import (
	"cmp"
	"net/netip"
	"slices"

	"banmesh/internal/ban"
)

// LastOf gives the last address of a prefix.
func LastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Covering gives the slots that an address falls in: its own, its /64's and
// that of the segment around it, in the order in which the kernel asks.
func (s *State) Covering(a netip.Addr, segments []Segment) []Slot {
	out := make([]Slot, 0, 3)
	out = append(out, s.Get(netip.PrefixFrom(a, a.BitLen())))
	if a.Is6() {
		p, err := a.Prefix(64)
		if err == nil {
			out = append(out, s.Get(p))
		}
	}
	i, found := slices.BinarySearchFunc(segments, a, func(g Segment, a netip.Addr) int { return g.From.Compare(a) })
	if !found {
		i--
	}
	if i >= 0 && !segments[i].To.Less(a) {
		out = append(out, segments[i].Slot)
	}
	return out
}

// A Segment is a range of addresses that one element of an interval map covers.
type Segment struct {
	From netip.Addr
	To   netip.Addr // the last address
	Slot Slot
}

// Segments turns the wide prefixes of one family, which may nest, into the
// disjoint ranges that an interval map can hold. Where prefixes nest, the inner
// range has the topics of all of them, until the last of them ends; the parts
// that end sooner make a new call necessary then, whose time is given.
func (s *State) Segments(four bool, now Second) (out []Segment, lapse Second, err error) {
	var in []netip.Prefix
	for p, v := range s.wide {
		if p.Addr().Is4() == four && v.Until > now {
			in = append(in, p)
		}
	}
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	n := nesting{state: s, lapse: Never}
	for _, p := range in {
		if err := n.enter(p, s.PartsOf(p, s.wide[p]), now); err != nil {
			return nil, 0, err
		}
	}
	for len(n.stack) > 0 {
		if err := n.leave(); err != nil {
			return nil, 0, err
		}
	}
	return n.out, n.lapse, nil
}

// nesting walks prefixes in the order of their addresses.
type nesting struct {
	state *State
	stack []layer    // the prefixes that at is in, the outermost first
	at    netip.Addr // the first address that is not covered yet
	out   []Segment
	lapse Second
}

// A layer is a prefix that the walk is inside of.
type layer struct {
	last  netip.Addr
	parts []Part // of this and all outer prefixes
}

// enter goes into the next prefix, with its own topics.
func (n *nesting) enter(p netip.Prefix, own []Part, now Second) error {
	for len(n.stack) > 0 && n.stack[len(n.stack)-1].last.Less(p.Addr()) {
		if err := n.leave(); err != nil {
			return err
		}
	}
	l := layer{last: LastOf(p)}
	if len(n.stack) > 0 {
		outer := n.stack[len(n.stack)-1]
		if n.at.Less(p.Addr()) {
			if err := n.emit(outer, p.Addr().Prev()); err != nil {
				return err
			}
		}
		l.parts = slices.Clone(outer.parts)
	}
	for _, q := range own {
		if q.Until <= now {
			continue
		}
		i, found := slices.BinarySearchFunc(l.parts, q.Topic, func(a Part, t ban.Topic) int { return cmp.Compare(a.Topic, t) })
		switch {
		case !found:
			l.parts = slices.Insert(l.parts, i, q)
		case l.parts[i].Until < q.Until:
			l.parts[i].Until = q.Until
		}
	}
	n.at = p.Addr()
	n.stack = append(n.stack, l)
	return nil
}

// leave covers the rest of the innermost prefix.
func (n *nesting) leave() error {
	l := n.stack[len(n.stack)-1]
	n.stack = n.stack[:len(n.stack)-1]
	return n.emit(l, l.last)
}

// emit covers a layer from at up to an address.
func (n *nesting) emit(l layer, to netip.Addr) error {
	if !n.at.IsValid() || to.Less(n.at) {
		return nil
	}
	var v Slot
	topics, by := make([]ban.Topic, 0, len(l.parts)), make([]string, 0, len(l.parts))
	for _, q := range l.parts {
		topics, by = append(topics, q.Topic), append(by, q.By)
		v.Until = max(v.Until, q.Until)
	}
	for _, q := range l.parts {
		if q.Until < v.Until {
			n.lapse = min(n.lapse, q.Until)
		}
	}
	var err error
	if v.Class, err = n.state.intern(topics, by); err != nil {
		return err
	}
	n.out = append(n.out, Segment{n.at, to, v})
	n.at = to.Next()
	return nil
}
