package federation

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// checkEvery is how often certificates are looked at without a reason.
const checkEvery = time.Minute

// Rates at which messages of one feed are verified. What is beyond is dropped
// unread; it is retained and asked for again.
const (
	rateBurst  = 4096
	rateSecond = 500
)

// Reasons for which messages are refused.
const (
	refusedName      = "not-a-name"
	refusedNetwork   = "other-network"
	refusedUnknown   = "not-followed"
	refusedSize      = "size"
	refusedFormat    = "format"
	refusedMisplaced = "misplaced"
	refusedSignature = "signature"
	refusedFuture    = "future"
	refusedStanding  = "not-certified"
	refusedReplay    = "replay"
	refusedRate      = "rate"
	refusedEmpty     = "erased"
)

// packet handles one delivered message. s.mu is held. What is not followed is
// dropped before a byte of the payload is read.
func (s *Session) packet(p packet, fx *effects) {
	s.counts.Received++
	n, err := wire.ParseTopicName(p.topic)
	switch {
	case err != nil:
		s.refuse(refusedName)
		return
	case n.Network != s.o.Network:
		s.refuse(refusedNetwork)
		return
	}
	if n.Operator == s.own && p.retained && p.link != nil {
		p.link.heard(n, p.payload)
	}
	switch {
	case n.Kind == wire.KindCard:
		s.onCard(n, p, fx)
		return
	case n.Kind == wire.KindTrust || n.Kind == wire.KindDefinition:
		s.onDocument(n, p, fx)
		return
	case !n.OfNode():
		s.refuse(refusedUnknown)
		return
	}
	f := n.Feed()
	if f.Operator == s.own && f.Node == s.node {
		s.onOwn(n, p)
		return
	}
	w := s.followers[f]
	switch {
	case w == nil:
		s.refuse(refusedUnknown)
		return
	case w.halted != nil:
		s.refuse(refusedStanding)
		return
	case len(p.payload) == 0:
		// Anybody can erase a retained message at a broker without rules. It
		// says nothing about the feed.
		s.refuse(refusedEmpty)
		return
	case !w.allowed.take(fx.now):
		s.refuse(refusedRate)
		return
	}
	m, err := s.verified.Open(n, p.payload)
	if err != nil {
		s.refuse(reasonOf(err))
		return
	}
	if err := s.believable(m, fx.now); err != nil {
		s.refuse(reasonOf(err))
		return
	}
	w.via = p.link
	before := w.replays
	if d, ok := m.Body.(*wire.Dispute); ok {
		w.onDispute(m, d, fx)
	} else {
		w.receive(m, fx)
	}
	if w.replays > before {
		s.refuse(refusedReplay)
	}
}

func (s *Session) refuse(reason string) { s.counts.Refused[reason]++ }

// believable checks date and certificate of a verified message of a feed.
func (s *Session) believable(m *wire.Message, now time.Time) error {
	h := m.Header
	if h.Ahead(now) {
		return wire.ErrFuture
	}
	switch h.Kind {
	case wire.KindChunk, wire.KindSegment, wire.KindManifest:
		return nil // only what a certified head names is ever used
	}
	c := s.cards[h.Operator]
	if c == nil {
		return wire.ErrUncertified
	}
	return c.card.Certifies(h.Signer, h.Issued)
}

func reasonOf(err error) string {
	switch {
	case errors.Is(err, wire.ErrSize):
		return refusedSize
	case errors.Is(err, wire.ErrMisplaced):
		return refusedMisplaced
	case errors.Is(err, wire.ErrSignature):
		return refusedSignature
	case errors.Is(err, wire.ErrFuture):
		return refusedFuture
	case errors.Is(err, wire.ErrUncertified), errors.Is(err, wire.ErrExpired), errors.Is(err, wire.ErrRevoked):
		return refusedStanding
	}
	return refusedFormat
}

