package federation

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A publisher writes the node's own feeds and sees to it that every broker has
// them. Methods whose names begin with "on", and those that say so, need the
// session's lock; the others take it.
type publisher struct {
	network  string
	own      ban.Operator
	identity *keys.Identity
	store    *store.Store
	log      *slog.Logger
	opener   *opener
	links    []*link
	now      func() time.Time

	mu       *sync.Mutex // the session's
	topics   map[ban.Topic]bool
	authors  map[ban.Topic]*author
	holdings map[holding]*sightings
	restarts map[ban.Topic]uint64 // epochs of ours that we forgot
	strange  bool                 // messages of our key came that this process did not write
	theft    *theft               // somebody else uses this node's key
}

// say changes the node's own feed of a topic through f, and publishes.
func (p *publisher) say(topic ban.Topic, f func(*author) ([]outgoing, error)) error {
	p.mu.Lock()
	a, err := p.author(topic)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	// The author's lock is held over the store and over handing the messages
	// to the links, so that they leave in the order of their numbers.
	a.speaking.Lock()
	defer a.speaking.Unlock()
	out, err := f(a)
	if err != nil {
		return err
	}
	p.spread(a, out)
	return nil
}

// author opens the node's own feed of a topic. The session's lock is held.
func (p *publisher) author(topic ban.Topic) (*author, error) {
	if a := p.authors[topic]; a != nil {
		return a, nil
	}
	if _, err := ban.ParseTopic(string(topic)); err != nil || topic == wire.OperatorsLevel {
		return nil, fmt.Errorf("no feed can be about %q: %w", topic, ban.ErrTopic)
	}
	card := func() *wire.Card {
		c, _ := p.identity.Card()
		return c
	}
	a, err := openAuthor(p.network, topic, p.own, p.identity.Signer(), card, p.store, p.now())
	if err != nil {
		return nil, err
	}
	p.authors[topic] = a
	return a, nil
}

// openAll opens all feeds that are or were published. The session's lock is
// held.
func (p *publisher) openAll() {
	for _, t := range p.written() {
		if _, err := p.author(t); err != nil {
			p.log.Error("feed_not_opened", "topic", t, "error", err)
		}
	}
}

// written gives the topics of own feeds: those to publish, and those of which
// the store has something, because they may have to be withdrawn.
func (p *publisher) written() []ban.Topic {
	out := maps.Clone(p.topics)
	prefix := p.network + "/"
	err := p.store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, prefix, func(k string, _ []byte) error {
			if t, ok := strings.CutSuffix(k[len(prefix):], "/state"); ok {
				out[ban.Topic(t)] = true
			}
			return nil
		})
	})
	if err != nil {
		p.log.Error("own_feeds_not_listed", "error", err)
	}
	return slices.Collect(maps.Keys(out))
}

// listen adds the MQTT filters of the own feeds.
func (p *publisher) listen(base listening) {
	for _, a := range p.authors {
		if p.topics[a.feed.Topic] || a.standing() != private {
			head := a.name(wire.KindHead, 0).String()
			base.always(head, 1)
			base.always(strings.TrimSuffix(head, "head")+"delta/+", ring)
			base.always(a.name(wire.KindManifest, 0).String(), 1)
		}
	}
}

// spread hands messages to every broker that is known to lack them alone.
// a.speaking is held.
func (p *publisher) spread(a *author, out []outgoing) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(out) == 0 || a.standing() == private || a.silence() != "" {
		return
	}
	for _, l := range p.links {
		if l.alive() && p.sighting(l, a.feed.Topic).done {
			l.publish(out)
			p.opener.counts.Published += uint64(len(out))
		}
	}
}

// A job is one author's turn.
type job struct {
	a     *author
	links []*link // that have just told their contents
	wish  bool    // whether the operator wants the feed published
	again uint64  // an epoch to begin above
}

