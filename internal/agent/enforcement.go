package agent

import (
	"context"
	"path/filepath"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/settings"
)

// switchFile, in the state directory, switches the ipset and hook enforcers off
// while it is there; the nftables enforcer's switch is in the kernel.
const switchFile = "firewall-off"

// SwitchFile gives the switch of the ipset and hook enforcers of a node.
func SwitchFile(stateDir string) string { return filepath.Join(stateDir, switchFile) }

// openFirewall gives the enforcer that the settings name, opened. Where it
// cannot work it gives none, and why.
func openFirewall(ctx context.Context, s *settings.Settings, sw string, o firewall.Options) (fw firewall.Firewall, can firewall.Capability, err error) {
	e, err := s.Enforcer(sw)
	if err != nil {
		return nil, can, s.Config().At("firewall.enforcer", "%v", err)
	}
	can, err = e.Probe(ctx)
	switch {
	case can.Reason != "":
		return nil, can, nil
	case err != nil:
		return nil, firewall.Capability{Reason: err.Error(), Fix: "agent firewall check"}, nil
	case !can.Enforce:
		return nil, firewall.Capability{Reason: "the kernel does not say why not", Fix: "agent firewall check"}, nil
	}
	fw, err = e.Open(o)
	return fw, can, err
}

// Enforcement implements [api.Firewall]: "nftables", "ipset" or "hook";
// "observe" where packets are counted at most, or "off", and then why.
func (e *enforcer) Enforcement() (mode, why string) {
	f := e.o.settings().Config().Firewall
	switch {
	case f.Mode == "off":
		return "off", "firewall.mode is off"
	case e.fw == nil:
		return "observe", e.can.Reason
	case f.Mode == "observe":
		return "observe", "firewall.mode is observe: packets are counted, none is dropped"
	}
	return e.chosen().Name(), ""
}

// chosen gives the enforcer that the settings in force name.
func (e *enforcer) chosen() firewall.Enforcer {
	// Settings are not in force before their enforcer was found.
	chosen, _ := e.o.settings().Enforcer(SwitchFile(e.o.state))
	return chosen
}

// withoutTracking takes out of the scopes everything that needs the kernel's connection
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

// kernelHolds asks the kernel about a target, where it can be asked.
func kernelHolds(ctx context.Context, s *settings.Settings, target ban.Target) (firewall.Held, bool) {
	p, ip := target.Prefix()
	e, err := s.Enforcer("")
	if !ip || err != nil || s.Config().Firewall.Mode == "off" {
		return firewall.Held{}, false
	}
	held, err := e.Holds(ctx, p)
	return held, err == nil
}