// onCard takes an operator's card if it is newer than the one at hand.
func (s *Session) onCard(n wire.Name, p packet, fx *effects) {
	if !s.listensTo(n.Operator) {
		s.refuse(refusedUnknown)
		return
	}
	if !s.allowDocument(n.Operator, fx.now) {
		s.refuse(refusedRate)
		return
	}
	old := s.cards[n.Operator]
	if n.Operator == s.own && p.link != nil {
		p.link.saw(n, p.payload)
	}
	if len(p.payload) == 0 {
		s.refuse(refusedEmpty)
		return
	}
	m, err := s.verified.Open(n, p.payload)
	if err != nil {
		s.refuse(reasonOf(err))
		return
	}
	card := m.Body.(*wire.Card)
	switch {
	case card.Issued.After(fx.now.Add(wire.MaxAhead)):
		s.refuse(refusedFuture)
		return
	case old != nil && card.Serial < old.card.Serial:
		s.refuse(refusedReplay)
		return
	case old != nil && card.Serial == old.card.Serial:
		if string(old.raw) != string(p.payload) {
			s.o.Log.Error("operator_signed_two_cards", "operator", n.Operator, "serial", card.Serial)
		}
		return
	}
	if n.Operator == s.own {
		if err := s.o.Identity.InstallCard(p.payload); err != nil {
			s.o.Log.Error("own_card_refused", "error", err)
			return
		}
	}
	s.cards[n.Operator] = &cardState{card, p.payload}
	fx.write(bucketCards, n.Operator.String(), p.payload)
	s.o.Log.Info("card_accepted", "operator", n.Operator, "serial", card.Serial, "nodes", len(card.Certificates))
	s.dirty = true
}

// listensTo says whether an operator's card is wanted.
func (s *Session) listensTo(o ban.Operator) bool {
	if o == s.own {
		return true
	}
	for _, f := range s.following {
		if f.Operator == o {
			return true
		}
	}
	return false
}

// reconcile makes the followers what is followed and certified now. s.mu is held.
func (s *Session) reconcile(fx *effects) {
	s.dirty = false
	s.nextCheck = fx.now.Add(checkEvery)
	wanted := map[ban.Feed]bool{}
	for _, f := range s.following {
		for _, feed := range s.feedsOf(f) {
			wanted[feed] = true
		}
	}
	for feed, w := range s.followers {
		if !wanted[feed] {
			w.forget(fx)
			fx.changes = append(fx.changes, change{feed: feed, reset: true})
			fx.disputes = append(fx.disputes, disputed{feed, nil})
			delete(s.followers, feed)
		}
	}
	for feed := range wanted {
		w := s.followers[feed]
		if w == nil {
			w = s.newFollower(feed, fx)
		}
		s.standing(w, fx)
	}
	for _, t := range s.written() {
		if _, err := s.author(t); err != nil {
			s.o.Log.Error("feed_not_opened", "topic", t, "error", err)
		}
	}
	for _, l := range s.links {
		s.fenceAll(l, fx.now, 2*fenceWait)
	}
	s.rebase()
}

// written gives the topics of own feeds: those to publish, and those of which
// the store has something, because they may have to be withdrawn.
func (s *Session) written() []ban.Topic {
	out := maps.Clone(s.topics)
	prefix := s.o.Network + "/"
	err := s.o.Store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, prefix, func(k string, _ []byte) error {
			if t, ok := strings.CutSuffix(k[len(prefix):], "/state"); ok {
				out[ban.Topic(t)] = true
			}
			return nil
		})
	})
	if err != nil {
		s.o.Log.Error("own_feeds_not_listed", "error", err)
	}
	return slices.Collect(maps.Keys(out))
}

