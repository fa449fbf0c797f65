package broker

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"

	"banmesh/internal/broker/frame"
)

// Sizes of a connection's buffers.
const (
	// readChunk is the most that one read takes: some hundred
	// acknowledgements. Plain sockets borrow it only while bytes are there.
	readChunk = 8 << 10
	// readSmall is the buffer that an encrypted connection holds while idle.
	readSmall = 512
	// acksKept is how many acknowledged identifiers are counted before the
	// window is told.
	acksKept = 64
)

var errKicked = errors.New("the broker closed the connection")

// A conn is the guard around one client's connection. The engine reads whole
// checked packets from it and its writes never block; acknowledgements of the publications that
// the broker sent to clean sessions do not reach the engine at all.
type conn struct {
	b      *Broker
	net    net.Conn        // decrypted
	raw    syscall.RawConn // nil where a system call cannot write (TLS, WebSocket)
	remote netip.AddrPort  // zero for a unix socket
	number uint64
	began  time.Time

	// Of the reading goroutine alone.
	in       []byte // bytes read, from place on
	place    int
	ready    int // bytes at place that the engine may have
	borrowed *[]byte
	limit    int // largest packet
	acks     int32
	whole    bool // a packet came to its end since the deadline was set
	told     map[refusal]*told
	pieces   bucket // small ones of unfinished packets
	readFn   func(fd uintptr) bool
	readN    int
	readErr  error

	connection frame.Connection // of the CONNECT; slices are copies
	keepalive  time.Duration    // 0 means none
	deadline   time.Time        // that was set last
	who        identity
	session    *session
	// announced is session for goodbyes, which come from another goroutine.
	announced atomic.Pointer[session]
	will      *mqtt.Will // nil where there is none, or it was published

	out outbound
	// unacked counts publications that a clean session did not acknowledge.
	unacked atomic.Int32
	// unfinished is the size of the buffer that holds the beginning of a
	// packet, where it is more than a small one.
	unfinished atomic.Int32
	// unsettled are acknowledgements to this client that wait for the disk.
	unsettled pendingAcks
	settling  sync.Mutex

	// useful says that the client was granted a filter, or published a message
	// that was admitted; known that who it is counts here. refused says why it
	// only shall hear that there is no place.
	useful, known atomic.Bool
	refused       string
	// identified is who the client is, for other goroutines; entered says that
	// it has one of the broker's places.
	identified atomic.Pointer[identity]
	entered    atomic.Bool

	testingOnlyPanic atomic.Bool

	closeOnce sync.Once
	closed    chan struct{}
	cause     atomic.Pointer[string]
}

func newConn(b *Broker, nc net.Conn, number uint64) *conn {
	c := &conn{b: b, net: nc, number: number, began: b.now(), limit: b.limits.MaxConnect, closed: make(chan struct{})}
	inner := nc
	if l, ok := nc.(*counted); ok {
		inner = l.Conn
	}
	if s, ok := inner.(syscall.Conn); ok {
		if raw, err := s.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.refused = refusedFor(nc)
	c.readFn = c.readReady
	c.out.init(c)
	c.remote = addrPort(nc.RemoteAddr())
	return c
}

// identity is who the client is, for other goroutines than its own.
func (c *conn) identity() identity {
	if who := c.identified.Load(); who != nil {
		return *who
	}
	return identity{}
}

// addrPort gives an address's IP and port, or zero where it has none.
func addrPort(a net.Addr) netip.AddrPort {
	if t, ok := a.(*net.TCPAddr); ok {
		p := t.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap().WithZone(""), p.Port())
	}
	return netip.AddrPort{}
}

// tlsState gives the TLS session's state, or nil.
func (c *conn) tlsState() *tls.ConnectionState {
	if t, ok := c.net.(interface{ ConnectionState() tls.ConnectionState }); ok {
		s := t.ConnectionState()
		return &s
	}
	return nil
}

// Read gives the engine bytes of whole packets that were checked.
func (c *conn) Read(p []byte) (int, error) {
	for c.ready == 0 {
		if err := c.step(); err != nil {
			c.b.count.malformed(err)
			return 0, err
		}
	}
	n := copy(p, c.in[c.place:c.place+c.ready])
	c.place += n
	c.ready -= n
	if c.place == len(c.in) {
		c.release()
	}
	return n, nil
}

