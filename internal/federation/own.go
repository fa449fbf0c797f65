package federation

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A fence stands between one of our feeds and a broker until we know what the
// broker holds of it.
type fence struct {
	link  int
	topic ban.Topic
}

// sightings is what a broker holds of one of our feeds, on one connection.
type sightings struct {
	generation int
	until      time.Time // zero until the subscriptions stand
	done       bool
	head       *wire.Message
	manifest   *wire.Message
	deltas     map[uint64]wire.Hash
}

// sighting gives the record for the link's present connection.
func (s *Session) sighting(l *link, t ban.Topic) *sightings {
	g := l.connection()
	v := s.fences[fence{l.index, t}]
	if v == nil || v.generation != g {
		v = &sightings{generation: g, deltas: map[uint64]wire.Hash{}}
		s.fences[fence{l.index, t}] = v
	}
	return v
}

// onOwn takes a message of one of our own feeds. s.mu is held.
func (s *Session) onOwn(n wire.Name, p packet) {
	a := s.authors[n.Topic]
	if a == nil {
		return
	}
	if len(p.payload) == 0 {
		s.erased(a, n, p)
		return
	}
	m, err := s.verified.Open(n, p.payload)
	if err != nil {
		s.refuse(reasonOf(err))
		return
	}
	if m.Header.Ahead(s.fx.now) {
		// Nobody takes it, so it is nothing to begin an epoch above.
		s.refuse(refusedFuture)
		return
	}
	if p.link != nil {
		v := s.sighting(p.link, n.Topic)
		switch m.Body.(type) {
		case *wire.Head:
			if v.head == nil || v.head.Header.Epoch < m.Header.Epoch || v.head.Header.Epoch == m.Header.Epoch && v.head.Header.Number < m.Header.Number {
				v.head = m
			}
		case *wire.Manifest:
			v.manifest = m
		case *wire.Delta:
			v.deltas[m.Header.Number] = m.Hash
		}
	}
	switch a.saw(m, p.retained) {
	case sightRestored:
		s.restarts[n.Topic] = max(s.restarts[n.Topic], m.Header.Epoch)
	case sightCloned:
		if a.silence() == "" {
			a.stop("another machine writes with this node's key")
			s.o.Log.Error("node_key_cloned", "topic", n.Topic, "epoch", m.Header.Epoch, "number", m.Header.Number,
				"hint", "stop the other machine and restart the agent, or make a new node key")
		}
	}
}

// eraseRepair is how long after somebody erased a message of ours everything
// is published again. It bounds what a vandal can make us send.
const eraseRepair = 5 * time.Second

// erased notices that somebody else erased a message of ours at a broker.
func (s *Session) erased(a *author, n wire.Name, p packet) {
	if p.link == nil || p.retained || !a.keeps(n) {
		return
	}
	v := s.sighting(p.link, n.Topic)
	v.head, v.manifest = nil, nil
	clear(v.deltas)
	if v.done {
		s.o.Log.Warn("feed_erased_by_others", "topic", n.Topic, "broker", p.link.address())
		v.done, v.until = false, s.fx.now.Add(eraseRepair)
	}
}

// keeps says whether a message is part of the feed now.
func (a *author) keeps(n wire.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.own(n.Kind, n.Slot) != nil
}

// connected starts the fences of a link whose subscriptions stand.
func (s *Session) connected(l *link) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fenceAll(l, s.o.Now(), fenceWait)
}

// fenceAll sets a time for the fences that have none. s.mu is held.
func (s *Session) fenceAll(l *link, now time.Time, wait time.Duration) {
	if !l.alive() {
		return
	}
	for t := range s.authors {
		if v := s.sighting(l, t); v.until.IsZero() {
			v.until = now.Add(wait)
		}
	}
}

// spread hands messages to every broker whose fence is down. a.speaking is held.
func (s *Session) spread(a *author, out []outgoing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(out) == 0 || a.standing() == private || a.silence() != "" {
		return
	}
	for _, l := range s.links {
		if l.alive() && s.sighting(l, a.feed.Topic).done {
			l.publish(out)
			s.counts.Published += uint64(len(out))
		}
	}
}