// feedsOf gives the feeds of all nodes that an operator certifies, or of which
// there is something in the store.
func (s *Session) feedsOf(f Following) (out []ban.Feed) {
	seen := map[ban.Node]bool{}
	if f.Operator == s.own {
		seen[s.node] = true
	}
	add := func(n ban.Node) {
		if !seen[n] {
			seen[n] = true
			out = append(out, ban.Feed{Topic: f.Topic, Operator: f.Operator, Node: n})
		}
	}
	if c := s.cards[f.Operator]; c != nil {
		for _, x := range c.card.Certificates {
			add(x.Node())
		}
	}
	prefix := fmt.Sprintf("%s/%s/%s/", s.o.Network, f.Topic, f.Operator)
	err := s.o.Store.View(func(tx store.Tx) error {
		return tx.Each(bucketFeeds, prefix, func(k string, _ []byte) error {
			node, _, _ := strings.Cut(k[len(prefix):], "/")
			if n, err := ban.ParseNode(node); err == nil && strings.HasSuffix(k, "/base") {
				add(n)
			}
			return nil
		})
	})
	if err != nil {
		s.o.Log.Error("stored_feeds_not_listed", "error", err)
	}
	return out
}

func newFollower(network string, feed ban.Feed) *follower {
	return &follower{network: network, feed: feed, allowed: allowance{burst: rateBurst, second: rateSecond}}
}

// newFollower begins to follow a feed with what the store has of it.
func (s *Session) newFollower(feed ban.Feed, fx *effects) *follower {
	w := newFollower(s.o.Network, feed)
	err := s.o.Store.View(func(tx store.Tx) error { return w.load(tx) })
	if err != nil {
		s.o.Log.Error("stored_feed_damaged", "feed", feed, "error", err)
		stored := w.stored
		*w = *newFollower(s.o.Network, feed)
		w.stored = stored
		w.headEpoch, w.headNumber, w.headHash, w.frozen = stored.headEpoch, stored.headNumber, stored.headHash, stored.frozen
		w.forget(fx)
	}
	s.followers[feed] = w
	w.emitAll(fx)
	if w.disputeClaims != nil {
		fx.disputes = append(fx.disputes, disputed{feed, w.disputeClaims})
	}
	w.progress(fx)
	return w
}

// emitAll hands the whole state on. What it repeats stays in force meanwhile.
func (f *follower) emitAll(fx *effects) {
	i := len(fx.changes)
	var es []wire.Entry
	f.set.each(func(e *wire.Entry) {
		if es = append(es, *e); len(es) == applyMost {
			f.emit(fx, es, nil)
			es = es[:0]
		}
	})
	f.emit(fx, es, nil)
	f.whole(fx, i)
}

// whole says that the changes from i on are the feed's whole state.
func (f *follower) whole(fx *effects, i int) {
	if len(fx.changes) == i {
		fx.changes = append(fx.changes, change{feed: f.feed})
	}
	fx.changes[i].reset = true
	for ; i < len(fx.changes)-1; i++ {
		fx.changes[i].more = true
	}
}

// standing halts a feed whose node may not speak, and purges a revoked one.
func (s *Session) standing(w *follower, fx *effects) {
	was := w.halted
	w.halted = wire.ErrUncertified
	if c := s.cards[w.feed.Operator]; c != nil {
		if since, ok := c.card.RevokedSince(w.feed.Node); ok {
			w.halted = wire.ErrRevoked
			w.purge(since, fx)
		} else {
			for _, x := range c.card.Certificates {
				if x.Node() == w.feed.Node && c.card.Certifies(x.Key, fx.now) == nil {
					w.halted = nil
				}
			}
		}
	}
	if w.halted != was {
		s.o.Log.Info("feed_standing", "feed", w.feed, "status", w.status(fx.now))
	}
	w.progress(fx)
}

