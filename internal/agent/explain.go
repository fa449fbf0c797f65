package agent

import (
	"context"
	"net/http"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// An Explanation answers why a target is banned or not, and what the kernel
// does about it.
type Explanation struct {
	ledger.Explanation
	// Kernel is nil where the kernel cannot be asked: for a wallet, without the
	// right to, or where something else than nftables enforces.
	Kernel *firewall.Held `json:"kernel,omitempty"`
	// Met is what the bans of each topic in question have met since the table
	// was made. The kernel counts by topic: a counter an address would cost more
	// memory than the bans.
	Met map[ban.Topic]firewall.Counter `json:"met,omitempty"`
	// Offline says that no agent runs: this is what it left.
	Offline bool `json:"offline,omitempty"`
}

func (a *agent) explain(r *http.Request) (any, error) {
	target, err := ban.ParseTarget(r.URL.Query().Get("target"))
	if err != nil {
		return nil, &control.RefusedError{Code: control.CodeBad, Text: err.Error()}
	}
	return a.explanation(r.Context(), target), nil
}

func (a *agent) explanation(ctx context.Context, target ban.Target) Explanation {
	s := a.current()
	x := Explanation{Explanation: explained(s, a.ledger.Explain(target))}
	if a.enforcer == nil || a.enforcer.fw == nil {
		return x
	}
	if _, ip := target.Prefix(); !ip {
		return x
	}
	if held, ok := kernelHolds(ctx, s, target); ok {
		x.Kernel = &held
	}
	if counters, err := a.enforcer.fw.Counters(ctx); err == nil {
		x.met(counters)
	}
	return x
}

// kernelHolds asks the kernel, where it can be asked.
func kernelHolds(ctx context.Context, s *settings.Settings, target ban.Target) (firewall.Held, bool) {
	p, ip := target.Prefix()
	e, err := s.Enforcer("")
	if !ip || err != nil || s.Config().Firewall.Mode == "off" {
		return firewall.Held{}, false
	}
	held, err := e.Holds(ctx, p)
	return held, err == nil
}

// met picks the counters of the topics that the explanation is about.
func (x *Explanation) met(counters map[ban.Topic]firewall.Counter) {
	for _, s := range x.Standings {
		if c, ok := counters[s.Topic]; ok {
			if x.Met == nil {
				x.Met = map[ban.Topic]firewall.Counter{}
			}
			x.Met[s.Topic] = c
		}
	}
}
