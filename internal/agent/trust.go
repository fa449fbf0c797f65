package agent

import (
	"context"
	"log/slog"

	"banmesh/internal/ban"
	"banmesh/internal/history"
	"banmesh/internal/settings"
)

// follows is how deep lists are read: whom the rules follow, and whom these
// follow in turn.
const follows = 2

// takeTrust tells the session whose documents the rules need, and gives the
// settings with the trust lists that are held. Later ones are news.
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

// takeNews tells the node of documents as they arrive, until ctx ends.
func (s *sharing) takeNews(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.session.News():
		}
		if err := s.o.news(ctx); err != nil {
			s.o.log.ErrorContext(ctx, "trust lists not taken over", slog.Any("error", err))
		}
	}
}

// operatorsOf gives the operators that the rules name.
func operatorsOf(s *settings.Settings) map[string]ban.Operator {
	list := map[string]ban.Operator{}
	for name := range s.Config().Operators {
		if o, ok := s.Policy().Operator(name); ok {
			list[name] = o
		}
	}
	return list
}

// retrust takes over documents that have changed: it compiles the policy again
// where trust lists have, and has the gate's list written with the contacts of
// the lists of wallets.
func (a *agent) retrust(ctx context.Context) error {
	a.gate.forget()
	a.reloads.Lock()
	defer a.reloads.Unlock()
	before := a.current()
	next, err := a.sharing.takeTrust(before)
	if err != nil || before.SameTrust(next) {
		return err
	}
	a.setCurrent(next)
	a.ledger.SetPolicy(next.Policy().As(a.sharing.Operator()))
	a.sharing.follow(next)
	a.chronicle.Add(history.Event{Kind: history.Peer, By: "a trust list", Count: next.Reached(), Why: "trust lists changed; they reach so many operators"})
	a.log.InfoContext(ctx, "trust lists taken over", slog.Int("reached", next.Reached()))
	return nil
}
