package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// A listener accepts for as long as the broker runs, whatever errors come.
type listener struct {
	net.Listener
	b    *Broker
	kind Kind
	tls  *tls.Config

	mu     sync.Mutex
	closed chan struct{}
	web    *http.Server
}

// retryFirst is how long a listener waits after an error, such as no file
// descriptor being left; it doubles up to retryMost.
const (
	retryFirst = 5 * time.Millisecond
	retryMost  = time.Second
)

func (b *Broker) listen(l Listener) error {
	var n net.Listener
	var err error
	switch l.Kind {
	case TCP, WebSocket:
		n, err = net.Listen("tcp", l.Address)
	case TLS, SecureWS:
		if l.TLS == nil {
			return fmt.Errorf("listener %s: %s needs a certificate", l.Address, l.Kind)
		}
		n, err = net.Listen("tcp", l.Address)
	case Unix:
		if err := removeSocket(l.Address); err != nil {
			return fmt.Errorf("listener: %w", err)
		}
		n, err = net.Listen("unix", l.Address)
		if err == nil {
			mode := l.Mode
			set(&mode, 0o660)
			err = os.Chmod(l.Address, os.FileMode(mode))
		}
	default:
		return fmt.Errorf("listener %s: unknown kind %q", l.Address, l.Kind)
	}
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	made := &listener{Listener: n, b: b, kind: l.Kind, closed: make(chan struct{})}
	if l.TLS != nil {
		made.tls = b.paced(l)
	}
	b.listeners = append(b.listeners, made)
	return nil
}

// Accept gives a connection that is counted and within its address's limit. It
// fails only when the listener was closed.
func (l *listener) Accept() (net.Conn, error) {
	delay := retryFirst
	for {
		nc, err := l.Listener.Accept()
		switch {
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return nil, err
		default:
			l.b.count.acceptErrors.Inc()
			select {
			case <-time.After(delay):
			case <-l.closed:
				return nil, net.ErrClosed
			}
			delay = min(2*delay, retryMost)
			continue
		}
		delay = retryFirst
		if c := l.count(nc); c != nil {
			return c, nil
		}
	}
}

// count counts a connection, or closes it and gives nil. Those that speak HTTP
// and never ask for MQTT count too.
func (l *listener) count(nc net.Conn) net.Conn {
	b := l.b
	from := addrPort(nc.RemoteAddr()).Addr()
	refused := ""
	switch {
	case b.accepted.Load() >= int64(b.limits.Connections)+tellMost:
		b.count.turnedAway.WithLabelValues("full").Inc()
		_ = nc.Close()
		return nil
	case b.perIP.enter(from, b.limits.PerAddress, b.now()):
		b.accepted.Add(1)
		return &counted{Conn: nc, leave: func() {
			b.perIP.leave(from, b.now())
			b.accepted.Add(-1)
		}}
	default:
		refused = "too many from its address"
	}
	select {
	case b.telling <- struct{}{}:
		return &counted{Conn: nc, refused: refused, leave: func() { <-b.telling }}
	default:
		b.count.turnedAway.WithLabelValues(refused).Inc()
		_ = nc.Close()
		return nil
	}
}

// serve hands connections to the broker until the listener is closed.
func (l *listener) serve(b *Broker) {
	if l.kind == WebSocket || l.kind == SecureWS {
		l.serveWeb()
		return
	}
	for {
		nc, err := l.Accept()
		if err != nil {
			return
		}
		if l.kind == TLS {
			nc = tls.Server(nc, l.tls)
		}
		b.background(func() { b.serveConn(nc) })
	}
}

func (l *listener) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return
	default:
		close(l.closed)
	}
	if l.web != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = l.web.Shutdown(ctx)
		_ = l.web.Close()
	}
	_ = l.Listener.Close()
}

// A counted is a connection that counts against its address until it closes.
type counted struct {
	net.Conn
	refused string // why it only shall hear that there is no place; "" otherwise
	once    sync.Once
	leave   func()
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	c.once.Do(c.leave)
	return err
}

func (c *counted) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// descriptors is how many files the process may open.
func descriptors() int {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil || l.Cur > 1<<30 {
		return 1 << 30
	}
	return int(l.Cur)
}
