package agent

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"

	"banmesh/internal/firewall"
)

// switchFile, in the state directory, switches the ipset and hook enforcers off
// while it is there; the nftables enforcer's switch is in the kernel.
const switchFile = "firewall-off"

// SwitchFile gives the switch of the ipset and hook enforcers of a node.
func SwitchFile(stateDir string) string { return filepath.Join(stateDir, switchFile) }

// openFirewall gives the enforcer that the settings name. Where it cannot work
// it gives none, and why.
func openFirewall(ctx context.Context, s *Settings, o firewall.Options) (fw firewall.Firewall, why string, err error) {
	c := s.config.Firewall
	switch c.Enforcer {
	case enforceIPSet:
		if can := firewall.ProbeIPSet(ctx, c.IPTablesLegacy); !can.Enforce {
			return nil, can.Reason, nil
		}
		return firewall.NewIPSet(o, c.IPTablesLegacy), "", nil
	case enforceHook:
		hook, err := firewall.NewHook(o, c.Hook)
		if err != nil {
			return nil, "", s.config.At("firewall.hook", "%v", err)
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

// firewallConfig is everything that an enforcer is told but the bans.
func (s *Settings) firewallConfig() firewall.Config {
	f := s.config.Firewall
	c := firewall.Config{Table: f.Table, Cap: f.MaxBan, Owner: owners[f.Owner], KeepSockets: f.KeepSockets}
	for _, t := range s.topics {
		if t.definition.Target == "ip" {
			c.Scopes = append(c.Scopes, t.scope)
		}
	}
	return c
}

// needsRestart names a setting of the machine's side that a running agent does
// not take over, or "".
func needsRestart(old, next *Settings) string {
	a, b := old.config.Firewall, next.config.Firewall
	if (a.Mode == "off") == (b.Mode == "off") {
		a.Mode = b.Mode // observe and enforce are followed at once
	}
	a.MaxBan, a.KeepSockets = b.MaxBan, b.KeepSockets
	for _, x := range []struct {
		what      string
		old, next any
	}{
		{"the firewall's enforcer", a, b},
		{"the wallet gate", old.config.Gate, next.config.Gate},
		{"what is served over HTTP", old.config.HTTP, next.config.HTTP},
	} {
		if !reflect.DeepEqual(x.old, x.next) {
			return x.what
		}
	}
	return ""
}

// enforcement says what enforces, and why not as one would expect: "nftables",
// "ipset" or "hook"; "observe" where packets are counted at most; "off".
func (e *enforcer) enforcement() (mode, why string) {
	f := e.a.current().config.Firewall
	switch {
	case f.Mode == "off":
		return "off", "firewall.mode is off"
	case e.fw == nil:
		return "observe", e.why
	case f.Mode == "observe":
		return "observe", "firewall.mode is observe: packets are counted, none is dropped"
	case f.Enforcer == "":
		return enforceNFTables, ""
	}
	return f.Enforcer, ""
}

// where says to people where the bans are.
func (e *enforcer) where() string {
	table := e.a.tableName()
	switch e.a.current().config.Firewall.Enforcer {
	case enforceIPSet:
		return fmt.Sprintf("in ipsets %s-*, asked by iptables' raw table", table)
	case enforceHook:
		return "by the hook " + e.a.current().config.Firewall.Hook[0]
	}
	return "in nftables, table inet " + table
}
