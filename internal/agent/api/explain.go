package api

import (
	"net/http"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/span"
)

// explain answers why a target is banned or not.
func (s *Server) explain(r *http.Request) (any, error) {
	target, err := ban.ParseTarget(r.URL.Query().Get("target"))
	if err != nil {
		return nil, control.Refuse(control.CodeBad, "", "%v", err)
	}
	x := Explanation(s.o.Ledger.Explain(target), s.o.Settings().NameOf)
	Observe(&x, s.o.Settings())
	s.addListed(&x)
	x.Guest, _ = s.o.Guest(target)
	x.Held = s.o.Held(target)
	x.Shielded = s.o.Shielded(target)
	for _, c := range s.o.Detection.Counted(target) {
		x.Counted = append(x.Counted, control.Counted{Topic: c.Topic, Target: c.Target, Offences: c.Offences, Limit: c.Limit, Within: span.Of(c.Within), Last: c.Last})
	}
	x.AfterBan = s.o.AfterBan(r.Context(), target)
	if held, ok := s.o.Firewall.Holds(r.Context(), target); ok {
		x.Kernel = HeldOf(held)
	}
	if _, ip := target.Prefix(); ip {
		if counters, ok := s.o.Firewall.Counters(r.Context()); ok {
			Met(&x, counters)
		}
	}
	return x, nil
}

// gate gives the wallet gate's state.
func (s *Server) gate(r *http.Request) (any, error) {
	g, ok := s.o.Gate(r.Context())
	if !ok {
		return nil, control.Refuse(control.CodeMissing, "set enabled = true in [gate] of agent.toml, agent reload, and enable banmesh-gate.socket", "no wallet gate is kept here")
	}
	return g, nil
}

// documents gives the documents that operators publish, as they are held here.
func (s *Server) documents(*http.Request) (any, error) {
	return control.Documents{
		Trust:       each(s.o.Sharing.TrustLists(), trustList),
		Definitions: each(s.o.Sharing.Definitions(), func(d federation.PublishedDefinition) control.Definition { return control.Definition(d) }),
		Lists:       each(s.o.Sharing.Lists(), s.walletList),
	}, nil
}

// card gives the newest card of an operator.
func (s *Server) card(r *http.Request) (any, error) {
	o, err := s.operator(strings.TrimSpace(r.URL.Query().Get("peer")))
	if err != nil {
		return nil, err
	}
	name := s.o.Settings().NameOf(o)
	text := s.o.Sharing.Card(o)
	if text == "" {
		return nil, control.Refuse(control.CodeMissing, "an operator publishes it with its first feed; see `agent feeds`", "no card of %s has been heard", name)
	}
	return control.PeerCard{Name: name, Text: text}, nil
}