// onJobs gives each author's turn.
func (p *publisher) onJobs(now time.Time, audit bool) (jobs []job) {
	for t, a := range p.authors {
		j := job{a: a, wish: p.topics[t], again: p.restarts[t]}
		delete(p.restarts, t)
		for _, l := range p.links {
			v := p.sighting(l, t)
			if l.alive() && (audit && v.done || !v.done && !v.until.IsZero() && !now.Before(v.until)) {
				v.done = true
				j.links = append(j.links, l)
			}
		}
		jobs = append(jobs, j)
	}
	return jobs
}

// lost is the messages that a broker acknowledged and does not keep.
type lost map[*link]map[wire.Name]wire.Hash

// onReadBack gives the messages that brokers lost.
func (p *publisher) onReadBack(now time.Time) lost {
	out := lost{}
	for _, l := range p.links {
		if x := l.readBack(now); len(x) > 0 {
			out[l] = x
			p.log.Warn("broker_lost_messages", "broker", l.address(), "messages", len(x), "hint", "it acknowledged them and does not keep them; they are published again")
		}
	}
	return out
}

// serve lets one author say the messages that are due, and publishes to brokers
// that have just come all that they lack, and to others all that they lost.
func (p *publisher) serve(j job, now time.Time, all bool, gone lost) error {
	a := j.a
	a.speaking.Lock()
	defer a.speaking.Unlock()
	if j.again > 0 {
		p.log.Warn("feed_restarted", "topic", a.feed.Topic, "after_epoch", j.again, "why", "a broker holds messages of ours that this state does not know")
		out, err := a.restart(now, j.again)
		if err != nil {
			return err
		}
		p.spread(a, out)
	}
	for _, due := range []func() ([]outgoing, error){
		func() ([]outgoing, error) { return a.publicize(now, j.wish) },
		func() ([]outgoing, error) { return a.tick(now, j.wish) },
	} {
		out, err := due()
		if err != nil {
			return err
		}
		p.spread(a, out)
	}
	if a.silence() != "" || a.standing() == private {
		return nil
	}
	for _, l := range j.links {
		if err := p.supply(a, l, func() ([]outgoing, error) { return p.lacks(a, l, all) }); err != nil {
			return err
		}
	}
	for l, names := range gone {
		if slices.Contains(j.links, l) {
			continue
		}
		if err := p.supply(a, l, func() ([]outgoing, error) { return a.still(names) }); err != nil {
			return err
		}
	}
	return nil
}

// supply publishes messages to one broker.
func (p *publisher) supply(a *author, l *link, messages func() ([]outgoing, error)) error {
	out, err := messages()
	if err != nil {
		return fmt.Errorf("reading the feed of %s: %w", a.feed.Topic, err)
	}
	for _, o := range out {
		// Readers at this broker may have missed all that came before.
		if (o.name.Kind == wire.KindHead || o.name.Kind == wire.KindDispute) && o.payload != nil {
			out = append(out, liveCopy(o))
		}
	}
	l.publish(out)
	p.mu.Lock()
	p.opener.counts.Published += uint64(len(out))
	p.mu.Unlock()
	return nil
}

// withLive adds a live copy to a message that has one.
func withLive(o outgoing) []outgoing {
	if !o.name.Kind.HasLive() {
		return []outgoing{o}
	}
	return []outgoing{o, liveCopy(o)}
}

// liveCopy is the message for those who listen.
func liveCopy(o outgoing) outgoing {
	payload := o.payload
	if o.name.Kind == wire.KindHead {
		payload = wire.BareHead(payload)
	}
	return outgoing{o.name.Live(), payload}
}

// announce publishes our card and documents to brokers that lack the newest
// ones.
func (p *publisher) announce(documents []outgoing, all bool, now time.Time) {
	card, raw := p.identity.Card()
	if card == nil {
		return
	}
	p.mu.Lock()
	anything := len(documents) > 0
	for _, a := range p.authors {
		anything = anything || a.standing() != private
	}
	p.mu.Unlock()
	if !anything {
		return
	}
	out := slices.Insert(slices.Clone(documents), 0, outgoing{cardName(p.network, p.own), raw})
	for _, l := range p.links {
		for _, x := range out {
			if l.lacks(x.name, x.payload, all, now) {
				l.publish(withLive(x))
			}
		}
	}
}