// tick does what is due by the clock.
func (s *Session) tick() error {
	s.mu.Lock()
	now := s.look()
	missing := false
	for _, w := range s.followers {
		if w.halted == nil && w.retry(now) {
			w.progress(&s.fx)
		}
		missing = missing || w.halted == nil && len(w.wanted) > 0 && (w.tries > 2 || w.tries > 0 && w.head == nil)
	}
	for _, f := range s.following {
		missing = missing || s.cards[f.Operator] == nil
	}
	for _, l := range s.links {
		l.move(missing, now)
	}
	check := !now.Before(s.nextCheck)
	s.dirty = s.dirty || check
	check, s.refresh = check || s.refresh, false
	audit := !now.Before(s.nextAudit)
	if audit {
		s.nextAudit = now.Add(auditEvery)
	}
	type job struct {
		a     *author
		links []*link
		wish  bool
		again uint64
		lost  map[*link]map[wire.Name]wire.Hash
	}
	lost := map[*link]map[wire.Name]wire.Hash{}
	for _, l := range s.links {
		if x := l.readBack(now); len(x) > 0 {
			lost[l] = x
			s.o.Log.Warn("broker_lost_messages", "broker", l.address(), "messages", len(x), "hint", "it acknowledged them and does not keep them; they are published again")
		}
	}
	var jobs []job
	for t, a := range s.authors {
		j := job{a: a, wish: s.topics[t], again: s.restarts[t], lost: lost}
		delete(s.restarts, t)
		for _, l := range s.links {
			v := s.sighting(l, t)
			if l.alive() && (audit && v.done || !v.done && !v.until.IsZero() && !now.Before(v.until)) {
				v.done = true
				j.links = append(j.links, l)
			}
		}
		jobs = append(jobs, j)
	}
	links := s.links
	s.mu.Unlock()
	// The card first: a broker that admits only certified nodes refuses a feed
	// whose card it has not seen.
	s.publishDocuments(links, audit)
	for _, j := range jobs {
		if err := s.serve(j.a, now, j.wish, j.again, j.links, audit, j.lost); err != nil {
			return err
		}
	}
	if check {
		if err := s.o.Identity.Refresh(); err != nil {
			s.o.Log.Error("card_not_read", "error", err)
		}
		if err := s.takeOwnDocuments(); err != nil {
			s.o.Log.Error("documents_not_read", "error", err)
		}
	}
	if renewed, err := s.o.Identity.Renew(now); err != nil {
		return err
	} else if renewed {
		s.o.Log.Info("certificate_renewed", "until", s.o.Identity.Expires())
	}
	return nil
}

// clockStep is from where on a clock that goes back is a step: claims that had
// ended by the clock before are in force again, so all is handed on again.
const clockStep = time.Minute

// look reads the clock for what follows. s.mu is held.
func (s *Session) look() time.Time {
	now := s.o.Now()
	s.fx.now = now
	if now.Before(s.lastLook.Add(-clockStep)) {
		s.o.Log.Warn("clock_stepped_back", "by", s.lastLook.Sub(now))
		for _, w := range s.followers {
			w.emitAll(&s.fx)
		}
	}
	s.lastLook = now
	return now
}

// serve lets one author say what is due, and tells brokers that have just come
// what they lack, and others what they have lost.
func (s *Session) serve(a *author, now time.Time, wish bool, again uint64, links []*link, all bool, lost map[*link]map[wire.Name]wire.Hash) error {
	a.speaking.Lock()
	defer a.speaking.Unlock()
	if again > 0 {
		s.o.Log.Warn("feed_restarted", "topic", a.feed.Topic, "after_epoch", again, "why", "a broker holds messages of ours that this state does not know")
		out, err := a.restart(now, again)
		if err != nil {
			return err
		}
		s.spread(a, out)
	}
	out, err := a.publicize(now, wish)
	if err != nil {
		return err
	}
	s.spread(a, out)
	if out, err = a.tick(now, wish); err != nil {
		return err
	}
	s.spread(a, out)
	if a.silence() != "" || a.standing() == private {
		return nil
	}
	tell := func(l *link, out []outgoing, err error) error {
		if err != nil {
			return fmt.Errorf("reading the feed of %s: %w", a.feed.Topic, err)
		}
		l.publish(out)
		s.mu.Lock()
		s.counts.Published += uint64(len(out))
		s.mu.Unlock()
		return nil
	}
	for _, l := range links {
		out, err := s.lacks(a, l, all)
		if err := tell(l, out, err); err != nil {
			return err
		}
	}
	for l, names := range lost {
		if slices.Contains(links, l) {
			continue
		}
		var out []outgoing
		err := a.retained(func(o outgoing) {
			// What has been replaced since is on its way already.
			if hash, ok := names[o.name]; ok && hash == wire.HashOf(o.payload) {
				out = append(out, o)
			}
		})
		if err := tell(l, out, err); err != nil {
			return err
		}
	}
	return nil
}

