package nft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

var (
	familyNames = map[byte]string{unix.NFPROTO_INET: "inet", unix.NFPROTO_IPV4: "ip", unix.NFPROTO_IPV6: "ip6", unix.NFPROTO_ARP: "arp", unix.NFPROTO_BRIDGE: "bridge", unix.NFPROTO_NETDEV: "netdev"}
	hookNames   = [...]string{"prerouting", "input", "forward", "output", "postrouting", "ingress"}
)

// Neighbours gives every base chain that incoming packets can meet, sorted by
// hook and priority. Rules of iptables-legacy, ipset or eBPF are not among them.
func Neighbours(table string) (out []firewall.Neighbour, err error) {
	err = onTable(table, func(k *kernel) error {
		const tries = 10
		for range tries {
			if out, err = k.neighbours(); !errors.Is(err, errInterrupted) {
				return err
			}
		}
		return err
	})
	slices.SortStableFunc(out, func(a, b firewall.Neighbour) int {
		return cmp.Or(cmp.Compare(hookOrder(a.Hook), hookOrder(b.Hook)), cmp.Compare(a.Priority, b.Priority))
	})
	return out, err
}

func hookOrder(hook string) int { return slices.Index(hookNames[:], hook) }

func (k *kernel) neighbours() (out []firewall.Neighbour, err error) {
	err = k.ask(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP, unix.NFPROTO_UNSPEC, nil, func(m message) error {
		if len(m.body) < generic {
			return nil
		}
		n := firewall.Neighbour{Family: familyNames[m.body[0]]}
		base := false
		for a, rest, ok := nextAttr(m.attrs()); ok; a, rest, ok = nextAttr(rest) {
			switch a.kind {
			case unix.NFTA_CHAIN_TABLE:
				n.Table = a.str()
			case unix.NFTA_CHAIN_NAME:
				n.Chain = a.str()
			case unix.NFTA_CHAIN_TYPE:
				n.Type = a.str()
			case unix.NFTA_CHAIN_HOOK:
				base = true
				hook, prio := find(a.data, unix.NFTA_HOOK_HOOKNUM), find(a.data, unix.NFTA_HOOK_PRIORITY)
				if len(hook) == 4 && len(prio) == 4 {
					n.Hook = hookName(binary.BigEndian.Uint32(hook))
					n.Priority = int32(binary.BigEndian.Uint32(prio))
				}
			}
		}
		if base && n.Hook != "output" && n.Hook != "postrouting" {
			n.Ours = n.Family == "inet" && n.Table == k.table
			out = append(out, n)
		}
		return nil
	})
	return out, err
}

func hookName(n uint32) string {
	if int(n) < len(hookNames) {
		return hookNames[n]
	}
	return fmt.Sprintf("hook-%d", n)
}
