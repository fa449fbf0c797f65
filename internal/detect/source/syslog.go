package source

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// maxSyslogConnections bounds the open TCP connections: a device holds one,
	// and each costs a line's worth of memory.
	maxSyslogConnections = 256
	// syslogIdle is how long a connection may be silent before it is closed;
	// devices that log seldom open another one.
	syslogIdle = 10 * time.Minute
	// relistenEvery is how often an address that cannot be listened on is
	// tried again: an interface may come up later than the agent.
	relistenEvery = 2 * time.Second
	// receiveBuffer is how many bytes of datagrams the kernel is asked to hold.
	receiveBuffer = 4 << 20
	// maxTag is the longest program name that is taken for one.
	maxTag = 128
)

// syslog receives messages on one address.
type syslog struct {
	network, address string
	matched          []int // which entry of the spec it is
	gate             *gate
	o                Options
	counters

	mu    sync.Mutex
	bound string // the address in use
	texts map[string]string
}

// newSyslog reads "udp://ADDRESS" or "tcp://ADDRESS", where ADDRESS is an IP
// address and a port.
func newSyslog(spec string, index int, g *gate, o Options) (part, error) {
	u, err := url.Parse(spec)
	if err != nil || u.Scheme != "udp" && u.Scheme != "tcp" || u.Host == "" || u.Path != "" {
		return nil, fmt.Errorf("%w: syslog address %s is not udp://ADDRESS:PORT or tcp://ADDRESS:PORT", ErrSpec, quoted(spec))
	}
	if _, err := netip.ParseAddrPort(u.Host); err != nil {
		return nil, fmt.Errorf("%w: syslog address %s: %w", ErrSpec, quoted(spec), err)
	}
	return &syslog{network: u.Scheme, address: u.Host, matched: []int{index}, gate: g, o: o, texts: map[string]string{}}, nil
}

func (s *syslog) run(ctx context.Context) error {
	for warned := false; ; {
		var err error
		if s.network == "udp" {
			err = s.receive(ctx)
		} else {
			err = s.accept(ctx)
		}
		var handling *handlerError
		if errors.As(err, &handling) {
			return handling.err
		}
		if ctx.Err() != nil {
			return nil
		}
		s.failed(err)
		if !warned {
			warned = true
			s.o.Log.Warn("syslog receiver stopped, trying again", "address", s.network+"://"+s.address, "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(relistenEvery):
		}
	}
}

func (s *syslog) setBound(a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bound = ""
	if a != nil {
		s.bound = a.String()
	}
}

// receive takes datagrams, each one message.
func (s *syslog) receive(ctx context.Context) error {
	var config net.ListenConfig
	c, err := config.ListenPacket(ctx, "udp", s.address)
	if err != nil {
		return fmt.Errorf("listening for syslog: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		stop()
		_ = c.Close()
		s.setBound(nil)
	}()
	if u, ok := c.(*net.UDPConn); ok {
		_ = u.SetReadBuffer(receiveBuffer) // the kernel may give less
	}
	s.setBound(c.LocalAddr())
	stream := "udp:" + c.LocalAddr().String()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("receiving syslog: %w", err)
		}
		if err := s.hand(bytes.TrimRight(buf[:n], "\r\n\x00"), false, true, stream, hostOf(from)); err != nil {
			return err
		}
	}
}

// accept takes connections.
func (s *syslog) accept(ctx context.Context) error {
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("listening for syslog: %w", err)
	}
	group, running := errgroup.WithContext(ctx)
	group.SetLimit(maxSyslogConnections + 1)
	stop := context.AfterFunc(running, func() { _ = l.Close() })
	s.setBound(l.Addr())
	stream := "tcp:" + l.Addr().String()
	group.Go(func() error {
		for {
			c, err := l.Accept()
			if err != nil {
				return fmt.Errorf("accepting syslog connections: %w", err)
			}
			if !group.TryGo(func() error { return s.serve(running, c, stream) }) {
				s.failed(errors.New("too many syslog connections"))
				_ = c.Close()
			}
		}
	})
	err = group.Wait()
	stop()
	_ = l.Close()
	s.setBound(nil)
	return err
}

