package federation

import (
	"maps"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// Publish sets the topics in which the node's own feeds are published: the
// whole desired set. Publishing is an opt-in. A feed that was published and is
// no longer is withdrawn: it is empty for whoever follows it, and here; call
// SaySnapshot before it is published again.
func (s *Session) Publish(topics []ban.Topic) {
	s.mu.Lock()
	clear(s.publisher.topics)
	for _, t := range topics {
		s.publisher.topics[t] = true
	}
	s.mu.Unlock()
	s.changed()
}

// Published gives the topics in which the node's own feeds are published.
func (s *Session) Published() []ban.Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.publisher.topics))
}

// Refresh looks at once for a card and documents that commands have put beside
// the node's keys; without it that takes up to a minute.
func (s *Session) Refresh() {
	s.mu.Lock()
	s.refresh = true
	s.mu.Unlock()
}

// Say changes the node's own feed of a topic. It is durable when Say returns,
// and published if the topic is. Only the node's own claims may be said: that
// nothing is ever passed on from others is by construction, because this
// package never calls Say with claims that it received.
func (s *Session) Say(topic ban.Topic, add []ban.Claim, withdraw []ban.Withdrawal) error {
	now := s.o.Now()
	down := make([]wire.Withdrawal, 0, len(withdraw))
	for _, w := range withdraw {
		if !w.Target.IsZero() {
			down = append(down, wire.WithdrawalOf(w))
		}
	}
	up, down := wire.Settle(wire.SortClaims(add, now), down)
	return s.publisher.say(topic, func(a *author) ([]outgoing, error) { return a.say(now, up, down) })
}

// SaySnapshot makes the node's own feed say exactly these claims. Only the
// difference is written and published, so that the caller may repair after a
// crash whatever Say was not told.
func (s *Session) SaySnapshot(topic ban.Topic, claims []ban.Claim) error {
	now := s.o.Now()
	es := wire.SortClaims(claims, now)
	return s.publisher.say(topic, func(a *author) ([]outgoing, error) { return a.sayAll(now, es) })
}

// Dispute sets all that the node disputes in a topic: targets that it says
// should not be banned, each until the claim's end. Whether others listen is
// for their policy. It is durable when Dispute returns.
func (s *Session) Dispute(topic ban.Topic, claims []ban.Claim) error {
	now := s.o.Now()
	es := wire.SortClaims(claims, now)
	for i := range es {
		es[i].Meta[1] = 0
	}
	return s.publisher.say(topic, func(a *author) ([]outgoing, error) { return a.dispute(now, es) })
}

// Card gives the newest card of an operator that is known, and its payload.
func (s *Session) Card(o ban.Operator) (*wire.Card, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cards.held[o]; c != nil {
		return c.card, c.raw
	}
	return nil, nil
}

// AddCard takes a card that came by another way than a broker, such as a file
// that a person was given, so that its nodes are followed at once.
func (s *Session) AddCard(raw []byte) error {
	card, err := wire.OpenCard(raw)
	if err != nil {
		return err
	}
	s.mu.Lock()
	newer := s.cards.newer(card)
	s.mu.Unlock()
	if !newer {
		return nil
	}
	if err := s.cards.keep(card, raw); err != nil {
		return err
	}
	s.mu.Lock()
	s.cards.held[card.Operator] = &cardState{card, raw}
	s.mu.Unlock()
	s.changed()
	return nil
}

// ReadDocuments sets whose trust lists and whose topic definitions are read:
// the whole desired sets.
func (s *Session) ReadDocuments(trust, definitions []ban.Operator) {
	s.mu.Lock()
	s.documents.trust, s.documents.definitions = setOf(trust), setOf(definitions)
	s.mu.Unlock()
	s.changed()
}

// ReadLists sets whose lists of wallets are read, in which topics: the whole
// desired set.
func (s *Session) ReadLists(lists []Following) {
	s.mu.Lock()
	clear(s.documents.lists)
	for _, f := range lists {
		s.documents.lists[f] = true
	}
	s.mu.Unlock()
	s.changed()
}

// Lists gives the lists of wallets that are read, without those that were
// withdrawn, sorted by topic and operator.
func (s *Session) Lists() []PublishedList {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.documents.walletLists()
}

// News is told when a document that is read has changed.
func (s *Session) News() <-chan struct{} { return s.documents.news }

// TrustLists gives the lists of those whose lists are read, sorted.
func (s *Session) TrustLists() []TrustList {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.documents.trustLists()
}

// Definitions gives the topic definitions of those whose are read, without
// those that were withdrawn, sorted by topic and operator.
func (s *Session) Definitions() []PublishedDefinition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.documents.published()
}
