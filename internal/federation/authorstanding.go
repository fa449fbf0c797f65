package federation

import (
	"bytes"
	"fmt"
	"strings"
	"time"

	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// publicity says whether brokers know of the feed.
type publicity uint8

const (
	private   publicity = iota // nothing of it ever left
	published                  // as the operator asked
	withdrawn                  // published once; its last head says that it is empty
)

// foreignAfter is how long after the start of this process a second message that
// we did not write must be dated to be none that we forgot; clocks of the same
// machine hardly differ by more from one start to the next.
const foreignAfter = time.Minute

// A sighting is the meaning of a message that our key signed, for us.
type sighting int

const (
	sightOurs     sighting = iota // we sent it, or could have
	sightRestored                 // we sent it and forgot: the state is older than our messages
	sightCloned                   // somebody else has our key and uses it now
)

// publicize makes the feed public, or withdraws it: a new epoch that says
// nothing takes the place of all that was published, so that readers drop it.
func (a *author) publicize(now time.Time, yes bool) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var f func()
	switch {
	case yes && a.public != published:
		f = func() { a.public = published }
	case !yes && a.public == published:
		f = func() {
			a.public = withdrawn
			a.gather()
			a.set = set{}
			if a.own(wire.KindDispute, 0) != nil {
				a.erase(wire.KindDispute, 0)
			}
			a.newEpoch(now, 0)
		}
	default:
		return nil, nil
	}
	err := a.commit(f)
	return a.taken(), err
}

// standing gives the feed's publicity.
func (a *author) standing() publicity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.public
}

// saw judges a verified message of our own feed. A message that a broker kept for us, or
// is older than this process, we said ourselves before the state was lost or
// restored from a backup; who says something new now has our key.
func (a *author) saw(m *wire.Message, retained bool) sighting {
	a.mu.Lock()
	defer a.mu.Unlock()
	strange := m.Header.Epoch > a.epoch
	if m.Header.Epoch == a.epoch {
		n := m.Header.Number
		switch m.Body.(type) {
		case *wire.Head:
			strange = n > a.headNumber || n == a.headNumber && m.Hash != a.headHash
		case *wire.Delta:
			strange = n > a.n
			if own, err := a.opened(wire.KindDelta, int(n%ring)); err == nil && own.Header.Number == n {
				strange = own.Hash != m.Hash
			}
		}
	}
	switch {
	case !strange:
		return sightOurs
	case a.restarts > 0 && m.Header.Issued.After(a.started.Add(foreignAfter)):
		return sightCloned
	case a.restarts < restartsMost && (retained || m.Header.Issued.Before(a.started)):
		return sightRestored
	}
	return sightCloned
}

// restart begins an epoch above seen, for messages that we forgot.
func (a *author) restart(now time.Time, seen uint64) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.restarts++
	a.restarted = now
	err := a.commit(func() { a.newEpoch(now, seen) })
	return a.taken(), err
}

// stop makes the author silent until the agent starts again. Its changes
// stay durable.
func (a *author) stop(why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = why
}

// retained calls f with every message of the feed, pieces first and the head
// last, so that who hears the head finds the rest.
func (a *author) retained(f func(outgoing)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var head []byte
	err := a.store.View(func(tx store.Tx) error {
		return tx.Each(bucketOwn, a.prefix(), func(k string, v []byte) error {
			rest := k[len(a.prefix()):]
			if rest == "state" || strings.HasPrefix(rest, "pending/") {
				return nil
			}
			h, err := wire.Peek(v)
			if err != nil {
				return err
			}
			slot := 0
			if h.Kind.HasSlot() {
				if _, err := fmt.Sscanf(rest[strings.LastIndexByte(rest, '/')+1:], "%d", &slot); err != nil {
					return err
				}
			}
			if h.Kind == wire.KindHead {
				head = bytes.Clone(v)
				return nil
			}
			f(outgoing{a.name(h.Kind, slot), bytes.Clone(v)})
			return nil
		})
	})
	if err == nil && head != nil {
		f(outgoing{a.name(wire.KindHead, 0), head})
	}
	return err
}

// keeps says whether a message is part of the feed now.
func (a *author) keeps(n wire.Name) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.own(n.Kind, n.Slot) != nil
}

// silence says why the author says nothing; "" when it speaks.
func (a *author) silence() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopped
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

// still gives those of some messages that the feed still has; the others have
// been replaced, which is on its way already.
func (a *author) still(names map[wire.Name]wire.Hash) (out []outgoing, err error) {
	err = a.retained(func(o outgoing) {
		if hash, ok := names[o.name]; ok && hash == wire.HashOf(o.payload) {
			out = append(out, o)
		}
	})
	return out, err
}
