package broker

import (
	"context"
	"slices"
	"time"
)

// relieveEvery is how often the buffers of all clients are added up: short
// against the time in which a network fills them, and a pass over 10,000
// clients takes a millisecond.
const relieveEvery = 250 * time.Millisecond

// relieve keeps the buffers of all clients together within their limit, until
// ctx ends. A limit for each alone lets a crowd that reads nothing, or that
// never finishes its packets, take all memory.
func (b *Broker) relieve(ctx context.Context) {
	t := time.NewTicker(relieveEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.relieveOnce()
		}
	}
}

// relieveOnce cuts those who hold most, until the rest holds three quarters of
// what all may hold.
func (b *Broker) relieveOnce() (cut int) {
	type holder struct {
		c     *conn
		bytes int
	}
	var holders []holder
	total := 0
	b.connsMu.Lock()
	for c := range b.conns {
		if n := c.holds(); n > 0 {
			holders = append(holders, holder{c, n})
			total += n
		}
	}
	b.connsMu.Unlock()
	if total <= b.limits.TotalQueued {
		return 0
	}
	slices.SortFunc(holders, func(x, y holder) int { return y.bytes - x.bytes })
	for _, h := range holders {
		if total <= b.limits.TotalQueued/4*3 {
			break
		}
		h.c.kick("too much memory")
		total -= h.bytes
		cut++
	}
	b.log.Warn("clients held too much memory together", "cut", cut)
	return cut
}

// holds is how many bytes wait for the client, and of it.
func (c *conn) holds() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closed {
		return 0 // it is on its way out
	}
	return c.out.queued + int(c.unfinished.Load())
}
