package honeyport_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/nft"
	"banmesh/internal/firewall/testnet"
	"banmesh/internal/honeyport"
)

// trap is a host that watches ports 23 and 3389.
type trap struct {
	*honeyport.Listener
	fw      *nft.Firewall
	touches chan honeyport.Touch
	config  firewall.Config
}

func newTrap(t *testing.T) *trap {
	t.Helper()
	ctx := testnet.Context(t)
	l, err := honeyport.Listen(ctx, nil)
	testnet.Must(t, err)
	l.Watch([]uint16{23, 3389})
	x := &trap{Listener: l, fw: nft.New(nft.Options{}), touches: make(chan honeyport.Touch, 100)}
	x.config = firewall.Config{
		Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "honeyport"}}, Never: testnet.Prefixes("10.9.0.9"),
		Honeyports: []uint16{23, 3389}, HoneyportTo: l.Port(),
	}
	testnet.Must(t, x.fw.Configure(ctx, x.config))
	testnet.Must(t, x.fw.Replace(ctx, func(func(firewall.Ban) bool) {}))
	running, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := l.Run(running, func(_ context.Context, h honeyport.Touch) { x.touches <- h }); err != nil {
			t.Errorf("running: %v", err)
		}
	})
	t.Cleanup(func() { stop(); group.Wait(); _ = x.fw.Close() })
	return x
}

// knock connects from the host, and says whether there was a handshake.
func knock(h *testnet.Host, from, to string) bool {
	ok := false
	h.Do(func() {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		c, err := d.Dial("tcp", to)
		// The reset can come before the dialler looks.
		ok = err == nil || errors.Is(err, unix.ECONNRESET)
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
			_, _ = io.ReadAll(c) // until it is closed
			_ = c.Close()
		}
	})
	return ok
}

func (x *trap) next(t *testing.T) honeyport.Touch {
	t.Helper()
	select {
	case h := <-x.touches:
		return h
	case <-time.After(10 * time.Second):
		t.Fatal("nobody was told")
	}
	return honeyport.Touch{}
}

func (x *trap) quiet(t *testing.T, when string) {
	t.Helper()
	select {
	case h := <-x.touches:
		t.Errorf("%s: %+v", when, h)
	default:
	}
}

func TestAHandshakeAtAClosedPortIsTold(t *testing.T) {
	testnet.Enter(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "10.9.0.9/24", "2001:db8:9::2/64"})
	x := newTrap(t)
	for _, v := range []struct {
		from, to string
		port     uint16
	}{{"10.9.0.2", "10.9.0.1:23", 23}, {"10.9.0.2", "10.9.0.1:3389", 3389}, {"2001:db8:9::2", "[2001:db8:9::1]:23", 23}} {
		if !knock(h, v.from, v.to) {
			t.Errorf("%s is closed to %s", v.to, v.from)
		}
		if got := x.next(t); got.Peer.Addr() != netip.MustParseAddr(v.from) || got.Port != v.port {
			t.Errorf("%s to %s: %+v", v.from, v.to, got)
		}
	}
	// Any other port is as it was; the listener's own, dialled, is no honeyport.
	if knock(h, "10.9.0.2", "10.9.0.1:24") {
		t.Error("another port is open")
	}
	knock(h, "10.9.0.2", fmt.Sprintf("10.9.0.1:%d", x.Port()))
	x.quiet(t, "the listener's own port")
	if knock(h, "10.9.0.9", "10.9.0.1:23") {
		t.Error("who is never banned is led into a trap")
	}
	x.quiet(t, "never-ban")
	// A dead agent's redirection ends by itself.
	if out := testnet.Run(t, "nft", "list", "map", "inet", "banmesh", "traps"); strings.Count(out, "timeout 1m") != 2 {
		t.Errorf("it outlives its agent:\n%s", out)
	}
	// The table is as described.
	if d, err := x.fw.Check(testnet.Context(t)); err != nil || d.Changed {
		t.Errorf("%+v, %v", d, err)
	}
	// Once the agent has stopped the ports are closed, not somebody else's.
	testnet.Must(t, x.fw.Close())
	if knock(h, "10.9.0.2", "10.9.0.1:23") {
		t.Error("open after the end")
	}
}