// lacks gives what a broker does not hold of a feed, going by the head that it
// does hold.
func (s *Session) lacks(a *author, l *link, all bool) (out []outgoing, err error) {
	s.mu.Lock()
	v := s.sighting(l, a.feed.Topic)
	has := map[wire.Name]wire.Hash{}
	if v.head != nil && !all {
		h := v.head.Body.(*wire.Head)
		has[v.head.Name] = v.head.Hash
		p := h.Pieces
		if p == nil && v.manifest != nil && v.manifest.Hash == h.Manifest {
			p = &v.manifest.Body.(*wire.Manifest).Pieces
			has[v.manifest.Name] = v.manifest.Hash
		}
		if p != nil {
			for _, c := range p.Chunks {
				has[a.name(wire.KindChunk, c.Slot)] = c.Hash
			}
			for _, c := range p.Segments {
				has[a.name(wire.KindSegment, c.Slot)] = c.Hash
			}
		}
		for n, hash := range v.deltas {
			has[a.name(wire.KindDelta, int(n%ring))] = hash
		}
	}
	s.mu.Unlock()
	err = a.retained(func(o outgoing) {
		_, body, err := wire.InspectBody(o.name, o.payload)
		if hash, ok := has[o.name]; ok && err == nil && hash == wire.HashOf(body) {
			return
		}
		out = append(out, o)
	})
	return out, err
}

// publishDocuments publishes our card and documents to brokers that lack the
// newest ones.
func (s *Session) publishDocuments(links []*link, all bool) {
	card, raw := s.o.Identity.Card()
	if card == nil {
		return
	}
	var out []outgoing
	s.mu.Lock()
	if c := s.cards[s.own]; c == nil || c.card.Serial < card.Serial {
		s.cards[s.own] = &cardState{card, raw}
		s.dirty = true
	}
	anything := false
	for _, a := range s.authors {
		anything = anything || a.standing() != private
	}
	for n, m := range s.library.held {
		if n.Operator == s.own {
			out = append(out, outgoing{n, m.Raw})
		}
	}
	s.mu.Unlock()
	if !anything && len(out) == 0 {
		return
	}
	out = slices.Insert(out, 0, outgoing{wire.Name{Network: s.o.Network, Kind: wire.KindCard, Operator: s.own}, raw})
	for _, l := range links {
		for _, x := range out {
			if l.lacks(x.name, x.payload, all, s.o.Now()) {
				l.publish([]outgoing{x})
			}
		}
	}
}

// silence says why the author says nothing; "" when it speaks.
func (a *author) silence() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
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
	return s.speak(topic, func(a *author) ([]outgoing, error) { return a.dispute(now, es) })
}

func (a *author) dispute(now time.Time, es []wire.Entry) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	number := uint64(1)
	if m, err := wire.Open(a.name(wire.KindDispute, 0), a.own(wire.KindDispute, 0)); err == nil {
		if wire.HashOf((&wire.Dispute{Up: es}).Append(nil)) == m.Hash {
			return nil, nil
		}
		number = m.Header.Number + 1
	}
	err := a.commit(func() { a.send(0, number, now, &wire.Dispute{Up: es}) })
	return a.taken(), err
}

