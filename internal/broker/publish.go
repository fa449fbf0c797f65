package broker

import (
	"bytes"
	"strings"
	"time"

	"banmesh/internal/broker/retained"
)

// maxDelay is how long a client that publishes too fast is held up at once;
// a publication that would wait longer is refused.
const maxDelay = 10 * time.Second

// publish takes a publication of a client: admit, retain, hand out. With QoS 1
// it also acknowledges, at once or when the message is durable, whatever became
// of it: a refusal that is not acknowledged would come back for ever.
func (b *Broker) publish(c *conn, topic string, payload []byte, id uint16, qos byte, retain bool) {
	b.count.published.Inc()
	began := b.now()
	sequence, why := b.take(c, topic, payload, qos, retain)
	if why != admitted {
		b.count.refused.WithLabelValues(string(why)).Inc()
		b.log.Debug("publication refused", "client", c.who.String(), "reason", string(why), "topic", topic)
		b.tell(c, why, topic, b.now())
	}
	switch {
	case why == refusedBusy, c.unsettled.len() >= maxUnsettled:
		c.kick("state cannot be written") // so that it is sent again
	case qos == 1:
		b.acknowledge(c, id, began, sequence)
	}
	if why == admitted {
		c.useful.Store(true)
	}
}

// take admits a publication and starts all that follows. The acknowledgement
// is due when the change of the sequence number is on disk; 0 means now.
func (b *Broker) take(c *conn, topic string, payload []byte, qos byte, retain bool) (sequence uint64, why refusal) {
	now := b.now()
	if !b.pace(c, now) {
		return 0, refusedRate
	}
	if b.options.Open {
		return b.takeOpen(c, topic, payload, qos, retain, now)
	}
	r, why := b.admission.admit(c.who, topic, payload, qos, retain, now)
	if why != admitted {
		return 0, why
	}
	if r.newcomer && !b.perIP.newcomer(c.remote.Addr(), now) {
		return 0, refusedNewcomer
	}
	if r.live {
		b.count.admitted.Inc()
		b.fanOut(c, topic, r.message.Payload, qos, false)
		return 0, admitted
	}
	if r.same {
		// Everybody who listens was handed it when it came first; authors say
		// everything again now and then, in case a broker forgot it. It may be
		// on its way to the disk still.
		b.count.admitted.Inc()
		return b.store.Last(), admitted
	}
	visited := 0
	if sequence, visited, why = b.admission.keep(r, func(string) { b.count.collected.Inc() }); why != admitted {
		return 0, why
	}
	b.count.admitted.Inc()
	b.charge(c, float64(visited)/searchPrice, now)
	b.fanOut(c, topic, r.payload(), qos, true)
	return sequence, admitted
}

// takeOpen takes a publication in an open broker, where only shape and quotas
// count.
func (b *Broker) takeOpen(c *conn, topic string, payload []byte, qos byte, retain bool, now time.Time) (sequence uint64, why refusal) {
	switch {
	case c.who.access != AccessFull:
		return 0, refusedAccess
	case strings.Count(topic, "/") >= maxLevels || len(topic) > maxFilter:
		return 0, refusedTopic
	}
	payload = bytes.Clone(payload)
	if retain {
		var err error
		if len(payload) == 0 {
			sequence, err = b.store.Delete(topic)
		} else {
			m := &retained.Message{Topic: topic, Payload: payload, QoS: qos, Received: now}
			sequence, err = b.store.Put(m, func(_ *retained.Message, of retained.Standing) error {
				if of.All.Bytes+len(payload) > b.limits.TotalBytes {
					return refusedQuota
				}
				return nil
			})
		}
		if err != nil {
			return 0, refusalOf(err)
		}
	}
	b.count.admitted.Inc()
	b.fanOut(c, topic, payload, qos, retain)
	return sequence, admitted
}

// fanOut hands a publication to everybody who subscribed to its topic.
func (b *Broker) fanOut(from *conn, topic string, payload []byte, qos byte, retain bool) {
	members := b.index.audience(topic)
	if len(members) == 0 {
		return
	}
	f := encode(topic, payload, qos, false)
	var bridge *encoded // bridges need the retain flag to pass it on
	var ready [64]*conn
	var slow, behind *conn
	n, sent, reading, congested := 0, 0, 0, 0
	for _, m := range members {
		form := &f
		if m.s.bridge {
			if from != nil && m.s == from.session {
				continue // a bridge never gets its own messages back
			}
			if bridge == nil {
				r := encode(topic, payload, qos, retain)
				bridge = &r
			}
			form = bridge
		}
		sent++
		d := m.s.deliver(form, min(m.qos, qos))
		switch d.why {
		case backlogOwn:
			behind = d.to
		case backlogReading:
			congested++
			slow = d.to
		}
		if d.why != backlogStalled {
			reading++
		}
		if d.flush != nil {
			ready[n] = d.flush
			if n++; n == len(ready) {
				b.flush.addAll(ready[:n])
				n = 0
			}
		}
	}
	b.flush.addAll(ready[:n])
	b.count.delivered.Add(float64(sent))
	switch {
	case from == nil:
	case behind != nil:
		b.holdUp(from, behind)
	case congested > reading/2:
		b.holdUp(from, slow)
	}
}

// maxHoldUp is how long one publication holds its publisher up at most. Ten
// publications a second fill no buffer of a client that reads at all, and a
// reader that is slow on purpose can do no more harm than that.
const maxHoldUp = 100 * time.Millisecond

// holdUp makes a publisher wait where the broker did not get round to writing
// to one of its readers, or where most of those that read fall behind: they, or
// this machine, are at their limit, and cutting them would help nobody. A
// minority is not waited for, and those that read nothing have no vote.
func (b *Broker) holdUp(from, slow *conn) {
	b.count.heldUp.Inc()
	end := time.NewTimer(maxHoldUp)
	defer end.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			slow.out.mu.Lock()
			why := slow.out.backlog()
			still := (why == backlogOwn || why == backlogReading) && !slow.out.closed
			slow.out.mu.Unlock()
			if !still {
				return
			}
		case <-end.C:
			return
		case <-from.closed:
			return
		}
	}
}
