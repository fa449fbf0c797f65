package agent

import (
	"context"
	"fmt"
	"path/filepath"

	"banmesh/internal/firewall"
	"banmesh/internal/settings"
)

// switchFile, in the state directory, switches the ipset and hook enforcers off
// while it is there; the nftables enforcer's switch is in the kernel.
const switchFile = "firewall-off"

// SwitchFile gives the switch of the ipset and hook enforcers of a node.
func SwitchFile(stateDir string) string { return filepath.Join(stateDir, switchFile) }

// openFirewall gives the enforcer that the settings name. Where it cannot work
// it gives none, and why.
func openFirewall(ctx context.Context, s *settings.Settings, o firewall.Options) (fw firewall.Firewall, why string, err error) {
	c := s.Config().Firewall
	switch c.Enforcer {
	case settings.EnforceIPSet:
		if can := firewall.ProbeIPSet(ctx, c.IPTablesLegacy); !can.Enforce {
			return nil, can.Reason, nil
		}
		return firewall.NewIPSet(o, c.IPTablesLegacy), "", nil
	case settings.EnforceHook:
		hook, err := firewall.NewHook(o, c.Hook)
		if err != nil {
			return nil, "", s.Config().At("firewall.hook", "%v", err)
		}
		return hook, "", nil
	}
	switch can, err := firewall.Probe(); {
	case can.Reason != "":
		return nil, can.Reason, nil
	case err != nil:
		return nil, err.Error(), nil
	case !can.Enforce:
		return nil, "the kernel does not say why not", nil
	}
	return firewall.NewNFTables(o), "", nil
}

// enforcement says what enforces, and why not as one would expect: "nftables",
// "ipset" or "hook"; "observe" where packets are counted at most; "off".
func (e *enforcer) enforcement() (mode, why string) {
	f := e.a.current().Config().Firewall
	switch {
	case f.Mode == "off":
		return "off", "firewall.mode is off"
	case e.fw == nil:
		return "observe", e.why
	case f.Mode == "observe":
		return "observe", "firewall.mode is observe: packets are counted, none is dropped"
	case f.Enforcer == "":
		return settings.EnforceNFTables, ""
	}
	return f.Enforcer, ""
}

// where says to people where the bans are.
func (e *enforcer) where() string {
	table := e.a.tableName()
	switch e.a.current().Config().Firewall.Enforcer {
	case settings.EnforceIPSet:
		return fmt.Sprintf("in ipsets %s-*, asked by iptables' raw table", table)
	case settings.EnforceHook:
		return "by the hook " + e.a.current().Config().Firewall.Hook[0]
	}
	return "in nftables, table inet " + table
}

// withoutTracking takes out of the scopes what needs the kernel's connection
// tracking, and says whether there was any.
func withoutTracking(scopes []firewall.Scope) (had bool) {
	for i := range scopes {
		s := &scopes[i]
		had = had || s.MaxConnections != 0 || s.Remember != 0
		s.MaxConnections, s.Remember = 0, 0
		if s.All {
			s.All, s.Ports, s.Protocols = false, nil, nil
		}
	}
	return had
}
