package broker

import (
	"sync"
	"syscall"
	"time"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
)

// Limits of the publications that are pending for a client.
const (
	// feedRound is how many bytes of retained messages are encoded ahead of
	// the socket: enough to keep it full and for the largest message, little
	// for a thousand joiners.
	feedRound = 128<<10 + 1<<10
	// feedWindow is how many publications a client may leave unacknowledged
	// before retained messages wait for it.
	feedWindow = 1024
	// writeChunk is the size of one blocking write, so that progress of a slow
	// client is seen.
	writeChunk = 64 << 10
	// readingTime is for how long a client that took bytes counts as reading.
	readingTime = time.Second
	// blockedTime is how long an encrypted write lasts before it counts as
	// blocked by the client: a busy machine delays a write by that much.
	blockedTime = 100 * time.Millisecond
	// ownLag is how many times its limit may wait for a client to which the
	// broker did not get round to writing. Publishers are held up long before.
	ownLag = 4
	// bufferKept is the largest buffer that goes back to the pool of small
	// ones.
	bufferKept = 64 << 10
)

// An outbound is the bytes that wait to be written to one client. One goroutine at a
// time writes: a flusher, the sender itself, or a drain that waits for a slow
// socket.
type outbound struct {
	c       *conn
	writeFn func(fd uintptr) bool // of whoever is busy
	writing []byte
	wrote   int
	fault   error

	mu     sync.Mutex
	buf    []byte
	queued int  // bytes in buf and on their way to the socket
	busy   bool // someone writes, or will soon
	closed bool
	nextID uint16
	feed   []feedItem // retained messages that are pending, oldest first
	waits  bool       // the feed waits for acknowledgements
	took   time.Time  // when the client last took bytes
	began  time.Time  // when the write that blocks now began; zero while none does
}

// A feedItem is a retained message that a client shall have, as it is when its
// turn comes.
type feedItem struct {
	topic string
	qos   byte
}

func (o *outbound) init(c *conn) {
	o.c = c
	o.writeFn = o.writeReady
	o.took = time.Now()
}

var writeBuffers = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

func takeBuffer() []byte { return (*writeBuffers.Get().(*[]byte))[:0] }

var feedBuffers = sync.Pool{New: func() any { b := make([]byte, 0, feedRound); return &b }}

func giveBuffer(b []byte) {
	switch n := cap(b); {
	case n == feedRound:
		b = b[:0]
		feedBuffers.Put(&b)
	case n > 0 && n <= bufferKept:
		b = b[:0]
		writeBuffers.Put(&b)
	}
}

// room says whether n more bytes may wait. A client for which nothing waits may
// be sent anything. While the broker itself is behind, the limit is larger: a
// client is cut for its own slowness alone. The caller holds mu.
func (o *outbound) room(n int) bool {
	most := o.c.b.limits.MaxQueued
	if !o.refusing() {
		most *= ownLag
	}
	return o.queued == 0 || o.queued+n <= most
}

// write sends p, at once where nothing waits. It gives false where the
// connection is closed, or is closed now because the client does not read.
func (o *outbound) write(p []byte) bool {
	o.mu.Lock()
	switch {
	case o.closed:
		o.mu.Unlock()
		return false
	case !o.room(len(p)):
		o.mu.Unlock()
		o.c.kick("slow reader")
		return false
	case o.busy || o.c.raw == nil:
		o.append(p)
		start := !o.busy
		o.busy = true
		o.mu.Unlock()
		if start {
			o.c.b.background(o.drain)
		}
		return true
	}
	o.busy = true
	o.queued += len(p)
	o.mu.Unlock()
	o.send(p, false)
	return true
}

// append queues p. The caller holds mu and has asked for room.
func (o *outbound) append(p []byte) {
	if o.buf == nil {
		o.buf = takeBuffer()
	}
	o.buf = append(o.buf, p...)
	o.queued += len(p)
}

// claim makes the caller responsible for a flush where nobody is; the caller
// holds mu.
func (o *outbound) claim() bool {
	if o.busy {
		return false
	}
	o.busy = true
	return true
}

// awaitIdle waits until nothing waits to be written, for a time at most.
func (o *outbound) awaitIdle(most time.Duration) {
	for end := time.Now().Add(most); time.Now().Before(end); {
		o.mu.Lock()
		idle := !o.busy || o.closed
		o.mu.Unlock()
		if idle || pause(time.Millisecond, o.c.closed) {
			return
		}
	}
}

// later queues p and leaves the writing to a flusher.
func (o *outbound) later(p []byte) {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	if !o.room(len(p)) {
		o.mu.Unlock()
		o.c.kick("slow reader")
		return
	}
	o.append(p)
	flush := o.claim()
	o.mu.Unlock()
	if flush {
		o.c.b.flush.add(o.c)
	}
}

// flush writes the bytes that wait. The caller is the one who is busy.
func (o *outbound) flush() {
	if o.c.raw == nil {
		o.c.b.background(o.drain)
		return
	}
	if b := o.next(); b != nil {
		o.send(b, true)
	}
}

