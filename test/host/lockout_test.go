package host

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The network of the lockout test: public addresses, so that nothing but what
// the agent finds by itself protects them.
//
//	admin 45.80.10.7 ── 45.80.10.1 router 45.80.20.1 ── 45.80.20.2 server
//	broker 45.80.30.10 ──────────── 45.80.30.1
const (
	adminAddress  = "45.80.10.7"
	otherAddress  = "45.80.10.66" // of the admin's machine too; nobody is logged in from it
	serverAddress = "45.80.20.2"
	gateway       = "45.80.20.1"
	brokerAddress = "45.80.30.10"
	resolver      = "45.80.30.53" // of the broker's machine
)

// lab is some machines, each a network namespace.
type lab struct {
	t      *testing.T
	prefix string
	dir    string
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	for _, tool := range []string{"ip", "nft", "ssh", "ssh-keygen", "/usr/sbin/sshd"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not here")
		}
	}
	l := &lab{t: t, prefix: fmt.Sprintf("bl%d", os.Getpid()), dir: t.TempDir()}
	for _, m := range []struct{ name, address, router string }{
		{"admin", adminAddress, "45.80.10.1"}, {"server", serverAddress, gateway}, {"broker", brokerAddress, "45.80.30.1"},
	} {
		if m.name == "admin" {
			l.ip("netns", "add", l.ns("router"))
			t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", l.ns("router")).Run() })
			l.run("router", "sysctl", "-qw", "net.ipv4.ip_forward=1")
		}
		ns := l.ns(m.name)
		l.ip("netns", "add", ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
		l.ip("link", "add", m.name, "netns", l.ns("router"), "type", "veth", "peer", "name", "eth0", "netns", ns)
		l.ip("-n", l.ns("router"), "addr", "add", m.router+"/24", "dev", m.name)
		l.ip("-n", l.ns("router"), "link", "set", m.name, "up")
		l.ip("-n", ns, "addr", "add", m.address+"/24", "dev", "eth0")
		l.ip("-n", ns, "link", "set", "lo", "up")
		l.ip("-n", ns, "link", "set", "eth0", "up")
		l.ip("-n", ns, "route", "add", "default", "via", m.router)
	}
	l.ip("-n", l.ns("admin"), "addr", "add", otherAddress+"/24", "dev", "eth0")
	l.ip("-n", l.ns("broker"), "addr", "add", resolver+"/24", "dev", "eth0")
	return l
}

func (l *lab) ns(machine string) string { return l.prefix + machine }

func (l *lab) ip(args ...string) {
	l.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		l.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) command(machine string, argv ...string) *exec.Cmd {
	c := exec.CommandContext(l.t.Context(), "ip", append([]string{"netns", "exec", l.ns(machine)}, argv...)...)
	c.WaitDelay = 5 * time.Second
	return c
}

func (l *lab) run(machine string, argv ...string) string {
	l.t.Helper()
	out, err := l.command(machine, argv...).CombinedOutput()
	if err != nil {
		l.t.Fatalf("on %s, %s: %v: %s", machine, strings.Join(argv, " "), err, out)
	}
	return string(out)
}

// start runs a program until the test ends, and shows its output if the test
// failed.
func (l *lab) start(machine string, argv ...string) *exec.Cmd {
	l.t.Helper()
	said := &said{}
	c := l.command(machine, argv...)
	c.Stdout, c.Stderr = said, said
	l.begin(c, said, strings.Join(argv, " "))
	return c
}

func (l *lab) begin(c *exec.Cmd, said *said, name string) {
	l.t.Helper()
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	mustDo(l.t, c.Start())
	l.t.Cleanup(func() {
		_ = syscall.Kill(-c.Process.Pid, syscall.SIGTERM)
		timer := time.AfterFunc(10*time.Second, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
		_ = c.Wait()
		timer.Stop()
		if l.t.Failed() {
			l.t.Logf("%s said:\n%s", name, said)
		}
	})
}

// said keeps a program's output.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (l *lab) build(name, pkg string) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	c := exec.CommandContext(l.t.Context(), goCommand(l.t), "build", "-o", path, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		l.t.Fatalf("building %s: %v: %s", pkg, err, out)
	}
	return path
}

func (l *lab) write(name, text string, mode os.FileMode) string {
	l.t.Helper()
	path := filepath.Join(l.dir, name)
	mustDo(l.t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode))
	return path
}

