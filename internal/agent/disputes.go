package agent

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Dispute implements [api.Sharing]: it publishes, in every topic that is
// published, the unbans of which people said that others should know. A policy
// with a dispute rule listens.
func (s *sharing) Dispute() error {
	now := s.o.now()
	for _, t := range s.o.settings().Topics() {
		if !t.Publish {
			continue
		}
		var claims []ban.Claim
		for _, e := range s.o.ledger.Exemptions.List() {
			if !e.Dispute || e.Topic != "" && e.Topic != t.Topic || (e.Target.Kind() == ban.KindWallet) != (t.Definition.Target == "wallet") {
				continue
			}
			end := now.Add(policy.MaxTTL)
			if e.Until.Before(end) && !e.Until.IsZero() {
				end = e.Until
			}
			claims = append(claims, ban.Claim{Target: e.Target, End: end.Truncate(time.Minute), Class: ban.ClassManual})
		}
		if !s.disputes(t.Topic, len(claims) > 0) {
			continue
		}
		if err := s.session.Dispute(t.Topic, claims); err != nil {
			return fmt.Errorf("publishing the disputes in %s: %w", t.Topic, err)
		}
	}
	return nil
}

// disputes says whether there is something to say in a topic: who never
// disputed anything need not say so.
func (s *sharing) disputes(topic ban.Topic, something bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if something {
		if s.disputing == nil {
			s.disputing = map[ban.Topic]bool{}
		}
		s.disputing[topic] = true
	}
	return s.disputing[topic]
}
