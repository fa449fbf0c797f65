// Package serving answers other programs over HTTP: those that are slow, idle or
// guess credentials cost bounded memory and keep nobody else waiting.
package serving

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// DefaultConns is twice the thousand bouncers that one node is made for.
	DefaultConns = 2048
	// DefaultBody bounds a request's body, in bytes.
	DefaultBody = 4 << 20
	// maxHeader bounds a request's header, in bytes: the longest are a token of a
	// kilobyte and a query of some addresses.
	maxHeader = 16 << 10

	headerTimeout = 5 * time.Second
	readTimeout   = time.Minute
	writeTimeout  = 2 * time.Minute
	idleTimeout   = time.Minute
)

// Options are the bounds of [Serve].
type Options struct {
	Log *slog.Logger
	// MaxConns bounds the connections; 0 means [DefaultConns]. One more ends the one
	// that has asked nothing for longest.
	MaxConns int
	// MaxBody bounds a request's body, in bytes; 0 means [DefaultBody].
	MaxBody int64
}

// Serve answers on l until ctx ends.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, o Options) error {
	if o.MaxConns == 0 {
		o.MaxConns = DefaultConns
	}
	if o.MaxBody == 0 {
		o.MaxBody = DefaultBody
	}
	held := &conns{most: o.MaxConns, list: map[net.Conn]held{}}
	s := &http.Server{
		Handler:           http.MaxBytesHandler(handler, o.MaxBody),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnState:         held.changed,
	}
	failed := make(chan error, 1)
	go func() { failed <- s.Serve(l) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if s.Shutdown(grace) != nil {
		s.Close()
	}
	<-failed
	return nil
}

// conns are the open connections. Of more than most the one is ended that can
// best be spared: one that has not finished its first request's header, then one
// that is idle, then one whose answer takes longest; of those the oldest. A
// program that asks at once is therefore answered however many others only
// connect.
type conns struct {
	most int

	mu   sync.Mutex
	list map[net.Conn]held
}

type held struct {
	state http.ConnState
	since time.Time
}

// changed is a server's ConnState.
func (c *conns) changed(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if state == http.StateClosed || state == http.StateHijacked {
		delete(c.list, conn)
		return
	}
	if state == http.StateNew && len(c.list) >= c.most {
		c.spare()
	}
	c.list[conn] = held{state, time.Now()}
}

// spare ends one connection; c.mu is held.
func (c *conns) spare() {
	rank := func(s http.ConnState) int {
		switch s {
		case http.StateNew:
			return 0
		case http.StateIdle:
			return 1
		default:
			return 2
		}
	}
	var victim net.Conn
	var worst held
	for conn, h := range c.list {
		a, b := rank(h.state), rank(worst.state)
		if victim == nil || a < b || a == b && h.since.Before(worst.since) {
			victim, worst = conn, h
		}
	}
	if victim == nil {
		return
	}
	delete(c.list, victim)
	// A connection with TLS would first say farewell, and wait for it.
	if t, ok := victim.(*tls.Conn); ok {
		victim = t.NetConn()
	}
	victim.Close()
}
