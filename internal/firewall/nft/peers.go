package nft

import (
	"context"
	"net/netip"
	"slices"

	"banmesh/internal/firewall"
)

// Established implements [Firewall]. It costs a microsecond or two.
func (n *Firewall) Established(ctx context.Context, addr netip.Addr, port uint16) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return false, err
	}
	if err := ctx.Err(); err != nil {
		return false, err
	}
	addr = addr.Unmap().WithZone("")
	suffix := "_6"
	if addr.Is4() {
		suffix = "_4"
	}
	found := false
	for _, s := range n.config.Scopes {
		if s.Remember == 0 || !slices.Contains(s.Ports, port) {
			continue
		}
		found = true
		_, err := n.k.get(peersHead+string(s.Topic)+suffix, append(addr.AsSlice(), byte(port>>8), byte(port), 0, 0))
		switch {
		case err == nil:
			return true, nil
		case !isGone(err):
			return false, n.explain("asking for a peer", err)
		}
	}
	if !found {
		return false, firewall.ErrNotRemembered
	}
	return false, nil
}