// step takes one packet, or reads more bytes.
func (c *conn) step() error {
	h, ok, err := frame.ParseHeader(c.in[c.place:], c.limit)
	if err != nil {
		return err
	}
	whole := h.Size + h.Remaining
	if !ok || len(c.in)-c.place < whole {
		return c.fill(whole)
	}
	body := c.in[c.place+h.Size : c.place+whole]
	if err := frame.Check(h, body); err != nil {
		return err
	}
	c.b.count.received.Inc()
	c.whole = true
	if c.testingOnlyPanic.Load() {
		panic("a test asked for it")
	}
	switch {
	case h.Type == frame.Puback && frame.AckID(body) <= maxFastID && c.session != nil && c.session.clean:
		c.acks++
		if c.acks >= acksKept {
			c.settleAcks()
		}
		c.skip(whole)
	case h.Type == frame.Publish && c.session != nil && c.publication(h, body):
		c.skip(whole)
	default:
		c.ready = whole
	}
	return nil
}

// system begins the topics that are the broker's own.
const system = "$SYS"

// publication takes a publication in place of the engine, which would copy it
// several times to hand it back to us. Only exactly-once needs the engine: it
// remembers which publications were received.
func (c *conn) publication(h frame.Header, body []byte) bool {
	p, err := frame.ParsePublish(h, body)
	if err != nil {
		return false
	}
	own := len(p.Topic) >= len(system) && strings.EqualFold(string(p.Topic[:len(system)]), system)
	if !own {
		if p.QoS < 2 {
			c.b.publish(c, string(p.Topic), p.Payload, p.ID, p.QoS, p.Retain)
		}
		return p.QoS < 2
	}
	// One to a topic of the broker's own: the engine would drop it without an
	// acknowledgement, so that its client would send it for ever.
	c.b.count.refused.WithLabelValues(string(refusedTopic)).Inc()
	if p.QoS == 2 {
		// Exactly-once cannot be answered alone; the client breaks MQTT
		// 3.1.1, section 4.7.2, and is told so in the only way there is.
		c.kick("published to $SYS")
		return true
	}
	if p.QoS == 1 {
		c.b.acknowledge(c, p.ID, c.b.now(), 0)
	}
	return true
}

func (c *conn) skip(n int) {
	c.place += n
	if c.place == len(c.in) {
		c.release()
	}
}

func (c *conn) settleAcks() {
	if c.acks == 0 {
		return
	}
	left := c.unacked.Add(-c.acks)
	c.acks = 0
	if left < 0 {
		c.unacked.CompareAndSwap(left, 0) // it acknowledged more than it got
	}
	c.out.windowOpened()
}

// fill reads more bytes, at least one, with room for a packet of want bytes.
func (c *conn) fill(want int) error {
	c.settleAcks()
	if c.whole && c.session != nil { // until then the deadline of the login holds
		c.refresh()
		c.whole = false
	}
	if err := c.gather(); err != nil {
		return err
	}
	if held := len(c.in) - c.place; held > 0 || c.raw == nil {
		// A length that is announced earns no memory before its bytes come.
		c.makeRoom(max(min(want, max(2*held, readChunk)), readSmall))
		if held > 0 {
			c.unfinished.Store(int32(cap(c.in)))
		}
	}
	if c.raw == nil {
		n, err := c.net.Read(c.in[len(c.in):cap(c.in)])
		c.in = c.in[:len(c.in)+n]
		c.readN = n
		if n > 0 {
			return nil
		}
		return err
	}
	c.readN, c.readErr = 0, nil
	if err := c.raw.Read(c.readFn); err != nil {
		return err
	}
	switch {
	case c.readErr != nil:
		return c.readErr
	case c.readN == 0:
		return io.EOF
	}
	return nil
}

// A client that sends a packet in many small pieces costs a system call a piece.
// piecesBurst of them are read as they come, for instance from a library that
// writes each field of a SUBSCRIBE by itself; more only at piecesRate a second,
// in pauses in which others of them gather.
const (
	smallPiece  = 64 // bytes
	piecesBurst = 512
	piecesRate  = 100
	piecesPause = 50 * time.Millisecond
)

