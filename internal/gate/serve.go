package gate

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readTimeout bounds how long a request may take to come, and how long a
	// caller may take to hang up once it has its answer. It is on this machine.
	readTimeout = time.Second
	// stopTimeout is how long Run waits for calls under way: the slowest
	// request and the chained webhook behind it.
	stopTimeout = 5 * time.Second
	// maxRequest bounds a request with its header.
	maxRequest = 16<<10 + maxBody
	// peekSize holds an orchestrator's whole call, which has some 250 bytes.
	peekSize = 4 << 10
	// maxCalls bounds the calls under way: a descriptor and some 10 kB each.
	maxCalls = 2048
)

// Options configure [Gate.Run].
type Options struct {
	// File is the list's file.
	File string
	// Socket takes the orchestrator's calls.
	Socket Socket
	// Service is the service manager; nil is none.
	Service *Service
}

// Run follows the file and answers calls until ctx ends; every call that it
// accepted is answered. It closes the socket.
//
// Every answer closes its connection: one that stays open for the next call
// would break that one in the moment in which the gate is replaced, and the
// orchestrator does not try again. A call is read without taking its bytes out of
// the socket, and systemd keeps a copy of the socket until it is answered. So the
// next process answers a call that was accepted by one that was killed.
func (g *Gate) Run(ctx context.Context, o Options) error {
	g.inherited = o.Socket.Inherited
	var parts sync.WaitGroup
	defer parts.Wait()
	defer g.http.CloseIdleConnections()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	first := make(chan struct{})
	parts.Go(func() { g.follow(ctx, o.File, first) })
	early := time.NewTimer(firstLook)
	defer early.Stop()
	select {
	case <-first:
	case <-early.C:
	}
	s := &server{gate: g, service: o.Service, slots: make(chan struct{}, maxCalls), open: map[net.Conn]bool{}}
	for _, call := range o.Socket.Calls {
		s.begin(call, true)
	}
	o.Service.Notify("READY=1")
	parts.Go(func() { s.watchdog(ctx, o.Socket.Listener.Addr().String()) })
	// The package net lets nobody read its listeners in the raw way.
	socket, err := o.Socket.Listener.File()
	o.Socket.Listener.Close()
	if err != nil {
		return fmt.Errorf("taking the gate's socket: %w", err)
	}
	over := make(chan struct{})
	go func() { err = s.accept(ctx, socket); close(over) }()
	select {
	case <-over:
	case <-ctx.Done():
		o.Service.Notify("STOPPING=1")
	}
	socket.Close()
	<-over
	cut := time.AfterFunc(stopTimeout, s.cut)
	defer cut.Stop()
	s.calls.Wait()
	return err
}

// server answers connections.
type server struct {
	gate    *Gate
	service *Service
	calls   sync.WaitGroup
	slots   chan struct{}

	mu     sync.Mutex
	open   map[net.Conn]bool
	served uint64 // calls that were answered
}

// accept begins calls until ctx ends and the socket closes.
func (s *server) accept(ctx context.Context, l *os.File) error {
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("taking the orchestrator's calls: %w", err)
	}
	for ctx.Err() == nil {
		conn, err := s.acceptOne(raw)
		switch {
		case err == nil && conn != nil:
			s.begin(conn, false)
		case err == nil:
			// It was no TCP connection any more.
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ECONNABORTED):
			// Calls under way give some back; none waits longer than readTimeout.
			t := time.NewTimer(5 * time.Millisecond)
			<-t.C
		default:
			return fmt.Errorf("taking the orchestrator's calls: %w", err)
		}
	}
	return nil
}

// acceptOne takes a call. The service manager gets its copy with the very next
// system call: one that is accepted and not yet kept is lost with the process.
func (s *server) acceptOne(raw syscall.RawConn) (*net.TCPConn, error) {
	fd, errno := -1, error(nil)
	err := raw.Read(func(l uintptr) bool {
		fd, _, errno = unix.Accept4(int(l), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if errno == nil {
			s.service.Keep(fd)
		}
		return errno != unix.EAGAIN && errno != unix.EINTR
	})
	if err = errors.Join(err, errno); err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), callName)
	defer f.Close() // the connection has a copy
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	tcp, _ := conn.(*net.TCPConn)
	return tcp, nil
}

// begin answers a connection in a goroutine of its own. left says that another
// process accepted it.
func (s *server) begin(conn *net.TCPConn, left bool) {
	s.slots <- struct{}{}
	s.mu.Lock()
	s.open[conn] = true
	s.mu.Unlock()
	s.calls.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.open, conn)
			s.mu.Unlock()
			<-s.slots
		}()
		s.serve(conn, left)
	})
}

