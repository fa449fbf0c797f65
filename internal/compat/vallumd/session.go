package vallumd

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"

	"golang.org/x/sync/errgroup"
)

// connected is one connection, from CONNECT to its loss.
func (b *Bridge) connected(ctx context.Context) error {
	conn, err := b.connect(ctx)
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	filters := b.session.Sets
	acks, granted := make(chan uint16, inFlight), make(chan struct{}, len(filters))
	group.Go(func() error { conn.KeepAlive(ctx); return nil }) // closes it when ctx ends
	group.Go(func() error { return b.read(ctx, conn, acks, granted) })
	group.Go(func() error {
		if err := subscribe(ctx, conn, filters, granted); err != nil {
			return err
		}
		b.mu.Lock()
		b.status.Connected, b.status.Err = true, ""
		b.out.reconnected()
		b.mu.Unlock()
		b.o.Log.InfoContext(ctx, "broker_connected", slog.String("broker", b.o.Broker.URL))
		return b.publishDue(ctx, conn, acks)
	})
	return group.Wait()
}

// connect takes the session up that the broker keeps. One that waited too long, or that
// reads other sets, is ended first.
func (b *Bridge) connect(ctx context.Context) (*mqttclient.Conn, error) {
	b.mu.Lock()
	s, first := b.session, b.resumed.IsZero()
	fresh := b.fresh || b.o.Now().Sub(s.Last).Abs() > sessionMost
	b.mu.Unlock()
	e := b.o.Broker
	e.ClientID, e.Keepalive = s.ID, keepalive
	if e.Keep = len(s.Sets) > 0; e.Keep && fresh {
		clean := e
		clean.Keep = false
		conn, err := mqttclient.Dial(ctx, clean)
		if err != nil {
			return nil, err
		}
		conn.Close()
	}
	conn, err := mqttclient.Dial(ctx, e)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Now()
	b.echoes.reconnected(conn.Resumed, now)
	if first {
		b.resumed = time.Unix(1, 0)
		if conn.Resumed {
			b.resumed = now
		}
	}
	b.session.Last, b.fresh = now, false
	return conn, nil
}

// filters gives the topics of the sets that are accepted.
func (b *Bridge) filters() (list []string) {
	for _, s := range b.o.Sets {
		if !s.Accept {
			continue
		}
		for _, name := range s.names() {
			list = append(list, name+"/"+add, name+"/"+del)
		}
	}
	return list
}

