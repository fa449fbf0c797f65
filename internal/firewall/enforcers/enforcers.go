// Package enforcers lists the ways to enforce bans. One more way is one more
// line here: every command and the agent go through the list.
package enforcers

import (
	"context"
	"fmt"
	"strings"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/nft"
	"banmesh/internal/firewall/tools"
)

// All gives every enforcer for a setup, the default first.
func All(s firewall.Setup) []firewall.Enforcer {
	return []firewall.Enforcer{
		nft.NewEnforcer(s),
		ipset{tools.NewIPSetEnforcer(s), nft.NewEnforcer(s)},
		tools.NewHookEnforcer(s),
	}
}

// ipset looks at the chains of nftables, too: other programs' may drop packets
// of addresses that it lets pass, and iptables itself may write there.
type ipset struct {
	tools.IPSetEnforcer
	kernel nft.Enforcer
}

// Neighbours implements [firewall.Enforcer]. A kernel without nftables has none.
func (e ipset) Neighbours() ([]firewall.Neighbour, error) {
	list, err := e.kernel.Neighbours()
	if err != nil {
		return nil, nil //nolint:nilerr // see above
	}
	return list, nil
}

// Restorers gives the programs that load saved rules at boot, where they could
// meet the rules that an enforcer of the setup wrote.
func Restorers(e firewall.Enforcer, s firewall.Setup) []firewall.Restorer {
	_, chosen := e.(ipset)
	return tools.Restorers("/", s.Table, chosen)
}

// Prepare creates the sets that saved rules of an enforcer name, before they are loaded,
// and gives the names of those it made.
func Prepare(ctx context.Context, s firewall.Setup) ([]string, error) {
	return tools.PrepareSets(ctx, "/", s.Table)
}

// Find gives the enforcer of a name, the default for "".
func Find(name string, s firewall.Setup) (firewall.Enforcer, error) {
	all := All(s)
	if name == "" {
		return all[0], nil
	}
	names := make([]string, 0, len(all))
	for _, e := range all {
		if e.Name() == name {
			return e, nil
		}
		names = append(names, e.Name())
	}
	return nil, fmt.Errorf("%.40q is none of %s", name, strings.Join(names, ", "))
}
