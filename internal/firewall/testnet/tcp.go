package testnet

import (
	"net"
	"testing"
	"time"
)

// Dial connects from the host and gives both ends. It waits for a SYN or two to
// be sent again, since a fresh link can lose the first.
func (h *Host) Dial(from, to string, l net.Listener) (client, server net.Conn, err error) {
	h.t.Helper()
	return h.dialFor(5*time.Second, from, to, l)
}

// Refused says whether a handshake comes to nothing, in less time than a SYN is
// sent again.
func (h *Host) Refused(from, to string, l net.Listener) bool {
	h.t.Helper()
	_, _, err := h.dialFor(400*time.Millisecond, from, to, l)
	return err != nil
}

func (h *Host) dialFor(timeout time.Duration, from, to string, l net.Listener) (client, server net.Conn, err error) {
	h.t.Helper()
	h.Do(func() {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		client, err = d.DialContext(Context(h.t), "tcp", to)
	})
	if err != nil {
		return nil, nil, err
	}
	_ = l.(*net.TCPListener).SetDeadline(time.Now().Add(5 * time.Second))
	if server, err = l.Accept(); err != nil {
		return nil, nil, err
	}
	h.t.Cleanup(func() { _ = client.Close(); _ = server.Close() })
	return client, server, nil
}

// ListenTCP listens here until the test ends.
func ListenTCP(t testing.TB, addr string) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(Context(t), "tcp", addr)
	Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}
