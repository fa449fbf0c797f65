package federation

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A theft is that somebody else writes with this node's key.
type theft struct {
	since time.Time // no message of the key is to be believed from here on
	above uint64    // the newest epoch that was seen
	done  bool      // answered; only a person can do more
}

// theftReach bounds how far before its discovery a theft may reach: messages
// can be dated back, and the node's own claims are said again in any case.
const theftReach = time.Hour

// keyRekeyed notes, in bucketOwn, when this machine last made a new key by
// itself (u64, Unix seconds), and the node that it became. It does so once: a
// second thief has access to the machine, which no key cures.
const keyRekeyed = "rekeyed"

// A Rekeying is that this machine made a new key by itself, because somebody else
// wrote with the one before.
type Rekeying struct {
	Node ban.Node // that it became
	At   time.Time
}

// Rekeyed gives the last rekeying of this machine, nil for none.
func (s *Session) Rekeyed() (*Rekeying, error) { return s.publisher.rekeyed() }

// errRekeyed says that the connection was made with the key before.
var errRekeyed = fmt.Errorf("the node has a new key")

// onTheft notes that a message of ours was written by somebody else. The answer
// follows with the next tick.
func (p *publisher) onTheft(a *author, m *wire.Message, now time.Time) {
	if p.theft == nil {
		p.theft = &theft{since: now}
		p.log.Error("node_key_cloned", "topic", a.feed.Topic, "epoch", m.Header.Epoch, "number", m.Header.Number,
			"hint", "another machine writes with this node's key: find it, and give each machine a key of its own (agent key node rotate)")
	}
	if t := p.theft; !t.done {
		t.above = max(t.above, m.Header.Epoch)
		if m.Header.Issued.Before(t.since) {
			t.since = m.Header.Issued
		}
		if least := now.Add(-theftReach); t.since.Before(least) {
			t.since = least
		}
		return
	}
	a.stop(stoppedCloned)
}

// stoppedCloned is why an author is silent whose key somebody else has.
const stoppedCloned = "another machine writes with this node's key"

// answerTheft makes a new key where the operator's root key is at hand and this
// machine has not done so by itself before. Otherwise it tells every reader that
// the key is stolen, and falls silent.
func (p *publisher) answerTheft(now time.Time) error {
	card, _ := p.identity.Card()
	p.mu.Lock()
	if card != nil && p.theft == nil && p.strange && p.identity.HasRoot() {
		// A copy of this machine noticed first, and revoked the key of both.
		if since, revoked := card.RevokedSince(p.identity.Node()); revoked {
			p.theft = &theft{since: since}
		}
	}
	t := p.theft
	p.mu.Unlock()
	if t == nil || t.done {
		return nil
	}
	before, err := p.rekeyed()
	if err != nil {
		return err
	}
	if p.identity.HasRoot() && (before == nil || before.Node != p.identity.Node()) {
		err = p.rekey(now, t.since)
	} else {
		err = p.publishTheft(now, t.above)
	}
	if err == nil {
		p.mu.Lock()
		t.done = true
		p.mu.Unlock()
	}
	return err
}

// rekeyed gives the last rekeying of this machine, nil for none.
func (p *publisher) rekeyed() (last *Rekeying, err error) {
	err = p.store.View(func(tx store.Tx) error {
		b := tx.Get(bucketOwn, keyRekeyed)
		if b == nil {
			return nil
		}
		d := wire.Decoder{B: b}
		at := time.Unix(int64(d.U64()), 0)
		node, err := ban.ParseNode(string(d.Take(len(d.B))))
		if err != nil {
			return fmt.Errorf("the note of the last new key: %w", err)
		}
		last = &Rekeying{Node: node, At: at}
		return nil
	})
	return last, err
}

// rekey makes this machine a new node of its operator, revokes the one that it
// was, and says all of its claims again.
func (p *publisher) rekey(now, since time.Time) error {
	old := p.identity.Node()
	if err := p.identity.Rekey(now, since); err != nil {
		return fmt.Errorf("making a new node key: %w", err)
	}
	node := p.identity.Node()
	note := append(binary.BigEndian.AppendUint64(nil, uint64(now.Unix())), node.String()...)
	err := p.store.Update(func(tx store.Tx) error { return tx.Put(bucketOwn, keyRekeyed, note) })
	if err != nil {
		return fmt.Errorf("noting the new node key: %w", err)
	}
	for _, a := range p.all() {
		if err := p.move(a, now); err != nil {
			return err
		}
	}
	p.log.Warn("node_key_replaced", "old", old, "new", node, "hint", "the old key is revoked; this machine does so once by itself")
	for _, l := range p.links {
		l.reconnect(errRekeyed)
	}
	p.mu.Lock()
	p.theft, p.strange = nil, false
	p.mu.Unlock()
	return nil
}

// move gives a feed to the node that this machine is now.
func (p *publisher) move(a *author, now time.Time) error {
	a.speaking.Lock()
	defer a.speaking.Unlock()
	return a.rekey(p.identity.Signer(), now)
}

// publishTheft tells readers to believe nothing more of this node.
func (p *publisher) publishTheft(now time.Time, above uint64) error {
	for _, a := range p.all() {
		if err := p.markStolen(a, now, above); err != nil {
			return err
		}
	}
	return nil
}

func (p *publisher) markStolen(a *author, now time.Time, above uint64) error {
	a.speaking.Lock()
	defer a.speaking.Unlock()
	out, err := a.markStolen(now, above)
	if err != nil {
		return err
	}
	p.spread(a, out)
	a.stop(stoppedCloned)
	return nil
}

// all gives the authors as they are now.
func (p *publisher) all() (out []*author) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.authors {
		out = append(out, a)
	}
	return out
}

// markStolen writes the head that says that the key is stolen.
func (a *author) markStolen(now time.Time, above uint64) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.commit(func() {
		a.epoch = nextEpoch(now, max(a.epoch, above))
		a.headNumber = 0
		a.sendHeadOf(now, &wire.Head{Stolen: true})
		a.tellHead(now, a.writes[a.storeKey(wire.KindHead, 0)])
	})
	return a.taken(), err
}

// rekey makes the feed that of another key, with the claims and disputes that
// it has. Its messages are published when the brokers have shown which they
// lack.
func (a *author) rekey(key ed25519.PrivateKey, now time.Time) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var disputes []wire.Entry
	if m, err := wire.Open(a.name(wire.KindDispute, 0), a.own(wire.KindDispute, 0)); err == nil {
		disputes = m.Body.(*wire.Dispute).Up
	}
	var stored []string
	err := a.store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, a.prefix(), func(k string, _ []byte) error {
			stored = append(stored, k)
			return nil
		})
	})
	if err != nil {
		return fmt.Errorf("reading the feed of %s: %w", a.feed.Topic, err)
	}
	oldKey, oldNode := a.key, a.feed.Node
	err = a.commit(func() {
		for _, k := range stored {
			a.writes[k] = nil
		}
		a.key, a.feed.Node = key, ban.NodeOf(key[32:])
		up, down := a.gather()
		a.set.apply(wire.Minutes(now), up, down, wire.Minutes(now))
		a.pieces, a.slots, a.unsealed = wire.Pieces{}, [2]slots{}, nil
		a.dirty, a.stale, a.weight = nil, nil, nil
		a.newEpoch(now, 0)
		if disputes != nil {
			a.send(0, 1, now, &wire.Dispute{Up: disputes})
		}
	})
	if err != nil {
		a.key, a.feed.Node = oldKey, oldNode
	}
	a.taken()
	return err
}
