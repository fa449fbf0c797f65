package lists

import (
	"errors"
	"net/netip"
	"strings"
)

var errEntry = errors.New("no address, prefix or range")

// parseEntry reads an address, a prefix or a range FROM-TO. to is valid of a range
// alone; then both are single addresses of one family, in order.
func parseEntry(text []byte) (from, to netip.Prefix, err error) {
	const longest = 2*39 + 3 + 1 // two IPv6 addresses
	if len(text) == 0 || len(text) > longest {
		return from, to, errEntry
	}
	s := strings.Trim(string(text), `"'`)
	if a, b, ok := strings.Cut(s, "-"); ok {
		first, err1 := netip.ParseAddr(strings.TrimSpace(a))
		last, err2 := netip.ParseAddr(strings.TrimSpace(b))
		first, last = first.Unmap(), last.Unmap()
		if err1 != nil || err2 != nil || first.Zone()+last.Zone() != "" || first.BitLen() != last.BitLen() || last.Less(first) {
			return from, to, errEntry
		}
		return single(first), single(last), nil
	}
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return from, to, errEntry
		}
		return p, to, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return from, to, errEntry
	}
	return single(a), to, nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// maxPieces is how many prefixes a range may be: an IPv4 range is never more.
const maxPieces = 64

// piecesOf gives the prefixes that a range is made of; ok is false where they are more
// than [maxPieces].
func piecesOf(from, to netip.Addr) (list []netip.Prefix, ok bool) {
	for {
		bits := from.BitLen()
		for bits > 0 {
			wider := netip.PrefixFrom(from, bits-1)
			if wider.Masked().Addr() != from || to.Less(lastOf(wider)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(from, bits)
		if len(list) == maxPieces {
			return nil, false
		}
		list = append(list, p)
		last := lastOf(p)
		if last == to {
			return list, true
		}
		from = last.Next()
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