// FeedStatus says how a feed stands.
type FeedStatus struct {
	Feed        ban.Feed  `json:"-"`
	Topic       ban.Topic `json:"topic"`
	Operator    string    `json:"operator"`
	Node        string    `json:"node"`
	Name        string    `json:"name,omitempty"` // what the operator is known by
	Own         bool      `json:"own"`
	Status      string    `json:"status"` // one of the Status words
	Epoch       uint64    `json:"epoch"`
	Batch       uint64    `json:"batch"`  // the newest one applied, or written
	Newest      uint64    `json:"newest"` // the newest one that is known of
	Claims      int       `json:"claims"`
	Bytes       int       `json:"bytes"`           // of the pieces and the log
	Issued      time.Time `json:"issued,omitzero"` // of the newest head
	FreshUntil  time.Time `json:"fresh_until,omitzero"`
	Missing     int       `json:"missing"` // pieces that are asked for
	Replays     int       `json:"replays"`
	Mismatches  int       `json:"mismatches"` // states that were not the author's
	Disputes    int       `json:"disputes"`
	Restarted   time.Time `json:"restarted,omitzero"` // own: when this process had to begin the feed again
	Fingerprint string    `json:"fingerprint"`
}

// Feeds gives the standing of the node's own feeds and of all that are
// followed, in no order.
func (s *Session) Feeds() []FeedStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.o.Now()
	var out []FeedStatus
	for t, a := range s.authors {
		out = append(out, a.statusNow(s.topics[t]))
	}
	for feed, w := range s.followers {
		v := FeedStatus{
			Feed: feed, Status: w.status(now), Epoch: w.epoch, Batch: w.n, Newest: w.n, Claims: w.set.count, Bytes: w.baseBytes + w.logBytes,
			Missing: len(w.wanted), Replays: w.replays, Mismatches: w.badState, Disputes: len(w.disputeClaims), Fingerprint: fmt.Sprintf("%x", w.set.fingerprint()),
		}
		if w.head != nil {
			v.Issued, v.FreshUntil = w.headIssued, w.headIssued.Add(w.head.TTL)
			v.Newest = max(w.head.N, w.n, w.pending.last)
		}
		if c := s.cards[feed.Operator]; c != nil {
			v.Name = c.card.Name
		}
		if s.o.Trusted != nil {
			if name, ok := s.o.Trusted(feed.Operator); ok {
				v.Name = name
			}
		}
		out = append(out, v)
	}
	for i := range out {
		f := out[i].Feed
		out[i].Topic, out[i].Operator, out[i].Node = f.Topic, f.Operator.String(), f.Node.String()
	}
	return out
}

func (a *author) statusNow(published bool) FeedStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	v := FeedStatus{
		Feed: a.feed, Own: true, Status: StatusWriting, Epoch: a.epoch, Batch: a.n, Newest: a.n, Claims: a.set.count, Issued: a.headIssued,
		FreshUntil: a.headIssued.Add(headTTL), Fingerprint: fmt.Sprintf("%x", a.set.fingerprint()), Bytes: a.base(), Missing: len(a.pending), Restarted: a.restarted,
	}
	switch {
	case a.stopped != "":
		v.Status = StatusCloned
	case !published:
		v.Status = StatusPrivate
	}
	return v
}

// Brokers gives the standing of all connections, in the order of the options.
func (s *Session) Brokers() []BrokerStatus {
	out := make([]BrokerStatus, 0, len(s.links))
	for _, l := range s.links {
		if l.broker.ready() {
			out = append(out, l.status())
		}
	}
	return out
}

// Counts gives the totals so far.
func (s *Session) Counts() Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.counts
	c.Refused = make(map[string]uint64, len(s.counts.Refused))
	for k, v := range s.counts.Refused {
		c.Refused[k] = v
	}
	return c
}

// Card gives the newest card of an operator that is known, and its payload.
func (s *Session) Card(o ban.Operator) (*wire.Card, []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.cards[o]; c != nil {
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
	old := s.cards[card.Operator]
	s.mu.Unlock()
	if old != nil && old.card.Serial >= card.Serial {
		return nil
	}
	if err := s.keepCard(card, raw); err != nil {
		return err
	}
	s.mu.Lock()
	s.cards[card.Operator] = &cardState{card, raw}
	s.mu.Unlock()
	s.changed()
	return nil
}
