package settings

import (
	"fmt"
	"net/netip"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/neverban"
)

// webPorts are those of HTTP, for definitions that name no protocol.
var webPorts = []uint16{80, 443, 8080, 8443}

// Proxies stand on other machines before a service: the log names clients, and
// the kernel here sees proxies alone. The zero value holds none.
type Proxies struct {
	prefixes []netip.Prefix
	kinds    []neverban.Kind // of which the list of shared addresses knows
}

// parseProxies reads addresses, prefixes, "cdn" and "relay".
func parseProxies(list []string) (p Proxies, err error) {
	for _, text := range list {
		if kind := neverban.Kind(text); kind.Proxies() {
			p.kinds = append(p.kinds, kind)
			continue
		}
		t, err := ban.ParseTarget(text)
		prefix, ok := t.Prefix()
		if err != nil || !ok {
			return p, fmt.Errorf("proxy: %q is no address, prefix, \"cdn\" or \"relay\"", text)
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return p, nil
}

// None says that no proxy is named.
func (p Proxies) None() bool { return len(p.prefixes)+len(p.kinds) == 0 }

// Hold says that an address is one of the proxies, or a part of a /64 of IPv6
// that has one.
func (p Proxies) Hold(x netip.Prefix) bool {
	return slices.ContainsFunc(p.prefixes, x.Overlaps)
}
