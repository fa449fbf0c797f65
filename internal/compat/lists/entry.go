package lists

import (
	"errors"
	"net/netip"
	"strings"
)

var (
	errEntry = errors.New("no address, prefix or range")
	// errPieces says that a range is made of more than [maxPieces] prefixes.
	errPieces = errors.New("the range is of too many prefixes")
)

// maxPieces is how many prefixes a range may be: an IPv4 range is never more.
const maxPieces = 64

// parseEntry gives the prefixes that an address, a prefix or a range FROM-TO is.
func parseEntry(text []byte) ([]netip.Prefix, error) {
	const longest = 2*39 + 3 + 1 // two IPv6 addresses
	if len(text) == 0 || len(text) > longest {
		return nil, errEntry
	}
	s := strings.Trim(string(text), `"'`)
	if from, to, ok := strings.Cut(s, "-"); ok {
		first, err1 := netip.ParseAddr(strings.TrimSpace(from))
		last, err2 := netip.ParseAddr(strings.TrimSpace(to))
		first, last = first.Unmap(), last.Unmap()
		if err1 != nil || err2 != nil || first.Zone()+last.Zone() != "" || first.BitLen() != last.BitLen() || last.Less(first) {
			return nil, errEntry
		}
		return piecesOf(first, last)
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, errEntry
		}
		return []netip.Prefix{p}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return nil, errEntry
	}
	return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
}

// piecesOf gives the prefixes that a range is made of.
func piecesOf(from, to netip.Addr) (list []netip.Prefix, err error) {
	for ; ; from = from.Next() {
		p := netip.PrefixFrom(from, from.BitLen())
		for p.Bits() > 0 {
			wider := netip.PrefixFrom(from, p.Bits()-1)
			if wider.Masked().Addr() != from || to.Less(lastOf(wider)) {
				break
			}
			p = wider
		}
		if len(list) == maxPieces {
			return nil, errPieces
		}
		list = append(list, p)
		if from = lastOf(p); from == to {
			return list, nil
		}
	}
}

// lastOf gives the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr()
	b := a.AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