// cut ends the calls that are still under way.
func (s *server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

// serve answers one call and closes its connection.
func (s *server) serve(conn *net.TCPConn, left bool) {
	defer hangUp(conn)
	_ = conn.SetReadDeadline(time.Now().Add(readTimeout))
	method, path, body, err := readCall(conn)
	if err != nil {
		if !left { // one that was answered has nothing more to say
			s.gate.tally.stray()
		}
		return
	}
	a := s.gate.Answer(context.Background(), method, path, body)
	_ = conn.SetWriteDeadline(time.Now().Add(readTimeout))
	if _, err := conn.Write(a.encode(method)); err == nil {
		s.mu.Lock()
		s.served++
		s.mu.Unlock()
	}
}

// hangUp ends a connection whose answer is written. Bytes that are left unread
// would make the kernel tear the answer away, and systemd gives its copy back
// only when both directions are shut.
func hangUp(conn *net.TCPConn) {
	_ = conn.CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(readTimeout))
	_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1<<20))
	_ = conn.CloseRead()
	conn.Close()
}

// encode gives the bytes of an answer.
func (a Answer) encode(method string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: %d\r\n", a.Status, http.StatusText(a.Status), len(a.Body))
	if a.Type != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", strings.NewReplacer("\r", "", "\n", "").Replace(a.Type))
	}
	if a.Status == http.StatusMethodNotAllowed {
		b.WriteString("Allow: POST\r\n")
	}
	b.WriteString("\r\n")
	if method != http.MethodHead {
		b.Write(a.Body)
	}
	return b.Bytes()
}

// readCall reads a request: as a rule without taking its bytes out of the
// socket. A body beyond maxBody is given one byte too long.
func readCall(conn *net.TCPConn) (method, path string, body []byte, err error) {
	for had := 0; had < peekSize; {
		peeked, err := peek(conn, had)
		if err != nil {
			return "", "", nil, err
		}
		method, path, body, err = parseCall(bytes.NewReader(peeked))
		if err == nil {
			return method, path, body, nil
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			break
		}
		had = len(peeked) // some callers send header and body apart
	}
	// It is longer, or no request: read it in the common way.
	return parseCall(io.LimitReader(conn, maxRequest))
}

func parseCall(r io.Reader) (method, path string, body []byte, err error) {
	req, err := http.ReadRequest(bufio.NewReader(r))
	if err != nil {
		return "", "", nil, fmt.Errorf("reading a request: %w", err)
	}
	if req.ContentLength > maxBody {
		return req.Method, req.URL.Path, make([]byte, maxBody+1), nil
	}
	body, err = io.ReadAll(io.LimitReader(req.Body, maxBody+1))
	if err != nil {
		return "", "", nil, fmt.Errorf("reading a request: %w", err)
	}
	return req.Method, req.URL.Path, body, nil
}

// peek waits until there are more than so many bytes and gives a copy of the first;
// they stay in the socket.
func peek(conn *net.TCPConn, had int) ([]byte, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	b := make([]byte, peekSize)
	n, errno := 0, error(nil)
	err = raw.Read(func(fd uintptr) bool {
		n, _, errno = unix.Recvfrom(int(fd), b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return errno == nil && (n == 0 || n > had) || errno != nil && errno != unix.EAGAIN && errno != unix.EINTR
	})
	switch {
	case err != nil:
		return nil, err
	case errno != nil:
		return nil, errno
	case n == 0:
		return nil, io.EOF
	}
	return b[:n], nil
}

// watchdog tells the service manager that calls are answered: it asks the gate
// itself where nobody else did.
func (s *server) watchdog(ctx context.Context, address string) {
	interval := s.service.Watchdog()
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 4)
	defer tick.Stop()
	var last uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		served := s.served
		s.mu.Unlock()
		if served == last && probe(ctx, address, s.gate.state.Load().list.Path, interval/2) != nil {
			continue // the service manager replaces us
		}
		last = served
		s.service.Notify("WATCHDOG=1")
	}
}

// probe calls the gate as the orchestrator does.
func probe(ctx context.Context, address, path string, within time.Duration) error {
	d := net.Dialer{Timeout: within}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(within))
	if _, err := io.WriteString(conn, "HEAD /"+path+" HTTP/1.1\r\nHost: gate\r\n\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	if !strings.HasPrefix(line, "HTTP/1.1 "+strconv.Itoa(http.StatusOK)) {
		return fmt.Errorf("the gate answered %.32q", line)
	}
	return nil
}
