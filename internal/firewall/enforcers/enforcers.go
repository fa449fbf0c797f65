// Package enforcers lists the ways to enforce bans. One more way is one more
// line here: every command and the agent go through the list.
package enforcers

import (
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
		tools.NewIPSetEnforcer(s),
		tools.NewHookEnforcer(s),
	}
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
