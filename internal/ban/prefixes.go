package ban

import (
	"iter"
	"net/netip"
	"slices"
)

// Prefixes is an immutable set of IP prefixes with a value each, made to
// answer one question quickly: does this prefix overlap any of them, in either
// direction? The zero value is empty. Two prefixes either nest or are
// disjoint, so the outermost ones, sorted, answer with one binary search.
type Prefixes[V any] struct {
	outer  []netip.Prefix
	values []V
}

// NewPrefixes builds the set. Of equal prefixes the last one's value stays; of
// nested ones the outermost's. Invalid prefixes are left out.
func NewPrefixes[V any](entries iter.Seq2[netip.Prefix, V]) Prefixes[V] {
	type entry struct {
		prefix netip.Prefix
		value  V
	}
	var all []entry
	for p, v := range entries {
		if t, err := TargetOfPrefix(p); err == nil {
			p, _ = t.Prefix()
			all = append(all, entry{p, v})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		if c := a.prefix.Addr().Compare(b.prefix.Addr()); c != 0 {
			return c
		}
		return a.prefix.Bits() - b.prefix.Bits()
	})
	var s Prefixes[V]
	for _, e := range all {
		if n := len(s.outer); n > 0 && s.outer[n-1].Overlaps(e.prefix) {
			if s.outer[n-1] == e.prefix {
				s.values[n-1] = e.value
			}
			continue
		}
		s.outer = append(s.outer, e.prefix)
		s.values = append(s.values, e.value)
	}
	return s
}

// Overlaps finds an entry that contains p or that p contains.
func (s Prefixes[V]) Overlaps(p netip.Prefix) (entry netip.Prefix, value V, ok bool) {
	p = p.Masked()
	// The first outermost prefix that begins after p's first address: it may
	// lie inside p; the one before it may contain p.
	i, _ := slices.BinarySearchFunc(s.outer, p, func(o, p netip.Prefix) int {
		if o.Addr().Compare(p.Addr()) <= 0 {
			return -1
		}
		return 1
	})
	for _, j := range [2]int{i - 1, i} {
		if j >= 0 && j < len(s.outer) && s.outer[j].Overlaps(p) {
			return s.outer[j], s.values[j], true
		}
	}
	return netip.Prefix{}, value, false
}

// Len is the number of outermost prefixes.
func (s Prefixes[V]) Len() int { return len(s.outer) }

// All gives the outermost prefixes in order.
func (s Prefixes[V]) All() iter.Seq2[netip.Prefix, V] {
	return func(yield func(netip.Prefix, V) bool) {
		for i, p := range s.outer {
			if !yield(p, s.values[i]) {
				return
			}
		}
	}
}
