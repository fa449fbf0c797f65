package federation

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// How a publisher finds out which messages brokers hold.
const (
	// fenceWait is how long after subscribing to its own feeds an author
	// listens before it publishes to a broker: an author that was restored from
	// a backup must not contradict itself.
	fenceWait = time.Second
	// eraseRepair is how long after somebody erased a message of ours everything
	// is published again. It bounds the messages that a vandal can make us send.
	eraseRepair = 5 * time.Second
)

// A holding is one of our feeds at one broker.
type holding struct {
	link  int
	topic ban.Topic
}

// sightings are the messages that a broker holds of one of our feeds, as far as
// it has shown them on one connection.
type sightings struct {
	generation int
	until      time.Time // zero until the subscriptions stand
	done       bool      // the time is over, and the broker is published to
	head       *wire.Message
	manifest   *wire.Message
	deltas     map[uint64]wire.Hash
}

// sighting gives the record for the link's present connection. The session's
// lock is held.
func (p *publisher) sighting(l *link, t ban.Topic) *sightings {
	g := l.connection()
	at := holding{l.index, t}
	v := p.holdings[at]
	if v == nil || v.generation != g {
		v = &sightings{generation: g, deltas: map[uint64]wire.Hash{}}
		p.holdings[at] = v
	}
	return v
}

// onConnected begins to listen to a link whose subscriptions stand, or where a
// feed is new; wait is how long.
func (p *publisher) onConnected(l *link, now time.Time, wait time.Duration) {
	if !l.alive() {
		return
	}
	for t := range p.authors {
		if v := p.sighting(l, t); v.until.IsZero() {
			v.until = now.Add(wait)
		}
	}
}

// onOwn takes a message of one of our own feeds.
func (p *publisher) onOwn(n wire.Name, x packet, now time.Time) {
	a := p.authors[n.Topic]
	if a == nil || a.feed.Node != n.Node {
		return
	}
	if len(x.payload) == 0 {
		p.onErased(a, n, x, now)
		return
	}
	m, _, ok := p.opener.open(n, x, now)
	if !ok {
		return
	}
	if m.Header.Ahead(now) {
		// Nobody takes it, so it is nothing to begin an epoch above.
		p.opener.counts.refuse(refusedFuture)
		return
	}
	if x.link != nil {
		p.sighting(x.link, n.Topic).note(m)
	}
	switch a.saw(m, x.retained) {
	case sightRestored:
		p.strange = true
		p.restarts[n.Topic] = max(p.restarts[n.Topic], m.Header.Epoch)
	case sightCloned:
		p.onTheft(a, m, now)
	}
}

// note keeps the newest of each that the broker shows.
func (v *sightings) note(m *wire.Message) {
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

// onErased notices that somebody else erased a message of ours at a broker.
func (p *publisher) onErased(a *author, n wire.Name, x packet, now time.Time) {
	if x.link == nil || x.retained || !a.keeps(n) {
		return
	}
	v := p.sighting(x.link, n.Topic)
	v.head, v.manifest = nil, nil
	clear(v.deltas)
	if v.done {
		p.log.Warn("feed_erased_by_others", "topic", n.Topic, "broker", x.link.address())
		v.done, v.until = false, now.Add(eraseRepair)
	}
}

// lacks gives the messages of a feed that a broker does not hold, going by the
// head that it does hold.
func (p *publisher) lacks(a *author, l *link, all bool) (out []outgoing, err error) {
	p.mu.Lock()
	v := p.sighting(l, a.feed.Topic)
	has := map[wire.Name]wire.Hash{}
	if v.head != nil && !all {
		has = v.held(a)
	}
	p.mu.Unlock()
	err = a.retained(func(o outgoing) {
		_, body, err := wire.InspectBody(o.name, o.payload)
		if hash, ok := has[o.name]; ok && err == nil && hash == wire.HashOf(body) {
			return
		}
		out = append(out, o)
	})
	return out, err
}

// held gives the messages that the head at the broker names, and the others
// that were seen there.
func (v *sightings) held(a *author) map[wire.Name]wire.Hash {
	h := v.head.Body.(*wire.Head)
	has := map[wire.Name]wire.Hash{v.head.Name: v.head.Hash}
	pieces := h.Pieces
	if pieces == nil && v.manifest != nil && v.manifest.Hash == h.Manifest {
		pieces = &v.manifest.Body.(*wire.Manifest).Pieces
		has[v.manifest.Name] = v.manifest.Hash
	}
	if pieces != nil {
		for _, c := range pieces.Chunks {
			has[a.name(wire.KindChunk, c.Slot)] = c.Hash
		}
		for _, c := range pieces.Segments {
			has[a.name(wire.KindSegment, c.Slot)] = c.Hash
		}
	}
	for n, hash := range v.deltas {
		has[a.name(wire.KindDelta, int(n%ring))] = hash
	}
	return has
}
