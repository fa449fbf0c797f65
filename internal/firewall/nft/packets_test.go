package nft

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

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestAContainersPublishedPortIsClosedToo(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	client := testnet.Attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "2001:db8:9::2/64"})
	box := testnet.Attach(t, "box", []string{"10.8.0.1/24", "2001:db8:8::1/64"}, []string{"10.8.0.2/24", "2001:db8:8::2/64"})
	testnet.Run(t, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding")
	box.Do(func() {
		testnet.Run(t, "ip", "route", "add", "default", "via", "10.8.0.1")
		testnet.Run(t, "ip", "-6", "route", "add", "default", "via", "2001:db8:8::1")
	})
	// As Docker publishes -p 2222:22.
	testnet.Feed(t, `table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 2222 dnat to 10.8.0.2:22; }; }
		table ip6 nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 2222 dnat to [2001:db8:8::2]:22; }; }
		table inet other { chain input { type filter hook input priority filter; ct state established,related accept; }; chain forward { type filter hook forward priority filter; ct state established,related accept; }; }`, "nft", "-f", "-")
	var in4, in6 net.Listener
	box.Do(func() { in4, in6 = testnet.ListenTCP(t, "10.8.0.2:22"), testnet.ListenTCP(t, "[2001:db8:8::2]:22") })
	host4 := testnet.ListenTCP(t, "10.9.0.1:8080")

	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{2222}, Remember: time.Hour}, {Topic: "all"}}}))
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	for _, v := range []struct {
		from, to string
		l        net.Listener
	}{{"10.9.0.2", "10.9.0.1:2222", in4}, {"2001:db8:9::2", "[2001:db8:9::1]:2222", in6}} {
		c, s, err := client.Dial(v.from, v.to, v.l)
		testnet.Must(t, err)
		if err := hears(c, s); err != nil {
			t.Fatalf("before the ban: %v", err)
		}
		// Peers of a container are remembered by the port that they dialled.
		if known, err := n.Address(ctx, "sshd", netip.MustParseAddr(v.from)); err != nil || !known.Seen {
			t.Errorf("%s is not remembered: %v", v.from, err)
		}
		testnet.Must(t, n.Apply(ctx, bans("sshd", time.Now().Add(time.Hour), v.from), nil))
		// The connection that stood dies, though everybody accepts established ones.
		if err := hears(c, s); err == nil {
			t.Errorf("%s: the established connection still speaks", v.from)
		}
		if !client.Refused(v.from, v.to, v.l) {
			t.Errorf("%s: a new connection reached the container", v.from)
		}
	}
	if _, _, err := client.Dial("10.9.0.2", "10.9.0.1:8080", host4); err != nil {
		t.Errorf("another port of the host is closed: %v", err)
	}
	testnet.Must(t, n.Apply(ctx, nil, []firewall.Key{{Prefix: testnet.Prefix("10.9.0.2"), Topic: "sshd"}}))
	if _, _, err := client.Dial("10.9.0.2", "10.9.0.1:2222", in4); err != nil {
		t.Errorf("after the unban: %v", err)
	}
	got, err := n.Counters(ctx)
	testnet.Must(t, err)
	if got["sshd"].Packets < 4 || got["sshd"].Bytes < 4*40 || got["all"].Packets != 0 {
		t.Errorf("counters %+v", got)
	}
}

// hears says whether the client's words arrive within a while.
func hears(client, server net.Conn) error {
	if _, err := client.Write([]byte("x")); err != nil {
		return err
	}
	_ = server.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	_, err := io.ReadFull(server, make([]byte, 1))
	return err
}

func TestSocketsOfABannedAddressAreClosed(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "10.9.0.3/24", "2001:db8:9::2/64"})
	ssh, web := testnet.ListenTCP(t, "[::]:22"), testnet.ListenTCP(t, "[::]:80")
	n := newTest(t, Options{})
	c := firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "watched", Observe: true}}, Never: testnet.Prefixes("10.9.0.3")}
	testnet.Must(t, n.Configure(ctx, c))
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	open := func(from, to string, l net.Listener) net.Conn {
		_, s, err := h.Dial(from, to, l)
		testnet.Must(t, err)
		return s
	}
	doomed := []net.Conn{open("10.9.0.2", "10.9.0.1:22", ssh), open("2001:db8:9::2", "[2001:db8:9::1]:22", ssh)}
	spared := []net.Conn{open("10.9.0.2", "10.9.0.1:80", web), open("10.9.0.3", "10.9.0.1:22", ssh)}
	testnet.Must(t, n.Apply(ctx, bans("watched", time.Now().Add(time.Hour), "10.9.0.2"), nil))
	n.sockets.rest = time.Time{}
	testnet.Must(t, n.Apply(ctx, bans("sshd", time.Now().Add(time.Hour), "10.9.0.2", "2001:db8:9::/64", "10.9.0.0/29"), nil))
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

func TestConnectionsPerAddressAreLimited(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.4/24"})
	l := testnet.ListenTCP(t, "10.9.0.1:22")
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, firewall.Config{
		Owner: firewall.OwnerNever, Never: testnet.Prefixes("10.9.0.4"),
		Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}, MaxConnections: 3}},
	}))
	testnet.Must(t, n.Replace(ctx, func(func(firewall.Ban) bool) {}))
	for from, want := range map[string]int{"10.9.0.2": 3, "10.9.0.3": 3, "10.9.0.4": 5} {
		got := 0
		for range 5 {
			if !h.Refused(from, "10.9.0.1:22", l) {
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
	ctx := testnet.Context(t)
	if os.Getenv("FIREWALL_UNPRIVILEGED") == "none" {
		c, err := Probe()
		if err != nil || c.Enforce || !strings.Contains(c.Fix, "CAP_NET_ADMIN") {
			t.Errorf("Probe without the capability: %+v, %v", c, err)
		}
		if err := newTest(t, Options{}).Configure(ctx, simple()); !errors.Is(err, firewall.ErrDenied) {
			t.Errorf("Configure without the capability: %v", err)
		}
		return
	}
	if c, err := Probe(); err != nil || !c.Enforce {
		t.Errorf("Probe: %+v, %v", c, err)
	}
	c := simple()
	if p, _ := Probe(); persists(p) {
		c.Owner = firewall.OwnerAlways
	}
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, c))
	testnet.Must(t, n.Replace(ctx, slices.Values(many(5_000, 1))))
	testnet.Must(t, n.Apply(ctx, many(5_100, 1)[5_000:], []firewall.Key{many(1, 1)[0].Key()}))
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
	testnet.Enter(t)
	bin := t.TempDir() + "/test"
	b, err := os.ReadFile(os.Args[0])
	testnet.Must(t, err)
	testnet.Must(t, os.WriteFile(bin, b, 0o755)) //nolint:gosec // nobody has to run it
	testnet.Must(t, os.Chmod(strings.TrimSuffix(bin, "/test"), 0o755))
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
