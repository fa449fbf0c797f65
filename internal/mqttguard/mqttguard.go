// Package mqttguard stands between an untrusted MQTT broker and the client
// library of an agent. It reads whole packets, and passes only those that a
// server of MQTT 3.1.1 may send to a client that connected with a clean session
// and uses no QoS above 1: everything else ends the connection. A client library
// trusts its server in places where an attacker's server is the threat.
package mqttguard

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
)

// Every refusal of the guard wraps ErrMisbehaving: the broker broke the
// protocol, so that the fault is the broker's and not the network's.
var ErrMisbehaving = errors.New("misbehaving broker")

// ErrGoodbye ends a connection that the broker ended in order, by DISCONNECT:
// brokers made for MQTT 5 say it to clients of 3.1.1, too.
var ErrGoodbye = errors.New("the broker said goodbye")

// A Conn is a guarded connection. Like any net.Conn it may be read and written
// at once; only one goroutine may read, and only one may write.
type Conn struct {
	net.Conn
	most int // bytes of the largest packet that may come

	// Of the reading goroutine.
	in    []byte // bytes read, of which the first ready were checked
	ready int

	// Of the writing goroutine.
	sent sender

	mu    sync.Mutex
	asked outstanding
	err   error
}

// New guards a connection on which nothing was sent. No packet of more than
// most bytes is read from it.
func New(c net.Conn, most int) *Conn {
	return &Conn{Conn: c, most: most, asked: newOutstanding()}
}

// Err gives why the guard ended the connection, or nil.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// readSize is the least room for one read of the network.
const readSize = 16 << 10

// Read gives bytes of whole packets that passed.
func (c *Conn) Read(p []byte) (n int, err error) {
	defer func() {
		if r := recover(); r != nil {
			n, err = 0, c.end(fmt.Errorf("%w: the guard failed: %v\n%s", ErrMisbehaving, r, debug.Stack()))
		}
	}()
	for c.ready == 0 {
		if err := c.Err(); err != nil {
			return 0, err
		}
		whole, want, err := c.next()
		if err != nil {
			return 0, c.end(err)
		}
		if c.ready = whole; whole > 0 {
			break
		}
		if err := c.fill(want); err != nil {
			return 0, err
		}
	}
	n = copy(p, c.in[:c.ready])
	c.in, c.ready = c.in[n:], c.ready-n
	return n, nil
}

// next checks the packet at the beginning of the bytes that were read, and gives its size,
// or 0 and how many bytes it takes.
func (c *Conn) next() (whole, want int, err error) {
	h, ok, err := parseHeader(c.in)
	switch {
	case err != nil:
		return 0, 0, err
	case !ok:
		return 0, maxHeader, nil
	case h.size+h.remaining > c.most:
		return 0, 0, misbehaving("a packet of %d bytes is announced", h.size+h.remaining)
	case len(c.in) < h.size+h.remaining:
		return 0, h.size + h.remaining, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.asked.answer(h, c.in[h.size:h.size+h.remaining]); err != nil {
		return 0, 0, err
	}
	return h.size + h.remaining, 0, nil
}

// fill reads more of a packet of want bytes. An announced length earns no more
// memory than twice the bytes that came.
func (c *Conn) fill(want int) error {
	size := min(max(want, readSize), max(2*len(c.in), readSize))
	if cap(c.in) < size || len(c.in) == cap(c.in) {
		c.in = append(make([]byte, 0, max(size, 2*len(c.in))), c.in...)
	}
	n, err := c.Conn.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

// end closes the connection for a fault of the broker.
func (c *Conn) end(why error) error {
	c.mu.Lock()
	if c.err == nil {
		c.err = why
	}
	why = c.err
	c.mu.Unlock()
	_ = c.Conn.Close()
	return why
}

// Write notes which answers the client now waits for, then writes.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.sent.note(p, &c.asked)
	c.mu.Unlock()
	return c.Conn.Write(p)
}

func misbehaving(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMisbehaving, fmt.Sprintf(format, args...))
}
