package neverban

import (
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// A Kind says why many people share an address. The set is closed; "" is not
// known.
type Kind string

// The kinds.
const (
	KindCDN      Kind = "cdn"      // an edge of a content delivery network
	KindRelay    Kind = "relay"    // an exit of a relay
	KindNAT      Kind = "nat"      // a carrier's translator
	KindResolver Kind = "resolver" // a public name server
	KindProxy    Kind = "proxy"    // a proxy that a person named
)

// Proxies says whether packets from such an address were sent by somebody
// behind it: where a web server's log names it, it means another.
func (k Kind) Proxies() bool { return k == KindCDN || k == KindRelay }

// String says the kind to people.
func (k Kind) String() string {
	switch k {
	case KindCDN:
		return "an edge of a content delivery network"
	case KindRelay:
		return "an exit of a relay"
	case KindProxy:
		return "a proxy before the service"
	case KindNAT:
		return "a carrier's address translator"
	case KindResolver:
		return "a public name server"
	}
	return "shared by many people"
}

//go:embed shared.list
var sharedList string

// Shared lists the shipped addresses that many people share: proxies and relays
// of which their networks say so themselves, and public name servers. Carriers'
// pools are in no public register; people add those that they know.
func Shared() ([]Entry, error) { return ReadList(strings.NewReader(sharedList), SourceCaution) }

// Inside gives the longest prefix of the set that contains p.
func (s Set) Inside(p netip.Prefix) (Entry, bool) {
	_, in, ok := s.prefixes.Overlaps(p)
	if !ok {
		return Entry{}, false
	}
	best := -1
	for i := in.from; i < in.to; i++ {
		e := s.entries[i].Prefix
		if e.Bits() <= p.Bits() && e.Overlaps(p) && (best < 0 || e.Bits() > s.entries[best].Prefix.Bits()) {
			best = i
		}
	}
	if best < 0 {
		return Entry{}, false
	}
	return s.entries[best], true
}

// A section begins a part of a list of shared addresses:
//
//	[cdn] NAME, SOURCE, 2026-11-21
//
// Source and date may be left out of a list of one's own.
type section struct {
	kind       Kind
	name, from string
}

func parseSection(line string) (s section, err error) {
	kind, rest, ok := strings.Cut(strings.TrimPrefix(line, "["), "]")
	s.kind = Kind(kind)
	switch {
	case !ok:
		return s, fmt.Errorf("%q has no ']'", clipText(line))
	case s.kind != KindCDN && s.kind != KindRelay && s.kind != KindNAT && s.kind != KindResolver:
		return s, fmt.Errorf("%q is none of cdn, relay, nat, resolver", clipText(kind))
	}
	parts := strings.Split(strings.TrimSpace(rest), ", ")
	s.name = clipText(parts[0])
	if len(parts) == 1 {
		return s, nil
	}
	if len(parts) != 3 {
		return s, fmt.Errorf("%q: want [kind] name, source, date", clipText(line))
	}
	if _, err := time.Parse(time.DateOnly, parts[2]); err != nil {
		return s, fmt.Errorf("%q is no date such as 2026-11-21", clipText(parts[2]))
	}
	s.from = clipText(parts[1] + ", " + parts[2])
	return s, nil
}
