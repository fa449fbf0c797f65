package api

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/capi"
	"banmesh/internal/compat/serving"
	"banmesh/internal/control"
	"banmesh/internal/ledger"
)

// CrowdSec is CrowdSec's central API, where [crowdsec] asks for it.
type CrowdSec interface {
	Machines() *credentials.Machines
	// Listen is where it answers, "" while that is off.
	Listen() string
	Clients() []capi.Status
	// Refused tells of installations without valid credentials.
	Refused() serving.Refused
}

func crowdSecClient(c capi.Status) control.CompatClient {
	return control.CompatClient{Name: c.Login, From: c.From, Kind: c.Agent, Last: c.Last, Told: c.Told, Signals: c.Signals, Ignored: c.Ignored, Requests: c.Dropped.Requests, Packets: c.Dropped.Packets}
}

// joinCrowdSec lets an installation in by the credentials that it has.
func (s *Server) joinCrowdSec(r *http.Request) (any, error) {
	var q control.CrowdSecRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	at := s.o.CrowdSec.Listen()
	if at == "" {
		return nil, control.Refuse(control.CodeRefused, "add `[crowdsec]` with `listen = \"127.0.0.1:8090\"` to agent.toml and restart the agent", "nobody answers CrowdSec yet")
	}
	err := s.o.CrowdSec.Machines().Add(q.Login, q.Password, s.o.Now())
	if errors.Is(err, credentials.ErrLogin) || errors.Is(err, credentials.ErrMachines) {
		return nil, control.Refuse(control.CodeRefused, "agent crowdsec leave", "%v", err)
	}
	return control.CrowdSecAnswer{URL: "http://" + at + "/"}, err
}

// leaveCrowdSec lets it in no more.
func (s *Server) leaveCrowdSec(r *http.Request) (any, error) {
	var q control.CrowdSecRequest
	if err := control.Decode(r, &q); err != nil {
		return nil, err
	}
	err := s.o.CrowdSec.Machines().Remove(q.Login)
	if errors.Is(err, credentials.ErrNoMachine) {
		return nil, control.Refuse(control.CodeMissing, "", "%v", err)
	}
	return control.CountAnswer{Count: 1}, err
}

// TakeSignals records alerts of a CrowdSec as bans of the source crowdsec, for
// the ban time of their topics from when they were raised. Those of topics that
// this node does not have, and of whom it never bans, are left out.
func (s *Server) TakeSignals(ctx context.Context, list []capi.Signal) error {
	var bans []ledger.Local
	for _, x := range list {
		t, ok := s.o.Settings().Find(x.Topic)
		at := x.At
		if now := s.o.Now(); at.After(now) {
			at = now
		}
		end := at.Add(s.o.Settings().BanTime(x.Topic))
		if !ok || t.Definition.Target != "ip" || !end.After(s.o.Now()) {
			continue
		}
		bans = append(bans, ledger.Local{
			Topic: x.Topic, Source: ledger.SourceCrowdSec, At: at, Evidence: ledger.Evidence{By: string(ledger.SourceCrowdSec)},
			Claim: ban.Claim{Target: x.Target, End: end, Class: x.Class, Basis: ledger.SourceCrowdSec.Basis(), Hits: uint8(min(x.Hits, ban.MaxHits))},
		})
	}
	if len(bans) == 0 {
		return nil
	}
	refused, err := s.o.Ledger.Own.BanAll(bans)
	if err != nil {
		return err
	}
	for _, r := range refused[:min(len(refused), 10)] {
		s.o.Log.InfoContext(ctx, "signal of CrowdSec not taken", slog.String("target", bans[r.Index].Claim.Target.String()), slog.Any("reason", r.Err))
	}
	s.o.Log.InfoContext(ctx, "signals of CrowdSec taken", slog.Int("banned", len(bans)-len(refused)), slog.Int("refused", len(refused)))
	return nil
}
