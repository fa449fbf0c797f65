package agent

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
)

// trusting is what others' published trust lists make of a configuration.
type trusting struct {
	lists policy.Trust
	// reached names operators that only a followed list names: "dave, by way of
	// alice". The names are foreign, but plain text.
	reached map[ban.Operator]string
}

// follows is how deep lists are read: whom the rules follow, and whom these
// follow in turn.
const follows = 2

// takeTrust tells the session whose documents the rules need, and gives the
// settings with the trust lists that are held. What arrives later is news.
func (s *sharing) takeTrust(settings *Settings) (*Settings, error) {
	var named []ban.Operator
	for name := range settings.config.Operators {
		if o, ok := settings.policy.Operator(name); ok {
			named = append(named, o)
		}
	}
	for range follows {
		s.session.ReadDocuments(settings.policy.Follows(), named)
		next, err := settings.withTrust(s.session.TrustLists())
		if err != nil {
			return nil, err
		}
		settings = next
	}
	s.session.ReadDocuments(settings.policy.Follows(), named)
	return settings, nil
}

// withTrust compiles the same configuration against trust lists.
func (s *Settings) withTrust(held []federation.TrustList) (*Settings, error) {
	next := *s
	next.trusting = trusting{policy.Trust{}, map[ban.Operator]string{}}
	for _, l := range held {
		next.trusting.lists[l.Operator] = policyList(l)
	}
	p, err := s.policy.WithTrust(next.trusting.lists)
	if err != nil {
		return nil, fmt.Errorf("taking over trust lists: %w", err)
	}
	next.policy = p
	for _, l := range held {
		by, ok := p.Name(l.Operator)
		if !ok {
			by = l.Operator.String()
		}
		for _, o := range l.Trusted {
			if _, named := p.Name(o.Operator); !named && next.trusting.reached[o.Operator] == "" {
				next.trusting.reached[o.Operator] = fmt.Sprintf("%s, by way of %s", cmp.Or(o.Name, o.Operator.String()), by)
			}
		}
	}
	next.topics = nil
	for _, name := range slices.Sorted(maps.Keys(s.definitions)) {
		setting, err := next.setting(s.definitions[name])
		if err != nil {
			return nil, fmt.Errorf("topic %s: %w", name, err)
		}
		next.topics = append(next.topics, setting)
	}
	return &next, nil
}

// policyList orders a list by weight: a follow may take only the first few.
func policyList(l federation.TrustList) (out policy.TrustList) {
	trusted := slices.Clone(l.Trusted)
	slices.SortStableFunc(trusted, func(a, b federation.Trusted) int { return cmp.Compare(b.Weight, a.Weight) })
	for _, o := range trusted {
		out.Operators = append(out.Operators, o.Operator)
		if o.Follows {
			out.Follows = append(out.Follows, o.Operator)
		}
	}
	return out
}

// nameOf names an operator: as the configuration does, as the list does by
// which it is reached, or by its identity.
func (s *Settings) nameOf(o ban.Operator) string {
	if name, ok := s.policy.Name(o); ok {
		return name
	}
	return cmp.Or(s.trusting.reached[o], o.String())
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
	if err != nil || reflect.DeepEqual(before.trusting, next.trusting) {
		return err
	}
	a.mu.Lock()
	a.settings = next
	a.mu.Unlock()
	a.ledger.SetPolicy(next.policy)
	a.sharing.follow(next)
	a.log.InfoContext(ctx, "trust lists taken over", slog.Int("lists", len(next.trusting.lists)), slog.Int("reached", len(next.trusting.reached)))
	return nil
}

// explained names operators that are known by a followed list only.
func (s *Settings) explained(e ledger.Explanation) ledger.Explanation {
	name := func(text string) string {
		o, err := ban.ParseOperator(text)
		if err != nil {
			return text
		}
		return s.nameOf(o)
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
	settings := a.current()
	o, ok := settings.policy.Operator(who)
	if !ok {
		var err error
		if o, err = ban.ParseOperator(strings.TrimSpace(who)); err != nil {
			return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no operator %.64q is known", who), Hint: "see `agent peers list`"}
		}
	}
	card, raw := a.sharing.session.Card(o)
	if card == nil {
		return nil, &control.RefusedError{Code: control.CodeMissing, Text: fmt.Sprintf("no card of %s has been heard", settings.nameOf(o)), Hint: "an operator publishes it with its first feed; see `agent feeds`"}
	}
	return PeerCard{settings.nameOf(o), federation.CardText(raw)}, nil
}
