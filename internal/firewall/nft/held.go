package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// Holds asks the kernel about a prefix, of a wide one about its first address.
// It costs a look-up each in up to four maps, changes nothing and needs no
// agent. Without a table nothing is held.
func Holds(table string, p netip.Prefix) (h firewall.Held, err error) {
	a := p.Addr().Unmap()
	err = onTable(table, func(k *kernel) error {
		wide, never := mapWide4, setNever4
		type place struct {
			name string
			key  netip.Addr
		}
		var places []place
		if a.Is4() {
			places = []place{{mapHost4, a}, {wide, a}}
		} else {
			wide, never = mapWide6, setNever6
			net64, _ := a.Prefix(64)
			places = []place{{mapHost6, a}, {mapNet6, net64.Addr()}, {wide, a}}
		}
		for _, x := range places {
			if x.name != wide && x.name != mapNet6 && !p.IsSingleIP() {
				continue
			}
			if x.name == mapNet6 && p.Bits() < 64 {
				continue
			}
			left, ok, err := k.look(x.name, x.key.AsSlice())
			if err != nil {
				return fmt.Errorf("asking for %s: %w", x.name, err)
			}
			if ok {
				h.Banned, h.Map, h.Left = true, x.name, left
				break
			}
		}
		_, h.Never, err = k.look(never, a.AsSlice())
		return err
	})
	return h, err
}

// HoldsTarget is [Holds] for a target; a wallet is nothing to the kernel.
func HoldsTarget(table string, t ban.Target) (firewall.Held, error) {
	p, ok := t.Prefix()
	if !ok {
		return firewall.Held{}, nil
	}
	return Holds(table, p)
}

// look says whether a set or map has an element, and how long it has left.
func (k *kernel) look(name string, key []byte) (left time.Duration, ok bool, err error) {
	err = k.lookup(name, key, func(e []byte) {
		ok = true
		if b := find(e, unix.NFTA_SET_ELEM_EXPIRATION); len(b) == 8 {
			left = time.Duration(binary.BigEndian.Uint64(b)) * time.Millisecond
		}
	})
	if isGone(err) {
		return 0, false, nil
	}
	return left, ok, err
}
