package federation

import (
	"errors"
	"time"

	"banmesh/internal/wire"
)

// An opener verifies delivered messages and keeps each broker to the cost that it may
// cause: one that delivers many bad ones is disconnected, at no cost to those of the
// others deliver. The session's lock is held over every method.
type opener struct {
	verified wire.Verifier
	counts   *Counts
}

// mayDeliver says whether the packet's broker is not beyond its allowance.
func (o *opener) mayDeliver(p packet, now time.Time) bool {
	if p.link == nil || p.link.bad.has(now, 1) {
		return true
	}
	o.counts.refuse(refusedBroker)
	return false
}

// open opens a packet's payload, or counts why not. fresh says that it was not
// verified before.
func (o *opener) open(n wire.Name, p packet, now time.Time) (m *wire.Message, fresh, ok bool) {
	m, fresh, err := o.verified.Open(n, p.payload)
	if err == nil {
		return m, fresh, true
	}
	o.bad(p, err, now)
	return nil, false, false
}

// bad counts a message that cannot be opened, at its broker's cost.
func (o *opener) bad(p packet, err error, now time.Time) {
	o.counts.refuse(reasonOf(err))
	if p.link != nil && !errors.Is(err, wire.ErrSize) {
		p.link.bad.take(now, 1)
		if !p.link.bad.has(now, 1) {
			p.link.misbehaves()
		}
	}
}
