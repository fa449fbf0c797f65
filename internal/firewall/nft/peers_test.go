package nft

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

// remembering gives an enforcer that remembers the peers of ports 22 and 23.
func remembering(t testing.TB) *Firewall {
	ctx := testnet.Context(t)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{
		{Topic: "sshd", Ports: []uint16{22, 23}, Remember: time.Hour},
		{Topic: "dns", Ports: []uint16{53}, Protocols: []string{"udp"}, Remember: time.Hour},
		{Topic: "web", Ports: []uint16{80}},
	}}))
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	return n
}

// sends makes sure that the other end has so many bytes, so the kernel has seen
// them.
func sends(t *testing.T, from, to net.Conn, size int) {
	t.Helper()
	go func() { _, _ = from.Write(make([]byte, size)) }()
	_ = to.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(to, make([]byte, size)); err != nil {
		t.Fatal(err)
	}
}

func localOf(c net.Conn) netip.AddrPort {
	return c.LocalAddr().(*net.TCPAddr).AddrPort()
}

func TestTheKernelRemembersConnectionsAndTheirBytes(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "10.9.0.3/24", "2001:db8:9::2/64"})
	l := testnet.ListenTCP(t, "[::]:22")
	n := remembering(t)
	if s, err := n.Since(ctx, "sshd"); err != nil || s.Any {
		t.Errorf("before anybody came: %+v, %v", s, err)
	}
	for _, v := range []struct{ from, to string }{{"10.9.0.2", "10.9.0.1:22"}, {"2001:db8:9::2", "[2001:db8:9::1]:22"}} {
		addr := netip.MustParseAddr(v.from)
		if got, err := n.Address(ctx, "sshd", addr); err != nil || got.Seen {
			t.Errorf("%s before: %+v, %v", v.from, got, err)
		}
		// A download first, then something small: each has its own size.
		began := time.Now()
		big, server, err := h.Dial(v.from, v.to, l)
		testnet.Must(t, err)
		sends(t, big, server, 300_000)
		small, server, err := h.Dial(v.from, v.to, l)
		testnet.Must(t, err)
		sends(t, small, server, 500)
		for _, c := range []struct {
			conn        net.Conn
			least, most uint64
		}{{big, 300_000, 400_000}, {small, 500, 800}} {
			got, err := n.Connection(ctx, "sshd", localOf(c.conn))
			if err != nil || !got.Seen || got.Bytes < c.least || got.Bytes > c.most || got.Port != localOf(c.conn).Port() {
				t.Errorf("%s: %+v, %v; want %d to %d bytes", v.from, got, err, c.least, c.most)
			}
			if got.Last.Before(began.Add(-time.Second)) || got.Last.After(time.Now().Add(time.Second)) {
				t.Errorf("%s: last packet at %v, want about %v", v.from, got.Last, began)
			}
		}
		if got, err := n.Address(ctx, "sshd", addr); err != nil || !got.Seen || got.Bytes < 300_500 || got.Bytes > 401_000 {
			t.Errorf("%s in all: %+v, %v", v.from, got, err)
		}
		all, err := n.Connections(ctx, "sshd", addr)
		if err != nil || len(all) != 2 || all[0].Bytes+all[1].Bytes < 300_500 || min(all[0].Bytes, all[1].Bytes) > 800 {
			t.Errorf("%s: %+v, %v", v.from, all, err)
		}
		other := netip.AddrPortFrom(addr, localOf(small).Port()^1)
		if got, err := n.Connection(ctx, "sshd", other); err != nil || got != (firewall.Trace{}) {
			t.Errorf("%s, which is nobody's: %+v, %v", other, got, err)
		}
		// Closed, it is still remembered.
		testnet.Must(t, small.Close())
		if got, err := n.Connection(ctx, "sshd", localOf(small)); err != nil || !got.Seen {
			t.Errorf("%s closed: %+v, %v", v.from, got, err)
		}
	}
	if s, err := n.Since(ctx, "sshd"); err != nil || !s.Any || s.Begun.After(time.Now()) || time.Since(s.Begun) > time.Minute {
		t.Errorf("it remembers since %+v, %v", s, err)
	}
	// A refused connection, whose peer sends nothing but a SYN, proves nothing.
	h.Do(func() {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("10.9.0.3")}}
		if c, err := d.Dial("tcp", "10.9.0.1:23"); err == nil {
			c.Close()
			t.Error("nobody listens there")
		}
	})
	if got, err := n.Address(ctx, "sshd", netip.MustParseAddr("10.9.0.3")); err != nil || got.Seen {
		t.Errorf("a refused peer: %+v, %v", got, err)
	}
	for _, topic := range []ban.Topic{"web", "dns", "nobody"} {
		_, err1 := n.Connection(ctx, topic, netip.MustParseAddrPort("10.9.0.2:5000"))
		_, err2 := n.Address(ctx, topic, netip.MustParseAddr("10.9.0.2"))
		_, err3 := n.Connections(ctx, topic, netip.MustParseAddr("10.9.0.2"))
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, firewall.ErrNotRemembered) {
				t.Errorf("%s: %v", topic, err)
			}
		}
	}
	// The next process knows them too, and the table is as it was.
	since, err := n.Since(ctx, "sshd")
	testnet.Must(t, err)
	testnet.Must(t, n.Close())
	n = remembering(t)
	if s, err := n.Since(ctx, "sshd"); err != nil || !s.Any || s.Begun.Sub(since.Begun).Abs() > time.Second {
		t.Errorf("a restart changes since when it remembers: %+v, %v; before %v", s, err, since)
	}
	if got, err := n.Address(ctx, "sshd", netip.MustParseAddr("10.9.0.2")); err != nil || got.Bytes < 300_500 {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	if d, err := n.Check(ctx); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	// Without the table nobody knows anything, which is not "no".
	testnet.Run(t, "nft", "delete", "table", "inet", "banmesh")
	clear(n.memory.present) // as if a second had passed
	if got, err := n.Address(ctx, "sshd", netip.MustParseAddr("10.9.0.2")); !errors.Is(err, firewall.ErrNotRemembered) {
		t.Errorf("without a table: %+v, %v", got, err)
	}
}