// subscribe asks for the messages of the sets that are accepted, and waits until the
// broker grants all.
func subscribe(ctx context.Context, conn *mqttclient.Conn, filters []string, granted <-chan struct{}) error {
	for _, f := range filters {
		if err := conn.Request(f, 1); err != nil {
			return err
		}
	}
	late := time.After(ackTime)
	for range filters {
		select {
		case <-granted:
		case <-late:
			return errUnacknowledged
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// read takes the broker's packets until the connection is lost.
func (b *Bridge) read(ctx context.Context, conn *mqttclient.Conn, acks chan<- uint16, granted chan<- struct{}) error {
	for {
		first, body, err := conn.Await()
		if err != nil {
			return fmt.Errorf("the connection is lost: %w", err)
		}
		h := frame.Header{Type: first >> 4, Flags: first & 0xf, Remaining: len(body)}
		switch h.Type {
		case frame.Puback:
			if len(body) != 2 {
				return fmt.Errorf("%w: a PUBACK of %d bytes", frame.ErrMalformed, len(body))
			}
			select {
			case acks <- frame.AckID(body):
			default: // one that nothing waits for
			}
		case frame.Suback:
			if len(body) != 3 || body[2] > 2 {
				return fmt.Errorf("the broker does not let user %q read a set: SUBACK %x", b.o.Broker.User, body)
			}
			select {
			case granted <- struct{}{}:
			default:
			}
		case frame.Publish:
			p, err := frame.ParsePublish(h, body)
			if err == nil && p.QoS > 1 {
				err = fmt.Errorf("%w: QoS %d was not asked for", frame.ErrProtocol, p.QoS)
			}
			if err != nil {
				return err
			}
			if err := b.receive(ctx, conn, p); err != nil {
				return err
			}
		}
	}
}

// receive takes a message: somebody else's, our own come back, or one that is left out.
func (b *Bridge) receive(ctx context.Context, conn *mqttclient.Conn, p frame.Publication) error {
	d := delivery{conn: conn, id: p.ID}
	var set string
	d.Message, set, d.taken = parse(b.o.Sets, p)
	b.mu.Lock()
	if !d.taken {
		b.ignored()
	} else if b.own(change{Element{set, d.Addr}, d.Add}) {
		d.taken = false
	}
	b.mu.Unlock()
	if !d.taken && d.id == 0 {
		return nil
	}
	select {
	case b.received <- d:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// own says whether a message is one of ours. The earlier run's come back for a while where
// the broker kept its session: those whose address a ban still wants. b.mu is held.
func (b *Bridge) own(m change) bool {
	now := b.o.Now()
	return b.echoes.take(m, now) || m.add && now.Sub(b.resumed) <= echoTime && b.out.want[m.Element] > 0
}

// ignored counts a message that is left out. b.mu is held.
func (b *Bridge) ignored() {
	b.status.Ignored++
	b.unlogged++
	if now := b.o.Now(); now.Sub(b.logged) >= ignoredLogged {
		b.o.Log.Warn("messages_left_out", slog.String("broker", b.o.Broker.URL), slog.Uint64("messages", b.unlogged))
		b.logged, b.unlogged = now, 0
	}
}

// publishDue publishes whatever is due until the connection is lost.
func (b *Bridge) publishDue(ctx context.Context, conn *mqttclient.Conn, acks <-chan uint16) error {
	tick := time.NewTicker(b.out.every())
	defer tick.Stop()
	waiting := map[uint16]change{}
	var id uint16
	for {
		b.mu.Lock()
		now := b.o.Now()
		list := b.out.due(now)
		b.echoes.sweep(now)
		b.mu.Unlock()
		for _, m := range list {
			for id++; id == 0 || waiting[id] != (change{}); id++ {
			}
			if err := b.publish(conn, m, id); err != nil {
				return err
			}
			waiting[id] = m
			if len(waiting) < inFlight {
				continue
			}
			if err := b.await(ctx, waiting, acks, inFlight/2); err != nil {
				return err
			}
		}
		if err := b.await(ctx, waiting, acks, 0); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-b.wake:
		case <-tick.C:
		}
	}
}

// publish sends a change of a set, and remembers that it may come back.
func (b *Bridge) publish(conn *mqttclient.Conn, m change, id uint16) error {
	action := del
	if m.add {
		action = add
	}
	packet, at := frame.AppendPublish(nil, m.Set+"/"+action, []byte(m.Addr.String()), 1, false)
	packet[at], packet[at+1] = byte(id>>8), byte(id)
	if b.out.accepts(m.Set) {
		b.mu.Lock()
		b.echoes.expect(m, b.o.Now())
		b.mu.Unlock()
	}
	return conn.Send(packet)
}

// await waits until at most so many messages wait for their acknowledgement.
func (b *Bridge) await(ctx context.Context, waiting map[uint16]change, acks <-chan uint16, most int) error {
	timer := time.NewTimer(ackTime)
	defer timer.Stop()
	for len(waiting) > most {
		select {
		case id := <-acks:
			m, ok := waiting[id]
			if !ok {
				continue
			}
			delete(waiting, id)
			b.mu.Lock()
			b.out.acknowledged(m, b.o.Now())
			b.mu.Unlock()
			timer.Reset(ackTime)
		case <-timer.C:
			return errUnacknowledged
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