func TestAServiceThatStartsOnAHoneyportHasIt(t *testing.T) {
	testnet.Enter(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24", "2001:db8:9::1/64"}, []string{"10.9.0.2/24", "2001:db8:9::2/64"})
	box := testnet.Attach(t, "lan", []string{"10.8.0.1/24"}, []string{"10.8.0.2/24"})
	box.Do(func() { testnet.Run(t, "ip", "route", "add", "default", "via", "10.8.0.1") })
	testnet.Run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	x := newTrap(t)
	if !knock(h, "10.9.0.2", "10.9.0.1:23") {
		t.Fatal("closed")
	}
	x.next(t)
	for _, addr := range []string{"0.0.0.0:23", "10.9.0.1:23", "[::]:23"} {
		l := testnet.ListenTCP(t, addr)
		c, _, err := h.Dial("10.9.0.2", "10.9.0.1:23", l)
		if addr != "[::]:23" {
			testnet.Must(t, err)
			_ = c.Close()
		} else {
			_, _, err = h.Dial("2001:db8:9::2", "[2001:db8:9::1]:23", l)
			testnet.Must(t, err)
		}
		x.quiet(t, "a service on "+addr)
		testnet.Must(t, l.Close())
	}
	// It has ended, so the port is watched again.
	if !knock(h, "10.9.0.2", "10.9.0.1:23") {
		t.Error("closed after the service ended")
	}
	x.next(t)
	// A container's published port is the container's, whoever was first.
	testnet.Feed(t, "table ip nat { chain PREROUTING { type nat hook prerouting priority dstnat; tcp dport 3389 dnat to 10.8.0.2:22; }; }", "nft", "-f", "-")
	var in net.Listener
	box.Do(func() { in = testnet.ListenTCP(t, "10.8.0.2:22") })
	_, _, err := h.Dial("10.9.0.2", "10.9.0.1:3389", in)
	testnet.Must(t, err)
	x.quiet(t, "a published port")
	// Traffic that is only forwarded is nobody's here.
	var through net.Listener
	box.Do(func() { through = testnet.ListenTCP(t, "10.8.0.2:23") })
	h.Do(func() { testnet.Run(t, "ip", "route", "add", "10.8.0.0/24", "via", "10.9.0.1") })
	_, _, err = h.Dial("10.9.0.2", "10.8.0.2:23", through)
	testnet.Must(t, err)
	x.quiet(t, "forwarded traffic")
}

func TestAFloodOfTouchesIsBounded(t *testing.T) {
	testnet.Enter(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24"})
	x := newTrap(t)
	told := 0
	const knocks = 1_000
	var done sync.WaitGroup
	stop := make(chan struct{})
	done.Go(func() {
		for {
			select {
			case <-x.touches:
				told++
			case <-stop:
				return
			}
		}
	})
	began := time.Now()
	h.Do(func() {
		for range knocks {
			if c, err := net.Dial("tcp", "10.9.0.1:23"); err == nil {
				_ = c.Close()
			}
		}
	})
	testnet.Eventually(t, func() bool { return x.Dropped() > 0 || time.Since(began) > 8*time.Second })
	took := time.Since(began)
	close(stop)
	done.Wait()
	// The allowance, and a second's for the clock.
	if most := 200 + int(100*(took.Seconds()+1)); told > most {
		t.Errorf("%d of %d touches told in %v, at most %d may be", told, knocks, took, most)
	}
}

func TestPortsAreTakenOverAtOnce(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "wan", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24"})
	x := newTrap(t)
	x.config.Honeyports = []uint16{5900}
	x.Watch(x.config.Honeyports)
	testnet.Must(t, x.fw.Configure(ctx, x.config))
	if knock(h, "10.9.0.2", "10.9.0.1:23") {
		t.Error("the old port is still watched")
	}
	if !knock(h, "10.9.0.2", "10.9.0.1:5900") {
		t.Error("the new one is not")
	}
	x.next(t)
	x.config.Honeyports = nil
	x.Watch(nil)
	testnet.Must(t, x.fw.Configure(ctx, x.config))
	if knock(h, "10.9.0.2", "10.9.0.1:5900") {
		t.Error("none is wanted")
	}
	if out := testnet.Run(t, "nft", "-t", "list", "table", "inet", "banmesh"); strings.Contains(out, "traps") {
		t.Errorf("left behind:\n%s", out)
	}
}