// A trusted peer claims everything that a server and its administrator need:
// the gateway, the resolver, the broker, the server itself, the address of the
// administrator's session, and the whole Internet in pieces. The agent, the
// broker, sshd, the kernel's filter and the signatures are real.
func TestATrustedPeerCannotLockTheAdministratorOut(t *testing.T) {
	l := newLab(t)
	agent, broker, hostile := l.build("agent", "../../cmd/agent"), l.build("broker", "../../cmd/broker"), l.build("hostile", "./hostile")

	l.start("broker", broker, "--config", l.write("broker.toml", "network = \"banmesh\"\n", 0o600), "run", "--listen", "0.0.0.0:1883", "--state-dir", filepath.Join(l.dir, "broker-state"), "--socket", filepath.Join(l.dir, "broker.sock"))
	echo := l.session()

	// The peer, believed at once; the limits are so wide that only what must
	// never be banned stands in its way, and it is not quarantined.
	peer := l.command("broker", hostile, "-broker", "tcp://"+brokerAddress+":1883", "-state", filepath.Join(l.dir, "hostile-state"))
	tell, err := peer.StdinPipe()
	mustDo(t, err)
	hears, err := peer.StdoutPipe()
	mustDo(t, err)
	peerSaid := &said{}
	peer.Stderr = peerSaid
	l.begin(peer, peerSaid, "hostile")
	fromPeer := bufio.NewScanner(hears)
	fromPeer.Scan()
	l.write("config/agent.toml", fmt.Sprintf(`
[[brokers]]
url = "tcp://%s:1883"
[operators.mallory]
id = %q
[topics.sshd]
detect = false
subscribe = true
all_ports = true
ban = "any of mallory"
prefix = ["v4/8"]
[topics.sshd.limits]
per_hour = 1000000
addresses = 2147483647
strikes = 1000
`, brokerAddress, fromPeer.Text()), 0o600)
	l.write("resolv.conf", "nameserver "+resolver+"\n", 0o644)
	flags := []string{agent, "--config-dir", filepath.Join(l.dir, "config"), "--state-dir", filepath.Join(l.dir, "state"), "--socket", filepath.Join(l.dir, "agent.sock")}
	l.start("server", append([]string{"unshare", "-m", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, filepath.Join(l.dir, "resolv.conf")}, append(flags, "run")...)...)
	ask := func(args ...string) string {
		out, _ := l.command("server", append(flags, args...)...).CombinedOutput() // its output is judged
		return string(out)
	}
	eventually(t, "the agent has found the administrator's session", func() bool {
		return strings.Contains(ask("allow", "list"), adminAddress+"/32")
	})
	for _, needed := range []string{gateway, resolver, brokerAddress, serverAddress} {
		if list := ask("allow", "list"); !strings.Contains(list, needed+"/32") {
			t.Errorf("%s is not on the list:\n%s", needed, list)
		}
	}
	if status := ask("status"); !strings.Contains(status, "enforcement: nftables") {
		t.Fatalf("it does not enforce:\n%s", status)
	}

	claims := []string{gateway, resolver, brokerAddress, serverAddress, adminAddress, otherAddress}
	// Half of all addresses is the most that a policy can let a peer ban.
	for i := range 224 {
		claims = append(claims, fmt.Sprintf("%d.0.0.0/8", i))
	}
	_, err = io.WriteString(tell, strings.Join(claims, "\n")+"\n\n")
	mustDo(t, err)
	eventually(t, "the peer's claims are in force", func() bool {
		bans := ask("bans")
		return strings.Contains(bans, otherAddress+" ") && strings.Contains(bans, "11.0.0.0/8 ") && strings.Contains(bans, "21.0.0.0/8 ")
	})

	// It does as it says: who is not logged in gets no answer. The
	// session and all that the server needs live.
	if out, err := l.command("admin", "timeout", "3", "ssh", "-F", filepath.Join(l.dir, "ssh_config"), "-b", otherAddress, "server", "true").CombinedOutput(); err == nil {
		t.Errorf("a banned address was let in: %s", out)
	}
	for i := range 3 {
		echo(fmt.Sprintf("alive %d", i))
	}
	for _, needed := range []string{gateway, resolver, brokerAddress} {
		// An answer counts, be it that nobody listens there.
		out, err := l.command("server", "timeout", "10", "bash", "-c", "exec 3<>/dev/tcp/"+needed+"/1883").CombinedOutput()
		if err != nil && !strings.Contains(string(out), "refused") {
			t.Errorf("%s does not answer the server: %v %s", needed, err, out)
		}
	}
	l.run("admin", "ssh", "-F", filepath.Join(l.dir, "ssh_config"), "server", "true") // and a new one is let in

	bans := ask("bans")
	for _, needed := range []string{gateway, resolver, brokerAddress, serverAddress, adminAddress, "45.0.0.0/8", "127.0.0.0/8"} {
		if strings.Contains(bans, needed+" ") {
			t.Errorf("%s is banned:\n%s", needed, bans)
		}
		if why := ask("explain", needed); !strings.Contains(why, "must never be banned") && !strings.Contains(why, "is shielded: ") {
			t.Errorf("explain %s: %s", needed, why)
		}
	}
	if why := ask("explain", adminAddress); !strings.Contains(why, "kernel lets it pass before any ban") || !strings.Contains(why, "sshd: ") {
		t.Errorf("explain says of the administrator:\n%s", why)
	}
	if why := ask("explain", otherAddress); !strings.Contains(why, "kernel holds it in deny4") {
		t.Errorf("explain says of who is banned:\n%s", why)
	}
	if peers := ask("peers"); !strings.Contains(peers, "STRIKES") || strings.Contains(peers, " 0  in good standing") {
		t.Errorf("peers:\n%s", peers)
	}
	strikes := ask("peers", "show", "mallory")
	for _, claimed := range []string{"45.0.0.0/8", "127.0.0.0/8", "10.0.0.0/8"} {
		if !strings.Contains(strikes, "claimed "+claimed+" in sshd") {
			t.Errorf("%s is no strike:\n%s", claimed, strikes)
		}
	}
	t.Logf("\n%s", strikes)

	// A feed over its limits waits for a person, who sees it.
	if held := ask("hold", "list"); !strings.Contains(held, "over budget") || !strings.Contains(held, "agent hold approve PEER") {
		t.Errorf("hold list:\n%s", held)
	}
	if out := ask("hold", "reject", "mallory"); !strings.Contains(out, "rejected ") {
		t.Errorf("hold reject: %s", out)
	}
	if held := ask("hold", "list"); !strings.Contains(held, "rejected") {
		t.Errorf("hold list:\n%s", held)
	}

	// With the default limits the same peer is quarantined, and nothing of it is
	// left.
	config := l.write("config/agent.toml", strings.Replace(read(t, filepath.Join(l.dir, "config/agent.toml")), "strikes = 1000\n", "", 1), 0o600)
	if out := ask("reload"); strings.Contains(out, "error") {
		t.Fatalf("%s: %s", config, out)
	}
	_, err = io.WriteString(tell, "192.168.0.1\n\n")
	mustDo(t, err)
	eventually(t, "the peer is quarantined", func() bool { return strings.Contains(ask("peers"), "quarantined: it claimed again and again") })
	eventually(t, "nothing of it is in force", func() bool { return strings.Contains(ask("bans"), "no bans in force") })
	echo("alive at the end")
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	mustDo(t, err)
	return string(b)
}

