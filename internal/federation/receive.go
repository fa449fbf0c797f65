package federation

import (
	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// packet is a message as a broker delivered it.
type packet struct {
	link     *link // nil where no broker is to blame
	topic    string
	payload  []byte
	retained bool
}

// receive takes a message and those that wait behind it.
func (s *Session) receive(p packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	s.route(p)
	for range batchMost {
		select {
		case p := <-s.in:
			s.route(p)
		default:
			return
		}
	}
}

// route hands one message to the part that it is for. s.mu is held. Messages
// that are not followed are dropped before a byte of the payload is read.
func (s *Session) route(p packet) {
	s.counts.Received++
	n, err := wire.ParseTopicName(p.topic)
	switch {
	case err != nil:
		s.counts.refuse(refusedName)
		return
	case n.Network != s.o.Network:
		s.counts.refuse(refusedNetwork)
		return
	case !s.opener.mayDeliver(p, s.fx.now):
		return
	}
	if n.Kind == wire.KindLive {
		s.routeLive(n, p)
		return
	}
	if n.Operator == s.cards.own && p.retained && p.link != nil {
		p.link.heard(n, p.payload)
	}
	switch {
	case n.Kind == wire.KindCard:
		s.onCard(n, p)
	case n.Kind.IsDocument():
		s.documents.hear(n, p, &s.fx)
	case !n.OfNode():
		s.counts.refuse(refusedUnknown)
	case n.Operator == s.cards.own && n.Node == s.o.Identity.Node():
		s.publisher.onOwn(n, p, s.fx.now)
	default:
		s.reader.hear(n, p, &s.fx)
	}
}

// index compares a broker's index with the local heads. It gives which operators'
// retained messages are to be asked for by filters; ok is false for all.
func (s *Session) index(x *wire.Index) (unheard map[ban.Operator]bool, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	return s.reader.compare(x, &s.fx)
}

// routeLive hands a live copy to the part that its message is for. s.mu is held.
func (s *Session) routeLive(n wire.Name, p packet) {
	if s.dirty && n.OfNode() && s.reader.followers[n.Feed()] == nil && s.reader.listensTo(n.Operator) {
		s.reconcile() // the card that certifies the node may have come just before
	}
	switch {
	case n.OfNode() && n.Operator == s.cards.own && n.Node == s.o.Identity.Node():
		return // our own; the retained ones say how the broker has us
	case n.OfNode() && !s.reader.follows(n, s.fx.now):
		s.counts.refuse(refusedUnknown)
		return
	}
	n, err := wire.OfLive(n, p.payload)
	switch {
	case err != nil:
		s.opener.bad(p, err, s.fx.now)
	case n.Kind == wire.KindCard:
		s.onCard(n, p)
	default:
		s.reader.hear(n, p, &s.fx)
	}
}

// onCard takes an operator's card if it is newer than the one at hand.
func (s *Session) onCard(n wire.Name, p packet) {
	if !s.reader.listensTo(n.Operator) {
		s.counts.refuse(refusedUnknown)
		return
	}
	if n.Operator == s.cards.own && p.link != nil {
		p.link.saw(n, p.payload)
	}
	if len(p.payload) == 0 {
		s.counts.refuse(refusedEmpty)
		return
	}
	m, fresh, ok := s.opener.open(n, p, s.fx.now)
	switch {
	case !ok:
		return
	case fresh && !s.documents.allow(n.Operator, s.fx.now):
		s.counts.refuse(refusedRate)
		return
	}
	card := m.Body.(*wire.Card)
	old := s.cards.of(card.Operator)
	switch {
	case card.Issued.After(s.fx.now.Add(wire.MaxAhead)):
		s.counts.refuse(refusedFuture)
	case old != nil && card.Serial < old.Serial:
		s.counts.refuse(refusedReplay)
	case s.cards.take(card, p.payload, &s.fx):
		s.dirty = true
	}
}
