package broker

import (
	"strings"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
)

// maxDelay is how long a client that publishes too fast is held up at once;
// what would take longer is refused.
const maxDelay = 10 * time.Second

// publish takes a publication of a client: admit, retain, hand out. With QoS 1
// it also acknowledges, at once or when the message is durable, whatever became
// of it: a refusal that is not acknowledged would come back for ever.
func (b *Broker) publish(c *conn, topic string, payload []byte, id uint16, qos byte, retain bool) {
	b.count.published.Inc()
	why, settled := b.take(c, topic, payload, id, qos, retain)
	if why != admitted {
		b.count.refused.WithLabelValues(string(why)).Inc()
		b.log.Debug("publication refused", "client", c.who.String(), "reason", string(why), "topic", topic)
	}
	switch {
	case why == refusedBusy:
		c.kick("state cannot be written") // so that it is sent again
	case qos == 1 && !settled:
		b.settle(c, id)
	}
}

// settle acknowledges a publication that needs no disk, after those before it.
func (b *Broker) settle(c *conn, id uint16) {
	if c.unsettled.Load() > 0 {
		c.unsettled.Add(1)
		// The count falls after the acknowledgement, so that none overtakes it.
		if b.store.After(func(error) { b.ack(c, id); c.unsettled.Add(-1) }) == nil {
			return
		}
		c.unsettled.Add(-1)
	}
	b.ack(c, id)
}

// ack sends a PUBACK by way of a flusher, so that the store is not held up by
// system calls for clients.
func (b *Broker) ack(c *conn, id uint16) {
	var buf [4]byte
	c.out.later(frame.AppendPuback(buf[:0], id))
}

// take admits a publication and starts what follows. settled says that the
// acknowledgement comes when the message is durable.
func (b *Broker) take(c *conn, topic string, payload []byte, id uint16, qos byte, retain bool) (why refusal, settled bool) {
	now := b.now()
	if !b.pace(c, now) {
		return refusedRate, false
	}
	if b.options.Open {
		return b.takeOpen(c, topic, payload, id, qos, retain, now)
	}
	r, why := b.admission.admit(c.who, topic, payload, qos, retain, now)
	if why != admitted {
		return why, false
	}
	b.count.admitted.Inc()
	if r.same {
		// Everybody who listens was handed it when it came first; authors say
		// everything again now and then, in case a broker forgot it.
		return admitted, false
	}
	if r.card != nil { // before the acknowledgement
		void, visited := b.admission.learn(r.card)
		b.charge(c, float64(visited)/searchPrice, now)
		for _, topic := range void {
			if b.store.Delete(topic, nil) == nil {
				b.count.collected.Inc()
			}
		}
	}
	if settled, why = b.retain(c, r.message, id); why != admitted {
		return why, false
	}
	b.fanOut(c, topic, r.message.Payload, qos, true)
	return admitted, settled
}

// takeOpen takes a publication in an open broker, where only shape and quotas
// count.
func (b *Broker) takeOpen(c *conn, topic string, payload []byte, id uint16, qos byte, retain bool, now time.Time) (why refusal, settled bool) {
	switch {
	case c.who.access != AccessFull:
		return refusedAccess, false
	case strings.Count(topic, "/") >= maxLevels || len(topic) > maxFilter:
		return refusedTopic, false
	}
	b.count.admitted.Inc()
	payload = append([]byte(nil), payload...)
	if retain {
		switch {
		case len(payload) == 0:
			if b.store.Delete(topic, b.whenDurable(c, id, qos)) != nil {
				return refusedBusy, false
			}
			settled = qos == 1
		default:
			if _, all := b.store.Usage(""); all.Bytes+len(payload) > b.limits.TotalBytes {
				return refusedQuota, false
			}
			m := &retained.Message{Topic: topic, Payload: payload, QoS: qos, Received: now}
			if settled, why = b.retain(c, m, id); why != admitted {
				return why, false
			}
		}
	}
	b.fanOut(c, topic, payload, qos, retain)
	return admitted, settled
}

// retain stores a message; the acknowledgement follows when it is durable.
func (b *Broker) retain(c *conn, m *retained.Message, id uint16) (settled bool, why refusal) {
	done := b.whenDurable(c, id, m.QoS)
	if b.store.Put(m, done) != nil {
		if done != nil {
			c.unsettled.Add(-1)
		}
		return false, refusedBusy
	}
	return done != nil, admitted
}

// whenDurable gives what acknowledges a publication once it is on disk, or nil
// where no acknowledgement is due.
func (b *Broker) whenDurable(c *conn, id uint16, qos byte) func(error) {
	if qos != 1 || id == 0 {
		return nil // a will has no identifier
	}
	c.unsettled.Add(1)
	return func(err error) {
		if err == nil {
			b.ack(c, id)
		}
		c.unsettled.Add(-1)
	}
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
