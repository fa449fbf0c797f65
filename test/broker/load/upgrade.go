package load

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"banmesh/internal/broker/frame"
)

// An Upgrade is a community that follows a broker while that is replaced:
// agents hear every ban, reconnect when they lose the broker, and one author
// goes on publishing, and repeats a ban until it is acknowledged.
type Upgrade struct {
	Address string
	Agents  int
	Bans    int
	Every   time.Duration // between two bans
	// Replace stops the broker and starts its successor. It is called after a
	// third of the bans.
	Replace func() error
}

// An UpgradeResult is the agents' view.
type UpgradeResult struct {
	Missing int           // bans that an agent never heard, of all agents
	Late    time.Duration // the longest time from a ban to its arrival at an agent
	Away    []time.Duration
	Stopped time.Duration // how long the replacement took
}

// AwayMost is the longest time that an agent was without the broker.
func (r UpgradeResult) AwayMost() time.Duration {
	if len(r.Away) == 0 {
		return 0
	}
	return slices.Max(r.Away)
}

// A follower is one agent.
type follower struct {
	id      string
	mu      sync.Mutex
	heard   map[string]time.Time // by topic
	away    time.Duration
	arrived chan struct{}
}

// Run publishes all bans, and gives the messages that the agents heard once each has heard
// all, or ctx ended.
func (u Upgrade) Run(ctx context.Context) (r UpgradeResult, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()
	agents := make([]*follower, u.Agents)
	ready := make(chan struct{}, u.Agents)
	for i := range agents {
		a := &follower{id: fmt.Sprint("agent-", i), heard: map[string]time.Time{}, arrived: make(chan struct{}, 1)}
		agents[i] = a
		wait.Go(func() { a.follow(ctx, u.Address, ready) })
	}
	for range agents {
		select {
		case <-ready:
		case <-ctx.Done():
			return r, fmt.Errorf("connecting the agents: %w", ctx.Err())
		}
	}
	replaced := make(chan error, 1)
	sent := map[string]time.Time{}
	var c *Conn
	for i := range u.Bans {
		if i == u.Bans/3 {
			began := time.Now()
			wait.Go(func() {
				err := u.Replace()
				r.Stopped = time.Since(began)
				replaced <- err
			})
		}
		topic, payload, err := NewAuthor(i).Next(300, time.Now())
		if err != nil {
			return r, err
		}
		sent[topic] = time.Now()
		if c, err = u.say(ctx, c, topic, payload); err != nil {
			return r, err
		}
		idle(ctx, u.Every)
	}
	c.Close()
	if err := <-replaced; err != nil {
		return r, fmt.Errorf("replacing the broker: %w", err)
	}
	for _, a := range agents {
		for a.count() < u.Bans && ctx.Err() == nil {
			select {
			case <-a.arrived:
			case <-ctx.Done():
			}
		}
		a.mu.Lock()
		r.Missing += u.Bans - len(a.heard)
		for topic, at := range a.heard {
			r.Late = max(r.Late, at.Sub(sent[topic]))
		}
		if a.away > 0 {
			r.Away = append(r.Away, a.away)
		}
		a.mu.Unlock()
	}
	return r, nil
}

// say publishes until the acknowledgement comes, on a connection or a new one.
func (u Upgrade) say(ctx context.Context, c *Conn, topic string, payload []byte) (*Conn, error) {
	m, at := frame.AppendPublish(nil, topic, payload, 1, true)
	m[at], m[at+1] = 0, 1
	for ctx.Err() == nil {
		if c == nil {
			var err error
			if c, err = Dial(u.Address, "author", 60); err != nil {
				c = nil
				idle(ctx, retry)
				continue
			}
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, err := c.Write(m)
		if err == nil {
			_, _, err = c.ReadPacket()
		}
		if err == nil {
			return c, nil
		}
		c.Close()
		c = nil
	}
	return nil, errors.Join(errors.New("a ban was never acknowledged"), ctx.Err())
}

// retry is the pause before the next attempt to connect.
const retry = 20 * time.Millisecond

func idle(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (a *follower) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.heard)
}

// follow hears bans, over as many connections as it takes, until ctx ends.
func (a *follower) follow(ctx context.Context, address string, ready chan<- struct{}) {
	first, lost := true, time.Time{}
	for ctx.Err() == nil {
		c, err := Dial(address, a.id, 600)
		if err == nil {
			err = c.Subscribe(Filter, 1)
		}
		if err != nil {
			if c != nil {
				c.Close()
			}
			idle(ctx, retry)
			continue
		}
		if first {
			first = false
			ready <- struct{}{}
		} else {
			a.mu.Lock()
			a.away += time.Since(lost)
			a.mu.Unlock()
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		a.hear(c)
		stop()
		c.Close()
		lost = time.Now()
	}
}

// hear notes bans until the connection ends.
func (a *follower) hear(c *Conn) {
	var acks []byte
	for {
		first, body, err := c.ReadPacket()
		if err != nil {
			return
		}
		if first>>4 != frame.Publish {
			continue
		}
		end := 2 + int(body[0])<<8 + int(body[1])
		topic := string(body[2:end])
		if first>>1&3 == 1 {
			acks = frame.AppendPuback(acks, uint16(body[end])<<8|uint16(body[end+1]))
		}
		a.mu.Lock()
		if _, had := a.heard[topic]; !had {
			a.heard[topic] = time.Now()
		}
		a.mu.Unlock()
		select {
		case a.arrived <- struct{}{}:
		default:
		}
		if c.R.Buffered() == 0 && len(acks) > 0 {
			if _, err := c.Write(acks); err != nil {
				return
			}
			acks = acks[:0]
		}
	}
}
