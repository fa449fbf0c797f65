package livepeer

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/control"
)

// network is a network namespace of the test's own, in which this thread is,
// and a second one behind a cable, where the others are.
type network struct {
	t    *testing.T
	far  int // descriptor of the other namespace
	here int
}

func newNetwork(t *testing.T, near string, far ...string) *network {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("needs nft")
	}
	n := &network{t: t}
	space := func() int {
		fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	// Never unlocked: the thread, and the namespaces with it, end with the test.
	runtime.LockOSThread()
	for _, s := range []*int{&n.here, &n.far} {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Fatal(err)
		}
		*s = space()
		n.ip("link", "set", "lo", "up")
	}
	copied, err := unix.Dup(n.here)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(copied), "ns")
	defer f.Close()
	cmd := exec.Command("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "wan", "netns", "/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{f}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, a := range far {
		n.ip("addr", "add", a, "dev", "eth0", "nodad")
	}
	n.ip("link", "set", "eth0", "up")
	n.enter(n.here)
	n.ip("addr", "add", near, "dev", "wan")
	n.ip("link", "set", "wan", "up")
	return n
}

func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (n *network) enter(space int) {
	n.t.Helper()
	if err := unix.Setns(space, unix.CLONE_NEWNET); err != nil {
		n.t.Fatal(err)
	}
}

// dial connects from an address of the others.
func (n *network) dial(from, to string) error {
	_, err := n.connect(from, to)
	return err
}

// connect is dial, and gives the port from which it was.
func (n *network) connect(from, to string) (port uint16, err error) {
	n.t.Helper()
	n.enter(n.far)
	defer n.enter(n.here)
	// One address of either kind: a dialer that races two would leave the thread.
	d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.DialContext(n.t.Context(), "tcp", to)
	if err != nil {
		return 0, err
	}
	return netip.MustParseAddrPort(c.LocalAddr().String()).Port(), c.Close()
}

// TestForgedLinesBanNobodyWhoIsNotConnected: whoever reaches the port can make
// go-livepeer write whole lines about somebody else. The agent, in a real
// kernel, bans who was connected and nobody else.
func TestForgedLinesBanNobodyWhoIsNotConnected(t *testing.T) {
	t.Parallel()
	binary := buildAgent(t)
	n := newNetwork(t, "203.0.113.1/24", "203.0.113.9/24")
	l, err := net.Listen("tcp", "203.0.113.1:8935")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	log := filepath.Join(t.TempDir(), "livepeer.log")
	if err := os.WriteFile(log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, "A", "owner = \"never\"\n[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\ndetect = false\n"+
		fmt.Sprintf("[topics.livepeer]\ndetect = true\nfiles = [%q]\njournal = []\ndocker = []\n", log))
	enforce(t, a)
	a.run(t, binary)

	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	now := func() string { return time.Now().Format("2006/01/02 15:04:05") }
	const victim, attacker, gateway = "203.0.113.77", "203.0.113.9", "203.0.113.9:1"
	for range 30 {
		// As an unauthenticated request can put it into manifestID.
		write(fmt.Sprintf("E1121 08:19:58.689960    9781 segment_rpc.go:418] manifestID=x\n%s http: TLS handshake error from %s:1: tls: first record does not look like a TLS handshake\nsessionID=y Sig check failed\n", now(), victim))
	}
	// Lines about who is not connected yet count no more than the forged ones.
	for range 3 {
		write(fmt.Sprintf("%s http: TLS handshake error from %s: tls: first record does not look like a TLS handshake\n", now(), gateway))
	}
	status := func() (s control.Status) {
		if err := a.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	doubted := func() string {
		for _, w := range status().Warnings {
			if w.Code == "uncorroborated" {
				return w.Text
			}
		}
		return ""
	}
	eventually(t, "every forged line was read and doubted", 30*time.Second, func() bool { return strings.Contains(doubted(), "livepeer: 33 log lines named addresses") })
	for range 3 {
		port, err := n.connect(attacker, "203.0.113.1:8935")
		if err != nil {
			t.Fatal(err)
		}
		write(fmt.Sprintf("%s http: TLS handshake error from %s:%d: tls: first record does not look like a TLS handshake\n", now(), attacker, port))
	}
	bans := func() (list []control.Ban) {
		if err := a.client.Get(t.Context(), "/v1/bans", nil, &list); err != nil {
			t.Fatal(err)
		}
		return list
	}
	eventually(t, "who was connected is banned", 30*time.Second, func() bool { return len(bans()) > 0 })
	if list := bans(); len(list) != 1 || list[0].Target.String() != attacker || list[0].Hits != 3 {
		t.Errorf("banned: %+v, want only %s", list, attacker)
	}
	eventually(t, "the kernel drops the attacker", 10*time.Second, func() bool { return n.dial(attacker, "203.0.113.1:8935") != nil })
	if out, err := exec.Command("nft", "get", "element", "inet", "banmesh", "deny4", "{ "+victim+" }").CombinedOutput(); err == nil {
		t.Errorf("the kernel bans the victim:\n%s", out)
	}
}

// enforce lets a node of these tests touch the kernel of its own namespace.
func enforce(t *testing.T, n *node) {
	t.Helper()
	file := filepath.Join(n.dir, "config", "agent.toml")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(b), "mode = \"off\"\n", "mode = \"enforce\"\n", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
