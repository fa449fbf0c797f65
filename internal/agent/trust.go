package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/wire"
)

// follows is how deep lists are read: whom the rules follow, and whom these
// follow in turn.
const follows = 2

// takeTrust tells the session whose documents the rules need, and gives the
// settings with the trust lists that are held. What arrives later is news.
func (s *sharing) takeTrust(next *settings.Settings) (*settings.Settings, error) {
	var named []ban.Operator
	for name := range next.Config().Operators {
		if o, ok := next.Policy().Operator(name); ok {
			named = append(named, o)
		}
	}
	for range follows {
		s.session.ReadDocuments(next.Policy().Follows(), named)
		followed, err := next.WithTrust(s.session.TrustLists())
		if err != nil {
			return nil, err
		}
		next = followed
	}
	s.session.ReadDocuments(next.Policy().Follows(), named)
	return next, nil
}

// heed puts trust lists in force as they arrive, until ctx ends.
func (s *sharing) heed(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.session.News():
		}
		if err := s.a.retrust(ctx); err != nil {
			s.a.log.ErrorContext(ctx, "published trust lists cannot be taken over", slog.Any("error", err))
		}
	}
}

// retrust compiles the policy again where the trust lists have changed.
func (a *agent) retrust(ctx context.Context) error {
	a.reloads.Lock()
	defer a.reloads.Unlock()
	before := a.current()
	next, err := a.sharing.takeTrust(before)
	if err != nil || before.SameTrust(next) {
		return err
	}
	a.mu.Lock()
	a.settings = next
	a.mu.Unlock()
	a.ledger.SetPolicy(next.Policy())
	a.sharing.follow(next)
	a.log.InfoContext(ctx, "trust lists taken over", slog.Int("reached", next.Reached()))
	return nil
}

// explained names operators that are known by a followed list only.
func explained(s *settings.Settings, e ledger.Explanation) ledger.Explanation {
	name := func(text string) string {
		o, err := ban.ParseOperator(text)
		if err != nil {
			return text
		}
		return s.NameOf(o)
	}
	for i := range e.Standings {
		x := &e.Standings[i]
		for j := range x.By {
			x.By[j] = name(x.By[j])
		}
		for j := range x.Claims {
			x.Claims[j].Name = name(x.Claims[j].Name)
		}
	}
	return e
}

// registerSharing answers the commands about what operators publish of
// themselves.
func (a *agent) registerSharing(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/documents", control.Handle(func(*http.Request) (any, error) {
		return Documents{list(a.sharing.session.TrustLists()), list(a.sharing.session.Definitions())}, nil
	}))
	mux.HandleFunc("GET /v1/card", control.Handle(a.card))
}

// Documents are what operators publish, as it is held here: the trust lists
// that the rules follow, and the topic definitions of the operators that the
// configuration names.
type Documents struct {
	Trust       []federation.TrustList           `json:"trust"`
	Definitions []federation.PublishedDefinition `json:"definitions"`
}

// PeerCard is an operator's card as it is held here.
type PeerCard struct {
	Name string `json:"name"`
	Text string `json:"text"` // as `agent key card --text` prints it
}

// card gives the newest card of an operator.
func (a *agent) card(r *http.Request) (any, error) {
	who := r.URL.Query().Get("peer")
	checked := a.current()
	o, ok := checked.Policy().Operator(who)
	if !ok {
		var err error
		if o, err = ban.ParseOperator(strings.TrimSpace(who)); err != nil {
			return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no operator %.64q is known", who), Hint: "see `agent peers list`"}
		}
	}
	card, raw := a.sharing.session.Card(o)
	if card == nil {
		return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no card of %s has been heard", checked.NameOf(o)), Hint: "an operator publishes it with its first feed; see `agent feeds`"}
	}
	return PeerCard{checked.NameOf(o), wire.CardText(raw)}, nil
}
