package broker

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// All that a connection makes the broker hold is one account of bytes: those that
// waits to be written to it, the beginning of a packet that it has not ended,
// its filters, retained messages and acknowledgements that are pending. All
// together may have TotalQueued, one address and one operator a part of that.
const (
	// heldShare is the part of all that one address or operator may have.
	heldShare = 8
	// filterShare is the part of all that filters may have: they last, the
	// rest comes and goes.
	filterShare = 2
	// A filter takes its places in two maps for each client. Its text, its list
	// of clients, and the nodes that it adds to the tree for each level that no
	// other filter has, are there once. A million filters of a thousand
	// clients that share them raise the process by 175 MB, connections and garbage
	// included.
	filterBytes   = 110
	audienceBytes = 400
	levelBytes    = 400
	// feedItemBytes is a retained message that is pending, ackBytes an
	// acknowledgement.
	feedItemBytes = 32
	ackBytes      = 16
)

// textBytes is a filter's cost, taken once, whoever has it.
func textBytes(filter string) int { return audienceBytes + len(filter) }

// holds is the client's account without its filters.
func (c *conn) holds() int {
	acks := c.unsettled.len()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	if c.out.closed {
		return 0 // it is on its way out
	}
	return c.out.queued + int(c.unfinished.Load()) + len(c.out.feed)*feedItemBytes + acks*ackBytes
}

// A payer is an address's smallest network, or an operator, that an account is
// charged to. Clients of this machine have no network.
type payer struct {
	network  netip.Prefix
	operator ban.Operator
}

// payers gives who is charged for a client.
func payers(who identity, a netip.Addr) (out []payer) {
	if list := origins(a); len(list) > 0 {
		out = append(out, payer{network: list[0].prefix})
	}
	if who.operator != (ban.Operator{}) {
		out = append(out, payer{operator: who.operator})
	}
	return out
}

// holdFilter charges a filter to a session, or says that there is no room.
// The caller holds the session's subsMu.
func (b *Broker) holdFilter(s *session, n int) bool {
	there := b.index.bytes()
	b.heldMu.Lock()
	defer b.heldMu.Unlock()
	// Levels are charged to whoever subscribed first, and stay as long as others
	// need them: where the first have left, the index has more than was charged.
	if max(b.heldAll, there)+n > b.limits.TotalQueued/filterShare {
		return false
	}
	for _, p := range s.payers {
		if b.held[p]+n > b.limits.TotalQueued/heldShare {
			return false
		}
	}
	b.heldAll += n
	for _, p := range s.payers {
		b.held[p] += n
	}
	return true
}

// releaseFilter ends a charge of holdFilter.
func (b *Broker) releaseFilter(s *session, n int) {
	b.heldMu.Lock()
	defer b.heldMu.Unlock()
	b.heldAll -= n
	for _, p := range s.payers {
		if b.held[p] -= n; b.held[p] <= 0 {
			delete(b.held, p)
		}
	}
}

// relieveEvery is how often the accounts of all clients are added up: short
// against the time in which a network fills them, and a pass over 10,000
// clients takes a millisecond.
const relieveEvery = 250 * time.Millisecond

// relieve keeps the accounts of all clients together, and of each address and
// operator, within their limits, until ctx ends. A limit for each alone lets
// many clients that read nothing, or that never finish their packets, take all
// memory.
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

// A holder is a client and its account.
type holder struct {
	c     *conn
	bytes int
}

// relieveOnce cuts those who hold most: of an address or operator that holds
// more than its part, then of all, until the rest is three quarters of the
// limit.
func (b *Broker) relieveOnce() (cut int) {
	filters := b.index.bytes()
	b.heldMu.Lock()
	filters = max(filters, b.heldAll)
	b.heldMu.Unlock()
	var all []holder
	by := map[payer][]holder{}
	b.connsMu.Lock()
	for c := range b.conns {
		n := c.holds()
		if n == 0 {
			continue
		}
		all = append(all, holder{c, n})
		for _, p := range payers(c.identity(), c.remote.Addr()) {
			by[p] = append(by[p], holder{c, n})
		}
	}
	b.connsMu.Unlock()
	kicked := map[*conn]bool{}
	for p, holders := range by {
		b.heldMu.Lock()
		sum := b.held[p]
		b.heldMu.Unlock()
		cutLargest(holders, sum, b.limits.TotalQueued/heldShare, kicked)
	}
	cutLargest(all, filters, b.limits.TotalQueued, kicked)
	if len(kicked) > 0 {
		b.log.Warn("clients held too much memory", "cut", len(kicked))
	}
	return len(kicked)
}

// sumOf adds up the accounts of those that were not cut.
func sumOf(holders []holder, kicked map[*conn]bool) (sum int) {
	for _, h := range holders {
		if !kicked[h.c] {
			sum += h.bytes
		}
	}
	return sum
}

// cutLargest closes the connections that hold most where all of them, and base,
// are above a limit.
func cutLargest(holders []holder, base, most int, kicked map[*conn]bool) {
	total := base + sumOf(holders, kicked)
	if total <= most {
		return
	}
	slices.SortFunc(holders, func(x, y holder) int { return y.bytes - x.bytes })
	for _, h := range holders {
		if total <= most/4*3 {
			break
		}
		if kicked[h.c] {
			continue
		}
		kicked[h.c] = true
		h.c.kick("too much memory")
		total -= h.bytes
	}
}
