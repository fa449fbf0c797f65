package firewall

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// dial connects from the host and gives both ends. It waits for a SYN or two to
// be sent again, since a fresh link can lose the first.
func (h *host) dial(from, to string, l net.Listener) (client, server net.Conn, err error) {
	h.t.Helper()
	return h.dialFor(5*time.Second, from, to, l)
}

// refused says whether a handshake comes to nothing, in less time than a SYN is
// sent again.
func (h *host) refused(from, to string, l net.Listener) bool {
	h.t.Helper()
	_, _, err := h.dialFor(400*time.Millisecond, from, to, l)
	return err != nil
}

func (h *host) dialFor(timeout time.Duration, from, to string, l net.Listener) (client, server net.Conn, err error) {
	h.t.Helper()
	h.do(func() {
		d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		client, err = d.DialContext(testContext(h.t), "tcp", to)
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

func listenTCP(t testing.TB, addr string) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(testContext(t), "tcp", addr)
	mustDo(t, err)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestAContainersPublishedPortIsClosedToo(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	client := attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "2001:db8:9::2/64"})
	box := attach(t, "box", []string{"10.8.0.1/24", "2001:db8:8::1/64"}, []string{"10.8.0.2/24", "2001:db8:8::2/64"})
	run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	box.do(func() {
		run(t, "ip", "route", "add", "default", "via", "10.8.0.1")
		run(t, "ip", "-6", "route", "add", "default", "via", "2001:db8:8::1")
	})
	// As Docker publishes -p 2222:22.
	feed(t, `table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 2222 dnat to 10.8.0.2:22; }; }
		table ip6 nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 2222 dnat to [2001:db8:8::2]:22; }; }
		table inet other { chain input { type filter hook input priority filter; ct state established,related accept; }; chain forward { type filter hook forward priority filter; ct state established,related accept; }; }`, "nft", "-f", "-")
	var in4, in6 net.Listener
	box.do(func() { in4, in6 = listenTCP(t, "10.8.0.2:22"), listenTCP(t, "[2001:db8:8::2]:22") })
	host4 := listenTCP(t, "10.9.0.1:8080")

	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, Config{Owner: OwnerNever, Scopes: []Scope{{Topic: "sshd", Ports: []uint16{2222}, Remember: time.Hour}, {Topic: "all"}}}))
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	for _, v := range []struct {
		from, to string
		l        net.Listener
	}{{"10.9.0.2", "10.9.0.1:2222", in4}, {"2001:db8:9::2", "[2001:db8:9::1]:2222", in6}} {
		c, s, err := client.dial(v.from, v.to, v.l)
		mustDo(t, err)
		if err := hears(c, s); err != nil {
			t.Fatalf("before the ban: %v", err)
		}
		// Peers of a container are remembered by the port that they dialled.
		if known, err := n.Established(ctx, netip.MustParseAddr(v.from), 2222); err != nil || !known {
			t.Errorf("%s is not remembered: %v", v.from, err)
		}
		mustDo(t, n.Apply(ctx, bans("sshd", time.Now().Add(time.Hour), v.from), nil))
		// The connection that stood dies, though everybody accepts established ones.
		if err := hears(c, s); err == nil {
			t.Errorf("%s: the established connection still speaks", v.from)
		}
		if !client.refused(v.from, v.to, v.l) {
			t.Errorf("%s: a new connection reached the container", v.from)
		}
	}
	if _, _, err := client.dial("10.9.0.2", "10.9.0.1:8080", host4); err != nil {
		t.Errorf("another port of the host is closed: %v", err)
	}
	mustDo(t, n.Apply(ctx, nil, []Key{{pfx("10.9.0.2"), "sshd"}}))
	if _, _, err := client.dial("10.9.0.2", "10.9.0.1:2222", in4); err != nil {
		t.Errorf("after the unban: %v", err)
	}
	got, err := n.Counters(ctx)
	mustDo(t, err)
	if got["sshd"].Packets < 4 || got["sshd"].Bytes < 4*40 || got["all"].Packets != 0 {
		t.Errorf("counters %+v", got)
	}
}

// hears says whether what the client says arrives within a while.
func hears(client, server net.Conn) error {
	if _, err := client.Write([]byte("x")); err != nil {
		return err
	}
	_ = server.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	_, err := io.ReadFull(server, make([]byte, 1))
	return err
}

func TestSocketsOfABannedAddressAreClosed(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	h := attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "10.9.0.3/24", "2001:db8:9::2/64"})
	ssh, web := listenTCP(t, "[::]:22"), listenTCP(t, "[::]:80")
	n := newTest(t, Options{})
	c := Config{Owner: OwnerNever, Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "watched", Observe: true}}, Never: prefixes("10.9.0.3")}
	mustDo(t, n.Configure(ctx, c))
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	open := func(from, to string, l net.Listener) net.Conn {
		_, s, err := h.dial(from, to, l)
		mustDo(t, err)
		return s
	}
	doomed := []net.Conn{open("10.9.0.2", "10.9.0.1:22", ssh), open("2001:db8:9::2", "[2001:db8:9::1]:22", ssh)}
	spared := []net.Conn{open("10.9.0.2", "10.9.0.1:80", web), open("10.9.0.3", "10.9.0.1:22", ssh)}
	mustDo(t, n.Apply(ctx, bans("watched", time.Now().Add(time.Hour), "10.9.0.2"), nil))
	n.sockets.rest = time.Time{}
	mustDo(t, n.Apply(ctx, bans("sshd", time.Now().Add(time.Hour), "10.9.0.2", "2001:db8:9::/64", "10.9.0.0/29"), nil))
	for i, s := range doomed {
		_ = s.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("doomed socket %d is open: %v", i, err)
		}
	}
	for i, s := range spared {
		_ = s.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("spared socket %d: %v", i, err)
		}
	}
}