// next takes the bytes that wait, retained messages included, or gives nil and ends
// being busy.
func (o *outbound) next() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closed {
		o.busy = false
		return nil
	}
	if len(o.feed) > 0 && len(o.buf) < feedRound {
		o.fill()
	}
	if len(o.buf) == 0 {
		o.busy = false
		giveBuffer(o.buf)
		o.buf = nil
		return nil
	}
	b := o.buf
	o.buf = nil
	return b
}

// fill encodes the pending retained messages of the client.
func (o *outbound) fill() {
	if cap(o.buf) < feedRound {
		small := o.buf
		o.buf = append((*feedBuffers.Get().(*[]byte))[:0], small...)
		giveBuffer(small)
	}
	for len(o.feed) > 0 {
		if o.c.unacked.Load() >= feedWindow {
			o.waits = true
			return
		}
		item := o.feed[0]
		m := o.c.b.store.Get(item.topic)
		if m != nil && len(o.buf) > 0 && len(o.buf)+frame.MaxHeader+4+len(m.Topic)+len(m.Payload) > feedRound {
			return // the next round
		}
		o.feed = o.feed[1:]
		if m == nil {
			continue
		}
		if !o.appendRetained(m, min(item.qos, m.QoS)) {
			return
		}
	}
	if len(o.feed) == 0 {
		o.feed, o.waits = nil, false
	}
}

// queueRetained adds retained messages to those that are pending. It gives false
// where that becomes too much.
func (o *outbound) queueRetained(found []*retained.Message, qos byte) bool {
	o.mu.Lock()
	if len(o.feed)+len(found) > maxRetainedPending {
		o.mu.Unlock()
		return false
	}
	for _, m := range found {
		o.feed = append(o.feed, feedItem{m.Topic, qos})
	}
	flush := !o.closed && o.claim()
	o.mu.Unlock()
	if flush {
		o.c.b.flush.add(o.c)
	}
	return true
}

// windowOpened goes on with the feed where it waited for acknowledgements.
func (o *outbound) windowOpened() {
	o.mu.Lock()
	flush := o.waits && !o.closed && o.c.unacked.Load() < feedWindow && o.claim()
	if flush {
		o.waits = false
	}
	o.mu.Unlock()
	if flush {
		o.c.b.flush.add(o.c)
	}
}

// send writes b without blocking, then those that came meanwhile. Bytes that the
// socket does not take now are left to a drain. A buffer that is owned goes
// back to its pool; another is the caller's again.
func (o *outbound) send(b []byte, owned bool) {
	for {
		n, err := o.tryWrite(b)
		if err != nil {
			o.mu.Lock()
			o.busy = false
			o.mu.Unlock()
			_ = o.c.Close()
			return
		}
		o.taken(n)
		if n < len(b) {
			if !owned {
				b, n = append(takeBuffer(), b[n:]...), 0
			}
			o.blocked()
			o.c.b.background(func() { o.drainFrom(b, n) })
			return
		}
		if owned {
			giveBuffer(b)
		}
		if b = o.next(); b == nil {
			return
		}
		owned = true
	}
}

// taken counts bytes that went to the socket.
func (o *outbound) taken(n int) {
	if n > 0 {
		o.mu.Lock()
		o.queued -= n
		o.took = time.Now()
		o.mu.Unlock()
	}
}

// tryWrite writes as much as the socket takes now.
func (o *outbound) tryWrite(b []byte) (int, error) {
	o.writing, o.wrote, o.fault = b, 0, nil
	err := o.c.raw.Write(o.writeFn)
	o.writing = nil
	if err == nil {
		err = o.fault
	}
	return o.wrote, err
}

func (o *outbound) writeReady(fd uintptr) bool {
	for o.wrote < len(o.writing) {
		n, err := rawWrite(fd, o.writing[o.wrote:])
		switch err {
		case nil:
			o.wrote += n
		case syscall.EINTR:
		case syscall.EAGAIN:
			return true
		default:
			o.fault = err
			return true
		}
	}
	return true
}

func (o *outbound) drain() { o.drainFrom(nil, 0) }

// drainFrom writes b from an offset on and the bytes that wait, blocking, until nothing
// is left or the client takes nothing for the time that a stalled client gets.
func (o *outbound) drainFrom(b []byte, from int) {
	for {
		if err := o.writeAll(b[from:]); err != nil {
			if isTimeout(err) {
				o.c.kick("stalled reader")
			}
			o.mu.Lock()
			o.busy = false
			o.mu.Unlock()
			_ = o.c.Close()
			return
		}
		o.unblocked()
		giveBuffer(b)
		if b, from = o.next(), 0; b == nil {
			return
		}
		if o.c.raw != nil {
			o.send(b, true) // the socket may take all of it again
			return
		}
	}
}

// writeAll writes b, with a deadline for each piece and none afterwards.
func (o *outbound) writeAll(b []byte) error {
	for len(b) > 0 {
		o.blocked()
		if err := o.c.net.SetWriteDeadline(time.Now().Add(o.c.b.limits.StallTime)); err != nil {
			return err
		}
		n, err := o.c.net.Write(b[:min(len(b), writeChunk)])
		o.taken(n)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return o.c.net.SetWriteDeadline(time.Time{})
}

func (o *outbound) close() {
	o.mu.Lock()
	o.closed = true
	o.feed = nil
	o.mu.Unlock()
}
