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

// A segment is a range of addresses that one element of an interval map covers.
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
	type layer struct {
		prefix netip.Prefix
		last   netip.Addr
		parts  []Part // of this and all outer prefixes
	}
	lapse = Never
	var in []netip.Prefix
	for p, v := range s.wide {
		if p.Addr().Is4() == four && v.Until > now {
			in = append(in, p)
		}
	}
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var stack []layer
	var at netip.Addr // the first address that is not covered yet
	emit := func(l layer, to netip.Addr) error {
		if !at.IsValid() || to.Less(at) {
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
				lapse = min(lapse, q.Until)
			}
		}
		var err error
		if v.Class, err = s.intern(topics, by); err != nil {
			return err
		}
		out = append(out, Segment{at, to, v})
		at = to.Next()
		return nil
	}
	pop := func() error {
		l := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		return emit(l, l.last)
	}
	for _, p := range in {
		for len(stack) > 0 && stack[len(stack)-1].last.Less(p.Addr()) {
			if err := pop(); err != nil {
				return nil, 0, err
			}
		}
		l := layer{prefix: p, last: LastOf(p)}
		own := s.PartsOf(p, s.wide[p])
		if len(stack) > 0 {
			outer := stack[len(stack)-1]
			if at.Less(p.Addr()) {
				if err := emit(outer, p.Addr().Prev()); err != nil {
					return nil, 0, err
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
		at = p.Addr()
		stack = append(stack, l)
	}
	for len(stack) > 0 {
		if err := pop(); err != nil {
			return nil, 0, err
		}
	}
	return out, lapse, nil
}