func TestTheKernelRemembersWhoFinishedAHandshake(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	h := attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "10.9.0.3/24", "2001:db8:9::2/64"})
	l := listenTCP(t, "[::]:22")
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, Config{Owner: OwnerNever, Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22, 23}, Remember: time.Hour}}}))
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	for _, v := range []struct{ from, to string }{{"10.9.0.2", "10.9.0.1:22"}, {"2001:db8:9::2", "[2001:db8:9::1]:22"}} {
		if got, err := n.Established(ctx, netip.MustParseAddr(v.from), 22); err != nil || got {
			t.Errorf("%s before: %v, %v", v.from, got, err)
		}
		_, _, err := h.dial(v.from, v.to, l)
		mustDo(t, err)
		if got, err := n.Established(ctx, netip.MustParseAddr(v.from), 22); err != nil || !got {
			t.Errorf("%s after: %v, %v", v.from, got, err)
		}
		if got, err := n.Established(ctx, netip.MustParseAddr(v.from), 23); err != nil || got {
			t.Errorf("%s on another port: %v, %v", v.from, got, err)
		}
	}
	// A refused connection, whose peer sends nothing but a SYN, proves nothing.
	h.do(func() {
		d := net.Dialer{Timeout: time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP("10.9.0.3")}}
		if c, err := d.Dial("tcp", "10.9.0.1:23"); err == nil {
			c.Close()
			t.Error("nobody listens there")
		}
	})
	if got, err := n.Established(ctx, netip.MustParseAddr("10.9.0.3"), 23); err != nil || got {
		t.Errorf("a refused peer: %v, %v", got, err)
	}
	if _, err := n.Established(ctx, netip.MustParseAddr("10.9.0.2"), 80); !errors.Is(err, ErrNotRemembered) {
		t.Errorf("error %v", err)
	}
}

func TestConnectionsPerAddressAreLimited(t *testing.T) {
	inNamespace(t)
	ctx := testContext(t)
	h := attach(t, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24"})
	l := listenTCP(t, "10.9.0.1:22")
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, Config{
		Owner: OwnerNever, Never: prefixes("10.9.0.4"),
		Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22}, MaxConnections: 3}},
	}))
	mustDo(t, n.Replace(ctx, func(func(Ban) bool) {}))
	for from, want := range map[string]int{"10.9.0.2": 3, "10.9.0.3": 3, "10.9.0.4": 5} {
		got := 0
		for range 5 {
			if !h.refused(from, "10.9.0.1:22", l) {
				got++
			}
		}
		if got != want {
			t.Errorf("%s has %d connections, want %d", from, got, want)
		}
	}
}

// TestHelperUnprivileged is no test: it runs as nobody with one capability.
func TestHelperUnprivileged(t *testing.T) {
	if os.Getenv("FIREWALL_UNPRIVILEGED") == "" {
		t.Skip("only as a child")
	}
	ctx := testContext(t)
	if os.Getenv("FIREWALL_UNPRIVILEGED") == "none" {
		c, err := Probe()
		if err != nil || c.Enforce || !strings.Contains(c.Reason, "CAP_NET_ADMIN") {
			t.Errorf("Probe without the capability: %+v, %v", c, err)
		}
		if err := newTest(t, Options{}).Configure(ctx, simple()); !errors.Is(err, ErrDenied) {
			t.Errorf("Configure without the capability: %v", err)
		}
		return
	}
	if c, err := Probe(); err != nil || !c.Enforce {
		t.Errorf("Probe: %+v, %v", c, err)
	}
	c := simple()
	if p, _ := Probe(); p.Persist {
		c.Owner = OwnerAlways
	}
	n := newTest(t, Options{})
	mustDo(t, n.Configure(ctx, c))
	mustDo(t, n.Replace(ctx, slices.Values(many(5_000, 1))))
	mustDo(t, n.Apply(ctx, many(5_100, 1)[5_000:], []Key{many(1, 1)[0].Key()}))
	if _, err := n.Check(ctx); err != nil {
		t.Error(err)
	}
	inStep(t, n)
	if n.sockets.conn == nil || n.sockets.off {
		t.Error("sockets were not looked at")
	}
	fmt.Println("as uid", os.Getuid())
}

func TestOneCapabilityIsEnough(t *testing.T) {
	inNamespace(t)
	bin := t.TempDir() + "/test"
	b, err := os.ReadFile(os.Args[0])
	mustDo(t, err)
	mustDo(t, os.WriteFile(bin, b, 0o755)) //nolint:gosec // nobody has to run it
	mustDo(t, os.Chmod(strings.TrimSuffix(bin, "/test"), 0o755))
	for _, caps := range []string{"net_admin", "none"} {
		args := []string{"--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"}
		if caps != "none" {
			args = append(args, "--inh-caps=-all,+"+caps, "--ambient-caps=-all,+"+caps, "--bounding-set=-all,+"+caps)
		} else {
			args = append(args, "--bounding-set=-all")
		}
		cmd := exec.Command("setpriv", append(args, bin, "-test.v", "-test.run=^TestHelperUnprivileged$")...)
		cmd.Env = append(os.Environ(), "FIREWALL_UNPRIVILEGED="+caps)
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Errorf("with %s: %v\n%s", caps, err, out)
		}
	}
}