// serve reads one connection; only the handler's error is one.
func (s *syslog) serve(ctx context.Context, c net.Conn, stream string) error {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer func() {
		stop()
		_ = c.Close()
	}()
	r := bufio.NewReaderSize(c, MaxLine+16)
	from := hostOf(c.RemoteAddr())
	for {
		if err := c.SetReadDeadline(s.deadline()); err != nil {
			return nil
		}
		message, cut, err := readFrame(r)
		if len(message) > 0 {
			if err := s.hand(bytes.TrimRight(message, "\r\n\x00"), cut, false, stream, from); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the connection ended; a partial message is dropped
		}
		if r.Buffered() == 0 {
			continue
		}
	}
}

func (s *syslog) deadline() time.Time { return time.Now().Add(syslogIdle) }

// readFrame reads one message of a stream (RFC 6587): by its length, or to a
// newline.
func readFrame(r *bufio.Reader) (message []byte, cut bool, err error) {
	first, err := r.Peek(1)
	if err != nil {
		return nil, false, err
	}
	if first[0] < '1' || first[0] > '9' {
		line, err := r.ReadSlice('\n')
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, false, err
		}
		kept := bytes.Clone(line)
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		return kept, true, err
	}
	size := 0
	for range 10 {
		b, err := r.ReadByte()
		if err != nil {
			return nil, false, err
		}
		if b == ' ' {
			keep := min(size, MaxLine+1)
			message = make([]byte, keep)
			if _, err := io.ReadFull(r, message); err != nil {
				return nil, false, err
			}
			_, err := io.CopyN(io.Discard, r, int64(size-keep))
			return message, keep < size, err
		}
		if b < '0' || b > '9' {
			return nil, false, errors.New("a frame begins with its length")
		}
		size = size*10 + int(b-'0')
	}
	return nil, false, errors.New("a frame's length is too large")
}

func hostOf(a net.Addr) string {
	p, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return ""
	}
	return p.Addr().Unmap().WithZone("").String()
}