func TestAFullMemorySaysSo(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.3/24"})
	l := testnet.ListenTCP(t, "10.9.0.1:22")
	n := remembering(t)
	first, server, err := h.Dial("10.9.0.2", "10.9.0.1:22", l)
	testnet.Must(t, err)
	var b strings.Builder
	b.WriteString("add element inet banmesh conns_sshd_4 {")
	for i := range firewall.MaxTraces - 1 {
		fmt.Fprintf(&b, " 198.18.%d.%d . 99,", i>>8, i&255)
	}
	b.WriteString("}")
	testnet.Feed(t, b.String(), "nft", "-f", "-")
	if got, err := n.Forgotten(ctx, "sshd"); err != nil || got != 0 {
		t.Errorf("forgotten while there is room: %d, %v", got, err)
	}
	late, _, err := h.Dial("10.9.0.3", "10.9.0.1:22", l)
	testnet.Must(t, err)
	if got, err := n.Connection(ctx, "sshd", localOf(late)); err != nil || got.Seen {
		t.Errorf("beyond the limit: %+v, %v", got, err)
	}
	if got, err := n.Forgotten(ctx, "sshd"); err != nil || got == 0 {
		t.Errorf("nobody is told: %d, %v", got, err)
	}
	// Who is remembered stays so.
	sends(t, first, server, 1_000)
	if got, err := n.Connection(ctx, "sshd", localOf(first)); err != nil || got.Bytes < 1_000 {
		t.Errorf("who was there before: %+v, %v", got, err)
	}
}

