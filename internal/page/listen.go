package page

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"time"

	"banmesh/internal/control"
)

// listen opens the socket of the page.
func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if filepath.IsAbs(s.o.Listen) {
		l, err := control.Listen(s.o.Listen)
		if err != nil {
			return nil, fmt.Errorf("showing the page: %w", err)
		}
		return l, nil
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.o.Listen)
	if err != nil {
		return nil, fmt.Errorf("showing the page: %w", err)
	}
	if s.o.Certificate == "" {
		return l, nil
	}
	files := &certificate{cert: s.o.Certificate, key: s.o.Key}
	if _, err := files.get(nil); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: files.get, NextProtos: []string{"h2", "http/1.1"}}), nil
}

// serve answers on l until ctx ends, and closes it.
func (s *Server) serve(ctx context.Context, l net.Listener, node *control.Client) error {
	s.node = node
	s.doors = newDoors(s.URL())
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       time.Minute,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var parts sync.WaitGroup
	running, stop := context.WithCancel(ctx)
	parts.Go(func() { s.hub.run(running, node) })
	parts.Go(func() { s.counts.run(running, node) })
	over := make(chan error, 1)
	go func() { over <- server.Serve(limit(l, maxConns)) }()
	var err error
	select {
	case err = <-over:
		err = fmt.Errorf("showing the page: %w", err)
	case <-ctx.Done():
		server.Close() // nobody loses anything: forms are answered when they are done
		<-over
	}
	stop()
	parts.Wait()
	return err
}

// limit closes connections beyond a number at once.
func limit(l net.Listener, most int) net.Listener {
	return &limited{Listener: l, room: make(chan struct{}, most)}
}

type limited struct {
	net.Listener
	room chan struct{}
}

// Accept implements [net.Listener].
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.room <- struct{}{}:
			return &counted{Conn: c, done: sync.OnceFunc(func() { <-l.room })}, nil
		default:
			c.Close()
		}
	}
}

type counted struct {
	net.Conn
	done func()
}

// Close implements [net.Conn].
func (c *counted) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// certificate is a pair of files, read again when one of them changes.
type certificate struct {
	cert, key string

	mu   sync.Mutex
	at   [2]time.Time
	pair *tls.Certificate
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var at [2]time.Time
	for i, name := range []string{c.cert, c.key} {
		if info, err := statFile(name); err == nil {
			at[i] = info.ModTime()
		}
	}
	if c.pair != nil && at == c.at {
		return c.pair, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		if c.pair != nil && !errors.Is(err, fs.ErrNotExist) {
			return c.pair, nil // one of the two is being replaced
		}
		return nil, fmt.Errorf("reading the page's certificate: %w", err)
	}
	c.pair, c.at = &pair, at
	return c.pair, nil
}