// rebase works out what every link listens to all the time.
func (s *Session) rebase() {
	base := map[string]int{}
	base[wire.Name{Network: s.o.Network, Kind: wire.KindCard, Operator: s.own}.String()] = 1
	for _, f := range s.following {
		base[wire.Name{Network: s.o.Network, Kind: wire.KindCard, Operator: f.Operator}.String()] = 1
	}
	own := wire.Name{Network: s.o.Network, Kind: wire.KindTrust, Operator: s.own}
	base[own.String()] = 1
	base[definitionsFilter(own)] = MaxDefinitions / 4
	for o := range s.library.trust {
		base[wire.Name{Network: s.o.Network, Kind: wire.KindTrust, Operator: o}.String()] = 1
	}
	for o := range s.library.definitions {
		base[definitionsFilter(wire.Name{Network: s.o.Network, Operator: o})] = MaxDefinitions / 4
	}
	for _, w := range s.followers {
		if w.halted == nil {
			head := w.name(wire.KindHead, 0).String()
			base[head] = 1
			base[strings.TrimSuffix(head, "head")+"delta/+"] = ring
			base[w.name(wire.KindDispute, 0).String()] = 1
		}
	}
	for _, a := range s.authors {
		if s.topics[a.feed.Topic] || a.standing() != private {
			head := a.name(wire.KindHead, 0).String()
			base[head] = 1
			base[strings.TrimSuffix(head, "head")+"delta/+"] = ring
			base[a.name(wire.KindManifest, 0).String()] = 1
		}
	}
	if s.base == nil || !maps.Equal(s.base, base) {
		s.base = base
		s.baseGen++
	}
}

// definitionsFilter is the filter for all topic definitions of an operator.
func definitionsFilter(n wire.Name) string {
	n.Kind, n.Topic = wire.KindDefinition, "x"
	return strings.TrimSuffix(n.String(), "x") + "+"
}

// subscriptions tells the links what to listen to. s.mu is held.
func (s *Session) subscriptions() {
	var live []*link
	for _, l := range s.links {
		if l.alive() {
			live = append(live, l)
		}
	}
	fetch := make([]map[string]int, len(s.links))
	for i := range fetch {
		fetch[i] = map[string]int{}
	}
	for _, w := range s.followers {
		if len(w.wanted) == 0 || w.halted != nil || len(live) == 0 {
			continue
		}
		// First ask where the feed was last heard, then everywhere in turn.
		at := 0
		for i, l := range live {
			if l == w.via {
				at = i
			}
		}
		l := live[(at+w.tries)%len(live)]
		for _, n := range w.wanted {
			fetch[l.index][n.String()] = w.tries
		}
	}
	for i, l := range s.links {
		topics, attempt := l.readsBack()
		for _, t := range topics {
			fetch[i][t] = attempt
		}
		l.wantIfNew(s.base, s.baseGen, fetch[i])
	}
}

// An allowance says how many messages may be verified: a token bucket.
type allowance struct {
	burst, second float64
	tokens        float64
	refilled      time.Time
}

// take takes a token if there is one.
func (a *allowance) take(now time.Time) bool {
	if a.refilled.IsZero() {
		a.tokens, a.refilled = a.burst, now
	}
	if d := now.Sub(a.refilled); d > 0 {
		a.tokens = min(a.burst, a.tokens+d.Seconds()*a.second)
		a.refilled = now
	}
	if a.tokens < 1 {
		return false
	}
	a.tokens--
	return true
}

// disputed is what a feed's node disputes now.
type disputed struct {
	feed   ban.Feed
	claims []ban.Claim
}

// onDispute takes a newer list of disputes.
func (f *follower) onDispute(m *wire.Message, d *wire.Dispute, fx *effects) {
	e, n := m.Header.Epoch, m.Header.Number
	switch {
	case e < f.disputeEpoch || e == f.disputeEpoch && n < f.disputeNumber:
		f.replays++
		return
	case e == f.disputeEpoch && n == f.disputeNumber:
		return
	}
	f.disputeEpoch, f.disputeNumber, f.disputeClaims = e, n, d.Claims()
	fx.write(bucketFeeds, f.key("dispute"), m.Raw)
	fx.disputes = append(fx.disputes, disputed{f.feed, f.disputeClaims})
}