// One source cannot make the kernel forget the connections of all others, nor
// hide its own.
func TestNobodyFillsTheMemoryAlone(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	for _, v := range []struct{ near, to, flood, same, other string }{
		{"10.9.0.1/24", "10.9.0.1:22", "10.9.0.2", "10.9.0.2", "10.9.0.3"},
		{"2001:db8::1/32", "[2001:db8::1]:22", "2001:db8:9::2", "2001:db8:9:77::2", "2001:db8:10::3"},
	} {
		bits := v.near[strings.Index(v.near, "/"):]
		h := testnet.Attach(t, "wan"+bits[1:], []string{v.near}, []string{v.flood + bits, v.other + bits})
		l := testnet.ListenTCP(t, v.to)
		n := remembering(t)
		var first, last net.Conn
		for i := range firewall.Share + 20 {
			c, server, err := h.Dial(v.flood, v.to, l)
			testnet.Must(t, err)
			if last = c; i == 0 {
				first = c
			}
			if i > 0 && i < firewall.Share+19 {
				_, _ = c.Close(), server.Close()
			}
		}
		if got, err := n.Connection(ctx, "sshd", localOf(first)); err != nil || !got.Seen {
			t.Errorf("%s, its first connection: %+v, %v", v.flood, got, err)
		}
		if got, err := n.Connection(ctx, "sshd", localOf(last)); !errors.Is(err, firewall.ErrNotRemembered) || got.Seen {
			t.Errorf("%s, beyond its share: %+v, %v", v.flood, got, err)
		}
		if got, err := n.Address(ctx, "sshd", netip.MustParseAddr(v.flood)); err != nil || !got.Seen {
			t.Errorf("%s as an address: %+v, %v", v.flood, got, err)
		}
		if all, err := n.Connections(ctx, "sshd", netip.MustParseAddr(v.flood)); !errors.Is(err, firewall.ErrNotRemembered) || len(all) < firewall.Share || len(all) > firewall.Share+5 {
			t.Errorf("%s: %d connections, %v", v.flood, len(all), err)
		}
		if _, err := n.Connection(ctx, "sshd", netip.AddrPortFrom(netip.MustParseAddr(v.same), 9)); !errors.Is(err, firewall.ErrNotRemembered) {
			t.Errorf("%s, which shares with it: %v", v.same, err)
		}
		// Another one is remembered as ever.
		c, server, err := h.Dial(v.other, v.to, l)
		testnet.Must(t, err)
		sends(t, c, server, 100)
		if got, err := n.Connection(ctx, "sshd", localOf(c)); err != nil || !got.Seen || got.Bytes < 100 {
			t.Errorf("%s: %+v, %v", v.other, got, err)
		}
		if got, err := n.Connection(ctx, "sshd", netip.AddrPortFrom(netip.MustParseAddr(v.other), 9)); err != nil || got.Seen {
			t.Errorf("%s, a connection that never was: %+v, %v", v.other, got, err)
		}
		if d, err := n.Check(ctx); err != nil || d.Changed {
			t.Errorf("%+v, %v", d, err)
		}
		testnet.Must(t, n.Close())
		testnet.Must(t, l.Close())
	}
}

func TestAQuestionDoesNotWaitForBansBeingWritten(t *testing.T) {
	testnet.Enter(t)
	n := remembering(t)
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.Address(testnet.Context(t), "sshd", netip.MustParseAddr("10.9.0.2")); err != nil {
		t.Error(err)
	}
}

func BenchmarkMemory(b *testing.B) {
	testnet.Enter(b)
	ctx := testnet.Context(b)
	n := remembering(b)
	_, err := n.Address(ctx, "sshd", netip.MustParseAddr("198.18.7.7")) // opens the socket here
	testnet.Must(b, err)
	var s strings.Builder
	s.WriteString("add element inet banmesh conns_sshd_4 {")
	for i := range firewall.MaxTraces {
		fmt.Fprintf(&s, " 198.18.%d.%d . 99,", i>>8, i&255)
	}
	s.WriteString("}")
	testnet.Feed(b, s.String(), "nft", "-f", "-")
	for name, peer := range map[string]string{"known": "198.18.7.7:99", "unknown": "198.18.7.7:98"} {
		b.Run("connection "+name, func(b *testing.B) {
			for b.Loop() {
				if got, err := n.Connection(ctx, "sshd", netip.MustParseAddrPort(peer)); err != nil || got.Seen != (name == "known") {
					b.Fatal(got, err)
				}
			}
		})
	}
	b.Run("since when", func(b *testing.B) {
		for b.Loop() {
			if s, err := n.Since(ctx, "sshd"); err != nil || !s.Any {
				b.Fatal(s, err)
			}
		}
	})
	b.Run("all connections", func(b *testing.B) {
		for b.Loop() {
			clear(n.memory.readings)
			if got, err := n.Connections(ctx, "sshd", netip.MustParseAddr("198.18.7.7")); err != nil || len(got) != 1 {
				b.Fatal(got, err)
			}
		}
	})
}

// BenchmarkPacket sends small packets over one connection, whose peers are
// remembered or not.
func BenchmarkPacket(b *testing.B) {
	for _, remember := range []time.Duration{0, time.Hour} {
		b.Run(fmt.Sprintf("remember=%v", remember > 0), func(b *testing.B) {
			testnet.Enter(b)
			ctx := testnet.Context(b)
			h := testnet.Attach(b, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24"})
			l := testnet.ListenTCP(b, "10.9.0.1:22")
			n := newTest(b, Options{})
			// A limit, so that connections are tracked in both cases.
			testnet.Must(b, n.Configure(ctx, firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}, Remember: remember, MaxConnections: 9}}}))
			testnet.Must(b, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
			c, server, err := h.Dial("10.9.0.2", "10.9.0.1:22", l)
			testnet.Must(b, err)
			buf := make([]byte, 1)
			for b.Loop() {
				if _, err := c.Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(server, buf); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
