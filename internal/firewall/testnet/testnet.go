// Package testnet gives tests network namespaces of their own, and hosts
// attached to them.
package testnet

import (
	"context"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
)

// inNamespace puts the test's thread into a network namespace of its own, which
// dies with it. Everything that the test starts must be started by its own
// goroutine.
func Enter(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("kernel tests must run as root in CI")
		}
		t.Skip("needs root")
	}
	// Never unlocked, so the thread ends with the goroutine and nobody else runs
	// in the namespace.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	Run(t, "ip", "link", "set", "lo", "up")
}

// Run runs a program in the thread's namespace and gives its output.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Feed runs a program with some input.
func Feed(t testing.TB, input, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A Host is another network namespace, joined to the test's by a veth pair.
type Host struct {
	t  testing.TB
	ns int
	// Proof is the address that proofs come from, one that is not banned.
	Proof string
}

// Attach makes a host. The test's end of the cable gets near4 and near6, the
// host's far4 and far6, which are prefixes.
func Attach(t testing.TB, name string, near, far []string) *Host {
	t.Helper()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(here) }()
	h := &Host{t: t}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	if h.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(h.ns) })
	Run(t, "ip", "link", "set", "lo", "up")
	// The pair is made there and one end is sent here, by a file that the child
	// inherits.
	f := os.NewFile(uintptr(duplicate(t, here)), "ns")
	cmd := exec.Command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", name, "netns", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_ = f.Close()
	for _, a := range far {
		Run(t, "ip", "addr", "add", a, "dev", "eth0", "nodad")
	}
	Run(t, "ip", "link", "set", "eth0", "up")
	if err := unix.Setns(here, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	for _, a := range near {
		Run(t, "ip", "addr", "add", a, "dev", name, "nodad")
	}
	Run(t, "ip", "link", "set", name, "up")
	return h
}

func duplicate(t testing.TB, fd int) int {
	t.Helper()
	n, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Do runs f in the host's namespace.
func (h *Host) Do(f func()) {
	h.t.Helper()
	here, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = unix.Close(here) }()
	if err := unix.Setns(h.ns, unix.CLONE_NEWNET); err != nil {
		h.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(here, unix.CLONE_NEWNET); err != nil {
			h.t.Fatal(err)
		}
	}()
	f()
}

// ListenUDP opens a UDP socket here.
func ListenUDP(t testing.TB, addr string) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Arrives sends datagrams from the host and says whether they reach the socket.
// The second one goes to a port that nobody bans, as proof that the way is
// open; when it is there the first one is there or was dropped.
func (h *Host) Arrives(from string, to, proof *net.UDPConn) bool {
	h.t.Helper()
	h.Do(func() {
		for _, c := range []*net.UDPConn{to, proof} {
			target := c.LocalAddr().(*net.UDPAddr)
			local := from
			if c == proof {
				local = h.Proof
			}
			s, err := net.DialUDP("udp", udpAddr(local), target)
			if err != nil {
				h.t.Fatal(err)
			}
			if _, err := s.Write([]byte("hello")); err != nil {
				h.t.Fatal(err)
			}
			_ = s.Close()
		}
	})
	buf := make([]byte, 16)
	_ = proof.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := proof.Read(buf); err != nil {
		h.t.Fatalf("the proof did not arrive: %v", err)
	}
	// Packets of one cable keep their order.
	_ = to.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err := to.Read(buf)
	return err == nil
}

func udpAddr(s string) *net.UDPAddr {
	if s == "" {
		return nil
	}
	return &net.UDPAddr{IP: net.ParseIP(s)}
}

// Context gives a context that ends with the test, or after two minutes.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Must fails the test for an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Prefix gives a prefix or address as a canonical prefix.
func Prefix(s string) netip.Prefix {
	p, ok := ban.MustTarget(s).Prefix()
	if !ok {
		panic(s)
	}
	return p
}

// Prefixes gives several.
func Prefixes(s ...string) (out []netip.Prefix) {
	for _, p := range s {
		out = append(out, Prefix(p))
	}
	return out
}

// Eventually waits until something is true, and fails the test when it never is.
func Eventually(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("it never came true")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