// gather waits where the packet at hand comes in too many small pieces.
func (c *conn) gather() error {
	if c.readN == 0 || c.readN >= smallPiece || len(c.in) == c.place {
		return nil
	}
	d := c.pieces.take(time.Now(), 1, piecesRate, piecesBurst)
	if d <= 0 {
		return nil
	}
	c.b.count.gathered.Inc()
	if pause(min(d, piecesPause), c.closed) {
		return net.ErrClosed
	}
	return nil
}

// readReady reads once without blocking; false means wait for bytes. While it
// waits with nothing held, the connection holds no buffer.
func (c *conn) readReady(fd uintptr) bool {
	empty := len(c.in) == c.place
	if empty && c.borrowed == nil {
		c.borrowed = readBuffers.Get().(*[]byte)
		c.in, c.place = (*c.borrowed)[:0], 0
	}
	for {
		n, err := rawRead(fd, c.in[len(c.in):cap(c.in)])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			if empty {
				c.release()
			}
			return false
		case err != nil:
			c.readErr = err
		default:
			c.readN = n
			c.in = c.in[:len(c.in)+n]
		}
		return true
	}
}

var readBuffers = sync.Pool{New: func() any { b := make([]byte, 0, readChunk); return &b }}

// makeRoom moves the bytes that are held to the beginning of a buffer of at least size
// bytes that has room for more.
func (c *conn) makeRoom(size int) {
	held := c.in[c.place:]
	if cap(c.in) >= size && len(held) < cap(c.in) {
		c.in = append(c.in[:0], held...)
		c.place = 0
		return
	}
	size = max(size, 2*len(held))
	if size <= readChunk || size > feedRound {
		grown := append(make([]byte, 0, size), held...)
		c.release()
		c.in = grown
		return
	}
	large := feedBuffers.Get().(*[]byte) // holds the largest packet by default
	grown := append((*large)[:0], held...)
	c.release()
	c.in, c.borrowed = grown, large
}

// release gives the buffer back.
func (c *conn) release() {
	if c.borrowed != nil {
		if cap(*c.borrowed) == feedRound {
			feedBuffers.Put(c.borrowed)
		} else {
			readBuffers.Put(c.borrowed)
		}
		c.borrowed = nil
		c.in = nil
	} else if c.raw != nil || cap(c.in) > readSmall {
		c.in = nil
	}
	c.in, c.place = c.in[:0], 0
	c.unfinished.Store(0)
}

// refreshEvery is how much sooner than the standard allows a silent client may
// be cut: a deadline costs as much as a small packet.
const refreshEvery = 250 * time.Millisecond

// refresh gives the client one and a half keepalives from now (section
// 3.1.2.10). It follows the end of a packet: bytes alone earn nothing.
func (c *conn) refresh() {
	var at time.Time
	if c.keepalive > 0 {
		at = time.Now().Add(c.keepalive + c.keepalive/2)
		// A client that acknowledges a thousand publications a second earns no
		// more than one that does so once.
		if d := at.Sub(c.deadline); d >= 0 && d < refreshEvery {
			return
		}
	}
	c.deadline = at
	_ = c.net.SetReadDeadline(at)
}

// Write takes whole packets for the client. It never blocks; a client that
// does not read is cut when its buffer is full.
func (c *conn) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0]>>4 == frame.Disconnect {
		return len(p), nil // MQTT 3.1.1 has none from a server
	}
	if !c.out.write(p) {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// Close closes the connection; queued bytes are lost.
func (c *conn) Close() error {
	var err error
	c.closeOnce.Do(func() {
		close(c.closed)
		c.out.close()
		c.unsettled.close()
		err = c.net.Close()
	})
	return err
}

// kick closes the connection for a reason of ours.
func (c *conn) kick(why string) {
	if c.cause.CompareAndSwap(nil, &why) {
		c.b.count.kicked.WithLabelValues(why).Inc()
	}
	_ = c.Close()
}

// The engine sets deadlines; the guard has its own.

func (c *conn) LocalAddr() net.Addr              { return c.net.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr             { return noAddress{} }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// noAddress keeps clients' addresses out of the engine and its logs.
type noAddress struct{}

func (noAddress) Network() string { return "mqtt" }
func (noAddress) String() string  { return "client" }