// session starts sshd on the server and logs the administrator in. The
// function that it gives sends a line through the session and wants it back.
func (l *lab) session() func(line string) {
	l.t.Helper()
	t := l.t
	for _, name := range []string{"host_key", "user_key"} {
		l.run("admin", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(l.dir, name))
	}
	l.write("authorized_keys", read(t, filepath.Join(l.dir, "user_key.pub")), 0o600)
	conf := l.write("sshd_config", fmt.Sprintf("ListenAddress %s\nHostKey %s/host_key\nPidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\nStrictModes no\nUseDNS no\nAuthorizedKeysFile %s/authorized_keys\n",
		serverAddress, l.dir, l.dir), 0o600)
	l.start("server", "unshare", "-m", "sh", "-c", `mkdir -p /run/sshd && exec /usr/sbin/sshd -D -e -f "$0"`, conf)
	l.write("ssh_config", fmt.Sprintf("Host server\n HostName %s\n User root\n IdentityFile %s/user_key\n IdentitiesOnly yes\n StrictHostKeyChecking no\n UserKnownHostsFile /dev/null\n LogLevel ERROR\n BatchMode yes\n BindAddress %s\n",
		serverAddress, l.dir, adminAddress), 0o600)
	config := filepath.Join(l.dir, "ssh_config")
	eventually(t, "sshd answers", func() bool { return l.command("admin", "ssh", "-F", config, "server", "true").Run() == nil })
	c := l.command("admin", "ssh", "-F", config, "server", "cat")
	in, err := c.StdinPipe()
	mustDo(t, err)
	out, err := c.StdoutPipe()
	mustDo(t, err)
	said := &said{}
	c.Stderr = said
	l.begin(c, said, "the session")
	lines := make(chan string)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() {
		defer close(lines)
		s := bufio.NewScanner(out)
		for s.Scan() {
			select {
			case lines <- s.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	echo := func(line string) {
		t.Helper()
		_, err := io.WriteString(in, line+"\n")
		mustDo(t, err)
		select {
		case got, ok := <-lines:
			if !ok || got != line {
				t.Fatalf("the session is dead: %q, %v", got, ok)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("the session hangs")
		}
	}
	echo("hello")
	return echo
}
