package broker

import (
	"slices"
	"sync"
	"time"

	"banmesh/internal/broker/frame"
)

// maxUnsettled bounds the acknowledgements of one client that wait for the
// disk. Clients have some hundred publications in flight; one that has more
// than this beside a disk that takes nothing only fills memory.
const maxUnsettled = 4096

// A pendingAck is a PUBACK that is due when a change of the store is on disk.
type pendingAck struct {
	sequence uint64
	id       uint16
	began    time.Time // when the publication came
}

// pendingAcks are those of one client, in the order of its publications. They
// go with the connection.
type pendingAcks struct {
	mu     sync.Mutex
	queue  []pendingAck
	closed bool
}

func (p *pendingAcks) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue)
}

// add queues one, behind those before it even where nothing of its own waits
// (sequence 0). wait is false where it is due at once.
func (p *pendingAcks) add(sequence uint64, id uint16, began time.Time, durable uint64) (wait bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.queue); n > 0 {
		sequence = max(sequence, p.queue[n-1].sequence)
	} else if sequence <= durable {
		return false
	}
	if p.closed {
		return true
	}
	p.queue = append(p.queue, pendingAck{sequence, id, began})
	return true
}

// take gives those that are due, in order.
func (p *pendingAcks) take(durable uint64) (due []pendingAck) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for n < len(p.queue) && p.queue[n].sequence <= durable {
		due = append(due, p.queue[n])
		n++
	}
	if p.queue = slices.Delete(p.queue, 0, n); len(p.queue) == 0 {
		p.queue = nil
	}
	return due
}

func (p *pendingAcks) close() {
	p.mu.Lock()
	p.queue, p.closed = nil, true
	p.mu.Unlock()
}

// acknowledge sends a PUBACK when a change of the store is on disk, and after
// those of the client's earlier publications; sequence 0 waits for nothing else.
func (b *Broker) acknowledge(c *conn, id uint16, began time.Time, sequence uint64) {
	if !c.unsettled.add(sequence, id, began, b.store.Durable()) {
		b.ack(c, pendingAck{id: id, began: began})
		return
	}
	b.unsettledMu.Lock()
	b.unsettled[c] = struct{}{}
	b.unsettledMu.Unlock()
	if b.store.Durable() >= sequence { // it became durable meanwhile
		b.settle(c, b.store.Durable())
	}
}

// settled sends the acknowledgements that a group of the store made due.
func (b *Broker) settled(durable uint64) {
	b.unsettledMu.Lock()
	waiting := make([]*conn, 0, len(b.unsettled))
	for c := range b.unsettled {
		waiting = append(waiting, c)
	}
	b.unsettledMu.Unlock()
	for _, c := range waiting {
		b.settle(c, durable)
	}
}

// settle sends a client's acknowledgements that are due.
func (b *Broker) settle(c *conn, durable uint64) {
	c.settling.Lock() // so that two callers keep the order
	defer c.settling.Unlock()
	for _, due := range c.unsettled.take(durable) {
		b.ack(c, due)
	}
	b.unsettledMu.Lock()
	defer b.unsettledMu.Unlock()
	if c.unsettled.len() == 0 {
		delete(b.unsettled, c)
	}
}

// ack sends a PUBACK by way of a flusher, so that the store is not held up by
// system calls for clients.
func (b *Broker) ack(c *conn, due pendingAck) {
	var buf [4]byte
	b.count.acknowledged.Observe(max(0, b.now().Sub(due.began).Seconds()))
	c.out.later(frame.AppendPuback(buf[:0], due.id))
}
