// Package fail2ban answers fail2ban's clients on a unix socket as its server
// does, so that fail2ban-client, exporters, panels and scripts see this node's
// topics as jails. docs/compat/fail2ban.md has the commands.
//
// A request is a pickle and an end mark, the answer likewise. Of Python's
// pickle only lists of words are read ([pickle.Parse]).
package fail2ban

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"banmesh/internal/compat/pickle"

	"golang.org/x/sys/unix"
)

// The bounds of the socket.
const (
	maxConnections = 64
	maxClients     = 256 // users that are remembered
	maxIdle        = time.Minute
	maxWrite       = 10 * time.Second
)

var (
	endMark   = []byte("<F2B_END_COMMAND>")
	closeMark = []byte("<F2B_CLOSE_COMMAND>")
)

// Options are the inputs of [New]. All but Now are required.
type Options struct {
	Node Node
	Log  *slog.Logger
	Now  func() time.Time // nil means [time.Now]
}

// A Server answers fail2ban's clients.
type Server struct {
	o     Options
	slots chan struct{}
	// answering is held for one answer at a time: a jail may have a million bans.
	answering sync.Mutex

	mu      sync.Mutex
	clients map[uint32]*Client
}

// Client is a user of this machine whose programs asked.
type Client struct {
	User  uint32
	Last  time.Time
	Asked uint64 // commands
}

// New makes a server.
func New(o Options) *Server {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Server{o: o, slots: make(chan struct{}, maxConnections), clients: map[uint32]*Client{}}
}

// Clients lists the users whose programs asked since the start, by number.
func (s *Server) Clients() (list []Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clients {
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b Client) int { return cmp.Compare(a.User, b.User) })
	return list
}

// Serve answers on l until ctx ends, and closes it. Who may connect is decided
// by the socket's mode.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accepting fail2ban's clients: %w", err)
		}
		select {
		case s.slots <- struct{}{}:
		default:
			conn.Close() // its client says that nobody answers, and may ask again
			continue
		}
		all.Go(func() {
			defer func() { <-s.slots }()
			defer conn.Close()
			defer context.AfterFunc(ctx, func() { conn.Close() })()
			if err := s.converse(ctx, conn); err != nil {
				s.o.Log.Debug("a fail2ban client's connection ended", slog.Any("error", err))
			}
		})
	}
}

// converse answers one connection's requests until it ends.
func (s *Server) converse(ctx context.Context, conn net.Conn) error {
	user := userOf(conn)
	var rest []byte
	for {
		if err := conn.SetReadDeadline(time.Now().Add(maxIdle)); err != nil {
			return err
		}
		request, after, err := readRequest(conn, rest)
		rest = after
		switch {
		case errors.Is(err, io.EOF), err == nil && bytes.Equal(request, closeMark):
			return nil
		case errors.Is(err, pickle.ErrForm):
			return errors.Join(err, s.send(conn, pickle.Tuple{1, fault(classValue, "the request has more than 65536 bytes")}))
		case err != nil:
			return err
		}
		if err := s.reply(ctx, conn, user, request); err != nil {
			return err
		}
	}
}

// readRequest reads until the end mark; before and after are bytes beyond one.
func readRequest(r io.Reader, before []byte) (request, after []byte, err error) {
	b := before
	for chunk := make([]byte, 4096); ; {
		if i := bytes.Index(b, endMark); i >= 0 {
			return b[:i], b[i+len(endMark):], nil
		}
		if len(b) > pickle.MaxRequest+len(endMark) {
			return nil, nil, pickle.ErrForm
		}
		n, err := r.Read(chunk)
		if b = append(b, chunk[:n]...); n == 0 && err != nil {
			return nil, nil, err
		}
	}
}

func (s *Server) reply(ctx context.Context, conn net.Conn, user uint32, request []byte) error {
	s.answering.Lock()
	defer s.answering.Unlock()
	words, err := pickle.Parse(request)
	if err != nil {
		return s.send(conn, pickle.Tuple{1, fault(classValue, "%v", err)})
	}
	s.note(user)
	v, err := s.answer(ctx, words)
	if err == nil {
		return s.send(conn, pickle.Tuple{0, v})
	}
	e, ok := errors.AsType[*pickle.Error](err)
	if !ok {
		e = fault(classException, "%v", err)
	}
	return s.send(conn, pickle.Tuple{1, e})
}

func (s *Server) send(conn net.Conn, v any) error {
	if err := conn.SetWriteDeadline(time.Now().Add(maxWrite)); err != nil {
		return err
	}
	_, err := conn.Write(append(pickle.Append(nil, v), endMark...))
	return err
}

// note counts a command of a user.
func (s *Server) note(user uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok := s.clients[user]
	if !ok {
		if len(s.clients) >= maxClients {
			return
		}
		c = &Client{User: user}
		s.clients[user] = c
	}
	c.Last = s.o.Now()
	c.Asked++
}

// userOf asks the kernel who opened the other end.
func userOf(conn net.Conn) (uid uint32) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = cred.Uid
		}
	})
	return uid
}
