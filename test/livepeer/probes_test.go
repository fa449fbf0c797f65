package livepeer

import (
	"bytes"
	cryptotls "crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hello builds a ClientHello of a version with cipher suites and extensions.
func hello(record, version uint16, ciphers, extensions []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, version)
	body = append(append(body, bytes.Repeat([]byte("A"), 32)...), 0)
	body = append(binary.BigEndian.AppendUint16(body, uint16(len(ciphers))), ciphers...)
	body = append(body, 1, 0)
	if len(extensions) > 0 {
		body = append(binary.BigEndian.AppendUint16(body, uint16(len(extensions))), extensions...)
	}
	message := append([]byte{1, 0}, binary.BigEndian.AppendUint16(nil, uint16(len(body)))...)
	message = append(message, body...)
	out := append([]byte{0x16}, binary.BigEndian.AppendUint16(nil, record)...)
	return append(binary.BigEndian.AppendUint16(out, uint16(len(message))), message...)
}

// lines collects a server's log.
type lines struct {
	mu  sync.Mutex
	all []string
	new chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, strings.TrimSuffix(string(b), "\n"))
	select {
	case l.new <- struct{}{}:
	default:
	}
	return len(b), nil
}

// TestThreeStrongProbesBanAndNoCustomerIs lets clients of every kind come three
// times to Go's own HTTP server over TLS, each kind from an address of its own, and
// reads the lines that it logs itself.
func TestThreeStrongProbesBanAndNoCustomerIs(t *testing.T) {
	t.Parallel()
	modern := []byte{0xc0, 0x2f, 0xc0, 0x2b, 0, 0x2f}
	groups := []byte{0, 10, 0, 4, 0, 2, 0, 0x1d, 0, 13, 0, 6, 0, 4, 4, 1, 4, 3}
	raw := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(b)
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		}
	}
	reset := func(b []byte) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = c.Write(b)
			_ = c.(*net.TCPConn).SetLinger(0)
		}
	}
	secure := func(o *cryptotls.Config, b string) func(net.Conn) {
		return func(c net.Conn) {
			t := cryptotls.Client(c, o)
			if t.Handshake() == nil {
				_, _ = io.WriteString(t, b)
				_, _ = io.CopyN(io.Discard, t, 1)
			}
		}
	}
	trusting := &cryptotls.Config{InsecureSkipVerify: true} //nolint:gosec // as gateways do
	kinds := []struct {
		name   string
		banned bool
		come   func(net.Conn)
	}{
		{"an SSH banner", true, raw([]byte("SSH-2.0-Go\r\n"))},
		{"SOCKS", true, raw([]byte{5, 1, 0, 1, 2, 3, 4})},
		{"a remote desktop", true, raw([]byte("\x03\x00\x00\x13\x0e\xe0\x00\x00\x00\x00\x00\x01\x00\x08\x00\x03\x00\x00\x00"))},
		{"an SSLv2 hello", true, raw(append([]byte("\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"), bytes.Repeat([]byte("\x01\x00\x80"), 12)...))},
		{"a record that is too long", true, raw(append([]byte("\x16\x03\x01\xff\xff"), bytes.Repeat([]byte("x"), 100)...))},
		// Weaker ones need more than three.
		{"TLS 1.0", false, raw(hello(0x0301, 0x0301, []byte{0, 0x2f}, nil))},
		{"no cipher in common", false, raw(hello(0x0301, 0x0303, []byte{0, 5}, groups))},
		{"half a hello", false, raw(hello(0x0301, 0x0303, modern, groups)[:20])},
		// Monitors, and gateways on a bad day.
		{"a TCP monitor", false, raw(nil)},
		{"a TCP monitor that resets", false, reset(nil)},
		{"an HTTP monitor", false, raw([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))},
		{"an HTTPS monitor", false, secure(trusting, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")},
		{"a client that wants another certificate", false, secure(&cryptotls.Config{ServerName: "example.org"}, "")},
		{"a gateway that gives up", false, reset(hello(0x0301, 0x0303, modern, groups)[:1])},
	}
	l := &lines{new: make(chan struct{}, 1)}
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(l, "", 0)
	s.TLS = &cryptotls.Config{MinVersion: cryptotls.VersionTLS12}
	s.StartTLS()
	address := func(i int) net.IP { return net.IPv4(127, 7, 0, byte(i+1)) }
	for i, k := range kinds {
		for range 3 {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: address(i)}, Timeout: 20 * time.Second}
			c, err := d.DialContext(t.Context(), "tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(20 * time.Second))
			k.come(c)
			c.Close()
		}
	}
	// Each kind but the HTTPS monitor leaves three lines, some once their
	// connection's end was noticed.
	for deadline := time.After(30 * time.Second); ; {
		l.mu.Lock()
		n := len(l.all)
		l.mu.Unlock()
		if n >= 3*(len(kinds)-1) {
			break
		}
		select {
		case <-l.new:
		case <-deadline:
			t.Fatalf("the server logged %d lines:\n%s", n, strings.Join(l.all, "\n"))
		}
	}
	s.Close()
	// Minutes apart, as monitors come, and from public addresses.
	at := time.Date(2026, 11, 21, 8, 0, 0, 0, time.UTC)
	peer := regexp.MustCompile(`\b127\.7\.0\.`)
	var log []string
	for i, line := range l.all {
		log = append(log, at.Add(time.Duration(i)*20*time.Second).Format("2006/01/02 15:04:05 ")+peer.ReplaceAllString(line, "203.0.113."))
	}
	got := replay(t, topic(t, t.TempDir(), "livepeer"), log...)
	for i, k := range kinds {
		who := fmt.Sprintf("203.0.113.%d scan for 1h0m0s", i+1)
		if slices.Contains(got, who) != k.banned {
			t.Errorf("%s: banned is not %v; its lines:\n%s", k.name, k.banned, strings.Join(slices.DeleteFunc(slices.Clone(log), func(s string) bool { return !strings.Contains(s, fmt.Sprintf("203.0.113.%d:", i+1)) }), "\n"))
		}
	}
}
