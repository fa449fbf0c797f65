package broker

import (
	"time"

	"banmesh/internal/wire"
)

// tellEvery is how often a client hears of refusals for one reason at most.
const tellEvery = 10 * time.Second

// A told is the refusals for one reason on a connection.
type told struct {
	count int
	last  time.Time
}

// tell says to a client why its publication was refused, where it listens for
// that. Only the client's reading goroutine calls it.
func (b *Broker) tell(c *conn, why refusal, topic string, now time.Time) {
	if c.session == nil {
		return
	}
	if c.told == nil {
		c.told = map[refusal]*told{}
	}
	t := c.told[why]
	if t == nil {
		t = &told{}
		c.told[why] = t
	}
	t.count++
	c.session.subsMu.Lock()
	_, listens := c.session.subs[wire.RefusalTopic]
	c.session.subsMu.Unlock()
	if since := now.Sub(t.last); !listens || !t.last.IsZero() && since >= 0 && since < tellEvery {
		return
	}
	t.last = now
	b.notice(c, wire.Refusal{Reason: string(why), Topic: topic, Count: t.count})
}

// notice sends a notice to a client that listens for them.
func (b *Broker) notice(c *conn, r wire.Refusal) {
	notice, err := wire.AppendRefusal(nil, r)
	if err != nil || len(notice) > wire.MaxRefusal {
		return
	}
	f := encode(wire.RefusalTopic, notice, 0, false)
	if d := c.session.deliver(&f, 0); d.flush != nil {
		b.flush.add(d.flush)
	}
}
