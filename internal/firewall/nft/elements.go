package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// An element of a fixed set.
type element struct {
	key     string // the key's bytes
	end     bool   // the end of an interval, not part of it
	verdict string // the chain that a verdict map goes to
}

// services are the elements of a scope's ports: protocol and port, each padded
// to four bytes, as concatenations are.
func services(s firewall.Scope) []element {
	var out []element
	for _, p := range s.Protocols {
		for _, port := range s.Ports {
			out = append(out, element{key: string([]byte{firewall.ProtocolNumber(p), 0, 0, 0, byte(port >> 8), byte(port), 0, 0})})
		}
	}
	slices.SortFunc(out, compareElements)
	return out
}

// intervalsOf turns prefixes of one family into disjoint intervals: a start and
// an end each, the last without an end where the address space is over.
func intervalsOf(prefixes []netip.Prefix, four bool) []element {
	var in []netip.Prefix
	for _, p := range prefixes {
		if p.Addr().Is4() == four {
			in = append(in, p)
		}
	}
	slices.SortFunc(in, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	var out []element
	open, until := false, netip.Addr{} // the interval being built ends before until, or never when invalid
	for _, p := range in {
		next := desired.LastOf(p).Next()
		switch {
		case open && !until.IsValid(), open && p.Addr().Less(until):
			// Prefixes nest or are apart, so this one is inside.
			continue
		case open && p.Addr() == until:
			until = next
			continue
		case open:
			out = append(out, element{key: string(until.AsSlice()), end: true})
		}
		out = append(out, element{key: string(p.Addr().AsSlice())})
		open, until = true, next
	}
	if open && until.IsValid() {
		out = append(out, element{key: string(until.AsSlice()), end: true})
	}
	slices.SortFunc(out, compareElements)
	return out
}

// compareElements sorts as rbtree sets do: an end before a start at one place.
func compareElements(a, b element) int {
	switch c := strings.Compare(a.key, b.key); {
	case c != 0:
		return c
	case a.end == b.end:
		return 0
	case a.end:
		return -1
	}
	return 1
}
