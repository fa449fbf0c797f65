package main

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/broker/frame"
)

// A proxy stands between a client and a broker and counts bytes.
type proxy struct {
	l        net.Listener
	up, down atomic.Int64
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	held  map[string]bool // filters of the connection
	most  int             // of any connection, at any time
}

func newProxy(address string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{l: l}
	p.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s, err := net.Dial("tcp", address)
			if err != nil {
				c.Close()
				continue
			}
			p.mu.Lock()
			p.conns, p.held = append(p.conns, c, s), map[string]bool{}
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(s, c, io.MultiWriter(counter{&p.up}, &requests{p: p})) })
			p.wg.Go(func() { p.copy(c, s, counter{&p.down}) })
		}
	})
	return p, nil
}

func (p *proxy) copy(to, from net.Conn, count io.Writer) {
	defer to.Close()
	defer from.Close()
	_, _ = io.Copy(to, io.TeeReader(from, count))
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(int64(len(b)))
	return len(b), nil
}

func (p *proxy) url() string { return "tcp://" + p.l.Addr().String() }

func (p *proxy) close() { p.l.Close() }

// cut ends all connections; new ones are taken.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// filters gives the most filters that a connection had at a time, and those that
// the newest one has now.
func (p *proxy) filters() (most, now int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most, len(p.held)
}

// quietFor is how long nothing has to come before a reader has everything.
// Between two of its questions there may be seconds.
const quietFor = 15 * time.Second

// quiet waits until a client is connected and nothing comes from the broker any
// more but answers to pings.
func (p *proxy) quiet() error {
	last, since := int64(-1), time.Now()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		n := p.down.Load()
		if n == 0 || n > last+8 {
			last, since = n, time.Now()
		}
		if time.Since(since) > quietFor {
			return nil
		}
	}
	return errors.New("the broker never falls silent")
}

// requests reads a client's packets and counts its filters.
type requests struct {
	p *proxy
	b []byte
}

func (r *requests) Write(b []byte) (int, error) {
	r.b = append(r.b, b...)
	for {
		n, shift, at := 0, 0, 1
		for at < len(r.b) && at <= 4 {
			n |= int(r.b[at]&0x7f) << shift
			shift += 7
			at++
			if r.b[at-1] < 0x80 {
				break
			}
		}
		if at < 2 || r.b[at-1] >= 0x80 || len(r.b) < at+n {
			return len(b), nil
		}
		r.packet(r.b[0]>>4, r.b[at:at+n])
		r.b = r.b[at+n:]
	}
}

func (r *requests) packet(kind byte, body []byte) {
	if kind != frame.Subscribe && kind != frame.Unsubscribe {
		return
	}
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	for at := 2; at+2 <= len(body); {
		end := min(len(body), at+2+int(body[at])<<8+int(body[at+1]))
		filter := string(body[at+2 : end])
		if at = end; kind == frame.Subscribe {
			at++ // the QoS
			r.p.held[filter] = true
		} else {
			delete(r.p.held, filter)
		}
	}
	r.p.most = max(r.p.most, len(r.p.held))
}
