package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"banmesh/internal/ban"
)

// A segment is a range of addresses that one element of an interval map covers.
type segment struct {
	from netip.Addr
	to   netip.Addr // the last address
	slot slot
}

// segments turns the wide prefixes of one family, which may nest, into the
// disjoint ranges that an interval map can hold. Where prefixes nest, the inner
// range has the topics of all of them, until the last of them ends; the parts
// that end sooner make a new call necessary then, whose time is given.
func (s *state) segments(four bool, now second) (out []segment, lapse second, err error) {
	type layer struct {
		prefix netip.Prefix
		last   netip.Addr
		parts  []part // of this and all outer prefixes
	}
	lapse = never
	var in []netip.Prefix
	for p, v := range s.wide {
		if p.Addr().Is4() == four && v.until > now {
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
		var v slot
		topics, by := make([]ban.Topic, 0, len(l.parts)), make([]string, 0, len(l.parts))
		for _, q := range l.parts {
			topics, by = append(topics, q.topic), append(by, q.by)
			v.until = max(v.until, q.until)
		}
		for _, q := range l.parts {
			if q.until < v.until {
				lapse = min(lapse, q.until)
			}
		}
		var err error
		if v.class, err = s.intern(topics, by); err != nil {
			return err
		}
		out = append(out, segment{at, to, v})
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
		l := layer{prefix: p, last: lastOf(p)}
		own := s.partsOf(p, s.wide[p])
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
			if q.until <= now {
				continue
			}
			i, found := slices.BinarySearchFunc(l.parts, q.topic, func(a part, t ban.Topic) int { return cmp.Compare(a.topic, t) })
			switch {
			case !found:
				l.parts = slices.Insert(l.parts, i, q)
			case l.parts[i].until < q.until:
				l.parts[i].until = q.until
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