// hand gives one message to the handler.
func (s *syslog) hand(message []byte, cut, spoofable bool, stream, from string) error {
	m, ok := parseSyslog(message, s.o.Now())
	if !ok {
		s.dropped.Add(1)
		return nil
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if cut || len(m.text) > MaxLine {
		m.text = m.text[:min(len(m.text), MaxLine)]
		s.cut.Add(1)
	}
	line := Line{Text: m.text, Time: m.time, Tag: s.text(m.tag), Host: s.text(m.host), PID: m.pid, Spoofable: spoofable, Stream: stream, Matched: s.matched}
	if line.Host == "" {
		line.Host = from
	}
	if err := s.gate.handle(line); err != nil {
		return &handlerError{err: err}
	}
	s.read.Add(1)
	s.lastLine.Store(s.o.Now().UnixNano())
	return nil
}

// text shares strings. The caller holds the gate.
func (s *syslog) text(b []byte) string {
	if t, ok := s.texts[string(b)]; ok {
		return t
	}
	if len(s.texts) >= maxInterned {
		clear(s.texts)
	}
	t := string(b)
	s.texts[t] = t
	return t
}

func (s *syslog) position(*Position) {}

func (s *syslog) status(st *Status) {
	s.addTo(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bound != "" {
		st.Streams = append(st.Streams, Stream{Name: s.network + ":" + s.bound})
	}
}

// A syslogMessage is one message's content.
type syslogMessage struct {
	time            time.Time
	host, tag, text []byte
	pid             int
}

// parseSyslog reads a message of RFC 5424, of RFC 3164, or one of the many that
// are like the latter. Only one without anything to read is refused.
func parseSyslog(b []byte, now time.Time) (m syslogMessage, ok bool) {
	if b, ok = cutPriority(b); !ok || len(bytes.TrimSpace(b)) == 0 {
		return m, false
	}
	if rest, found := bytes.CutPrefix(b, []byte("1 ")); found {
		if m, ok := parse5424(rest); ok {
			return m, true
		}
	}
	return parse3164(b, now), true
}

// cutPriority removes "<N>", which may be missing.
func cutPriority(b []byte) ([]byte, bool) {
	if len(b) == 0 || b[0] != '<' {
		return b, len(b) > 0
	}
	end := bytes.IndexByte(b[:min(len(b), 5)], '>')
	if end < 2 {
		return nil, false
	}
	if v, err := strconv.ParseUint(string(b[1:end]), 10, 8); err != nil || v > 191 {
		return nil, false
	}
	return b[end+1:], true
}

// parse5424 reads TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA [MSG].
func parse5424(b []byte) (m syslogMessage, ok bool) {
	var head [5][]byte
	for i := range head {
		word, rest, found := bytes.Cut(b, []byte{' '})
		if !found || len(word) == 0 {
			return m, false
		}
		head[i], b = word, rest
		if string(word) == "-" {
			head[i] = nil
		}
	}
	if head[0] != nil {
		at, err := time.Parse(time.RFC3339Nano, string(head[0][:min(len(head[0]), 40)]))
		if err != nil {
			return m, false
		}
		m.time = at
	}
	if len(head[1]) > 255 || len(head[2]) > maxTag {
		return m, false
	}
	m.host, m.tag = head[1], head[2]
	m.pid = pidOf(head[3])
	if b, ok = cutStructured(b); !ok {
		return m, false
	}
	m.text = bytes.TrimPrefix(bytes.TrimPrefix(b, []byte{' '}), []byte("\xEF\xBB\xBF"))
	return m, true
}

// cutStructured removes the structured data.
func cutStructured(b []byte) ([]byte, bool) {
	if len(b) > 0 && b[0] == '-' {
		return b[1:], true
	}
	if len(b) == 0 || b[0] != '[' {
		return nil, false
	}
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && c == ']' && (i+1 == len(b) || b[i+1] != '['):
			return b[i+1:], true
		}
	}
	return nil, false
}

// parse3164 reads TIMESTAMP HOST TAG[PID]: MSG, of which everything but MSG
// may be missing.
func parse3164(b []byte, now time.Time) (m syslogMessage) {
	const stamp = len("Jan _2 15:04:05")
	timed := false
	if len(b) > stamp && b[stamp] == ' ' {
		if at, err := time.ParseInLocation("Jan _2 15:04:05", string(b[:stamp]), now.Location()); err == nil {
			at = at.AddDate(now.Year(), 0, 0)
			if at.After(now.Add(24 * time.Hour)) {
				at = at.AddDate(-1, 0, 0) // last year's
			}
			m.time, b, timed = at, b[stamp+1:], true
		}
	}
	if word, rest, ok := bytes.Cut(b, []byte{' '}); ok && !timed && len(word) <= 40 {
		if at, err := time.Parse(time.RFC3339Nano, string(word)); err == nil {
			m.time, b, timed = at, rest, true
		}
	}
	if word, rest, ok := bytes.Cut(b, []byte{' '}); ok && timed && len(word) <= 255 && !isTag(word) {
		m.host, b = word, rest
	}
	if word, rest, ok := bytes.Cut(b, []byte{' '}); ok && isTag(word) {
		word = word[:len(word)-1]
		if open := bytes.IndexByte(word, '['); open > 0 && word[len(word)-1] == ']' {
			m.pid = pidOf(word[open+1 : len(word)-1])
			word = word[:open]
		}
		m.tag, b = word, rest
	}
	m.text = b
	return m
}

// isTag reports whether a word is "TAG:" or "TAG[PID]:".
func isTag(word []byte) bool {
	return len(word) > 1 && len(word) <= maxTag && word[len(word)-1] == ':' && word[0] != '['
}

func pidOf(b []byte) int {
	if v, ok := number(b); ok && v < 1<<31 {
		return int(v)
	}
	return 0
}
