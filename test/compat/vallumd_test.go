package compat

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"banmesh/internal/agent"
	"banmesh/internal/control"
	"banmesh/internal/firewall/testnet"
	"banmesh/internal/store"
)

// A mosquitto is Debian's broker with the other side of vallumd's contract: what
// mosquitto_sub hears in every set, and mosquitto_pub.
type mosquitto struct {
	t    *testing.T
	port string
	stop func()
}

func newMosquitto(t *testing.T, port string) *mosquitto {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	if port == "" {
		l := testnet.ListenTCP(t, "127.0.0.1:0")
		_, port, _ = net.SplitHostPort(l.Addr().String())
		testnet.Must(t, l.Close())
	}
	path := filepath.Join(t.TempDir(), "mosquitto.conf")
	testnet.Must(t, os.WriteFile(path, []byte("listener "+port+" 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"), 0o600))
	c := exec.Command(program, "-c", path)
	testnet.Must(t, c.Start())
	m := &mosquitto{t: t, port: port}
	m.stop = sync.OnceFunc(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	t.Cleanup(m.stop)
	testnet.Eventually(t, func() bool {
		nc, err := net.Dial("tcp", "127.0.0.1:"+port)
		return err == nil && nc.Close() == nil
	})
	return m
}

func (m *mosquitto) say(topic, payload string, more ...string) {
	m.t.Helper()
	testnet.Run(m.t, "mosquitto_pub", append([]string{"-p", m.port, "-q", "1", "-t", topic, "-m", payload}, more...)...)
}

// Sets are those of a vallumd that never forgets.
type vallumdSets struct {
	mu  sync.Mutex
	has map[string]bool
}

// listen follows the broker as vallumd does.
func (m *mosquitto) listen() *vallumdSets {
	m.t.Helper()
	c := exec.Command("mosquitto_sub", "-p", m.port, "-q", "2", "-t", "sshd/#", "-t", "ready", "-F", "%t %p")
	out, err := c.StdoutPipe()
	testnet.Must(m.t, err)
	testnet.Must(m.t, c.Start())
	s := &vallumdSets{has: map[string]bool{}}
	done, ready := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		told := sync.OnceFunc(func() { close(ready) })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			topic, payload, _ := strings.Cut(lines.Text(), " ")
			s.mu.Lock()
			switch topic {
			case "ready":
				told()
			case "sshd/add":
				s.has[payload] = true
			case "sshd/del":
				delete(s.has, payload)
			}
			s.mu.Unlock()
		}
	}()
	m.t.Cleanup(func() {
		_ = c.Process.Kill()
		<-done
		_ = c.Wait()
	})
	testnet.Eventually(m.t, func() bool {
		m.say("ready", "x")
		select {
		case <-ready:
			return true
		default:
			return false
		}
	})
	return s
}

// A relay is the way to a broker, which can be cut.
type relay struct {
	t        *testing.T
	to, port string

	mu    sync.Mutex
	conns []net.Conn
	l     net.Listener
	over  sync.WaitGroup
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	r := &relay{t: t, to: to, port: "0"}
	r.open()
	t.Cleanup(r.cut)
	return r
}

func (r *relay) open() {
	r.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:"+r.port)
	testnet.Must(r.t, err)
	_, r.port, _ = net.SplitHostPort(l.Addr().String())
	r.mu.Lock()
	r.l = l
	r.mu.Unlock()
	r.over.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", "127.0.0.1:"+r.to)
			if err != nil {
				near.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, near, far)
			if r.l != l { // it was cut meanwhile
				near.Close()
				far.Close()
			}
			r.mu.Unlock()
			for _, pair := range [][2]net.Conn{{near, far}, {far, near}} {
				r.over.Go(func() {
					_, _ = io.Copy(pair[0], pair[1])
					pair[0].Close()
				})
			}
		}
	})
}

func (r *relay) cut() {
	r.mu.Lock()
	if r.l != nil {
		r.l.Close()
	}
	r.l = nil
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
	r.mu.Unlock()
	r.over.Wait()
}

// forget removes an element as the set's own timeout would.
func (s *vallumdSets) forget(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.has, addr)
}

func (s *vallumdSets) holds(addrs ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.has) != len(addrs) {
		return false
	}
	for _, a := range addrs {
		if !s.has[a] {
			return false
		}
	}
	return true
}

// A vallumdNode is an agent that can be stopped and started again.
type vallumdNode struct {
	t    *testing.T
	dir  string
	c    *control.Client
	stop func()
}

func newVallumdNode(t *testing.T, m *mosquitto, more string) *vallumdNode {
	t.Helper()
	n := &vallumdNode{t: t, dir: t.TempDir()}
	testnet.Must(t, os.MkdirAll(filepath.Join(n.dir, "config"), 0o755))
	testnet.Must(t, os.WriteFile(filepath.Join(n.dir, "config", "agent.toml"), []byte(fmt.Sprintf(`
embedded_broker.enabled = false
[topics.sshd]
detect = false
[[vallumd]]
name = "home"
url = "tcp://127.0.0.1:%s"
%s
`, m.port, more)), 0o600))
	n.start()
	return n
}

func (n *vallumdNode) start() {
	n.t.Helper()
	n.run()
	testnet.Eventually(n.t, func() bool { s, err := n.status(); return err == nil && s.Connected })
}

// run starts the agent, whether or not there is a broker.
func (n *vallumdNode) run() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	socket := filepath.Join(n.dir, "agent.sock")
	go func() {
		over <- agent.Run(ctx, agent.Options{ConfigDir: filepath.Join(n.dir, "config"), StateDir: filepath.Join(n.dir, "state"), Socket: socket})
	}()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			n.t.Errorf("agent: %v", err)
		}
	})
	n.t.Cleanup(n.stop)
	n.c = control.NewClient(socket)
	testnet.Eventually(n.t, func() bool { _, err := n.status(); return err == nil })
}

func (n *vallumdNode) status() (control.Vallumd, error) {
	var s control.Status
	if err := n.c.Get(context.Background(), "/v1/status", nil, &s); err != nil {
		return control.Vallumd{}, err
	}
	if len(s.Vallumd) != 1 {
		return control.Vallumd{}, errors.New("no line of vallumd")
	}
	return s.Vallumd[0], nil
}

func (n *vallumdNode) command(args ...string) string {
	n.t.Helper()
	self, err := os.Executable()
	testnet.Must(n.t, err)
	c := exec.Command(self, append([]string{"--config-dir", filepath.Join(n.dir, "config"), "--socket", filepath.Join(n.dir, "agent.sock")}, args...)...)
	c.Env = append(os.Environ(), "BANMESH_TEST_COMMAND=agent")
	out, err := c.CombinedOutput()
	if err != nil {
		n.t.Fatalf("agent %v: %v\n%s", args, err, out)
	}
	return string(out)
}

const firewallOff = "[firewall]\nmode = \"off\"\n"

func TestVallumdsSetsFollowTheBansHere(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, "")
	heard := m.listen()
	way := newRelay(t, m.port)
	n := newVallumdNode(t, &mosquitto{port: way.port}, "publish = [\"sshd\"]\naccept = [\"sshd\"]\n"+firewallOff)
	n.command("ban", "198.51.100.7", "--topic", "sshd", "--for", "1h")
	n.command("ban", "203.0.113.0/30", "--topic", "sshd", "--for", "1h")
	all := []string{"198.51.100.7", "203.0.113.0", "203.0.113.1", "203.0.113.2", "203.0.113.3"}
	testnet.Eventually(t, func() bool { return heard.holds(all...) })
	n.command("withdraw", "198.51.100.7", "--topic", "sshd")
	testnet.Eventually(t, func() bool { return heard.holds(all[1:]...) })

	// Our own messages come back, and count for nothing.
	m.say("sshd/add", "198.51.100.9")
	testnet.Eventually(t, func() bool { s, err := n.status(); return err == nil && s.Received == 1 })
	if s := n.command("explain", "203.0.113.1"); strings.Contains(s, "vallumd:home") {
		t.Errorf("our own message came in:\n%s", s)
	}

	// A ban that ends while the connection is cut, and the node restarted, is deleted
	// when the broker is back; the others are said again.
	all = append([]string{"198.51.100.9"}, all[1:]...)
	for _, addr := range []string{"198.51.100.10", "198.51.100.11"} {
		n.command("ban", addr, "--topic", "sshd", "--for", "1h")
		all = append(all, addr)
	}
	testnet.Eventually(t, func() bool { return heard.holds(all...) })
	for _, restarted := range []bool{false, true} {
		way.cut()
		testnet.Eventually(t, func() bool { s, err := n.status(); return err == nil && !s.Connected })
		n.command("withdraw", all[len(all)-1], "--topic", "sshd")
		all = all[:len(all)-1]
		heard.forget(all[1])
		if restarted {
			n.stop()
			n.run()
		}
		way.open()
		testnet.Eventually(t, func() bool { return heard.holds(all...) })
	}
}

func TestMessagesOfVallumdAreOfAPseudoOperator(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, "")
	m.say("sshd/add", "198.51.100.66", "-r")
	n := newVallumdNode(t, m, "accept = [\"sshd\"]\nfor = \"1h\"\n"+firewallOff)
	m.say("sshd/add", "198.51.100.7")
	m.say("sshd/add", "198.51.100.8")
	m.say("sshd/add", "nonsense")
	testnet.Eventually(t, func() bool { s, err := n.status(); return err == nil && s.Received == 2 && s.Ignored == 2 })
	for _, when := range []string{"at first", "after a restart"} {
		if s := n.command("explain", "198.51.100.7"); !strings.Contains(s, "vallumd:home") || !strings.Contains(s, "watch") {
			t.Errorf("%s: explain says\n%s", when, s)
		}
		if s := n.command("explain", "198.51.100.66"); strings.Contains(s, "vallumd:home") {
			t.Errorf("%s: a retained message counts:\n%s", when, s)
		}
		n.stop()
		n.start()
	}
	// A deletion takes back the broker's word alone.
	n.command("ban", "198.51.100.7", "--topic", "sshd", "--for", "1h")
	m.say("sshd/del", "198.51.100.7")
	m.say("sshd/del", "198.51.100.99")
	testnet.Eventually(t, func() bool { return !strings.Contains(n.command("explain", "198.51.100.7"), "vallumd:home") })
	if s := n.command("explain", "198.51.100.7"); !strings.Contains(s, "banned") {
		t.Errorf("a message lifted our own ban:\n%s", s)
	}
	if s := n.command("explain", "198.51.100.8"); !strings.Contains(s, "vallumd:home") {
		t.Errorf("a message took more back than its own:\n%s", s)
	}
	if s := n.command("peers"); !strings.Contains(s, "vallumd:home") {
		t.Errorf("peers says\n%s", s)
	}
	if s := n.command("status"); !strings.Contains(s, "vallumd:home on tcp://127.0.0.1:"+m.port+": connected; received ") {
		t.Errorf("status says\n%s", s)
	}
	// A person's word ends the broker's word, also when it is said again.
	n.command("withdraw", "--all", "--by", "vallumd:home")
	m.say("sshd/add", "198.51.100.8")
	m.say("sshd/add", "198.51.100.10")
	testnet.Eventually(t, func() bool { return strings.Contains(n.command("explain", "198.51.100.10"), "watch") })
	n.stop()
	n.start()
	if s := n.command("explain", "198.51.100.8"); !strings.Contains(s, "does not count") {
		t.Errorf("it counts all the same:\n%s", s)
	}
}

// Two nodes that tell and believe each other on one broker keep no ban alive: what one
// has from the other it does not tell on.
func TestTwoNodesOnOneBrokerMakeNoLoop(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, "")
	heard := m.listen()
	const both = "publish = [\"sshd\"]\naccept = [\"sshd\"]\nrule = \"ban\"\n" + firewallOff
	a, b := newVallumdNode(t, m, both), newVallumdNode(t, m, both)
	a.command("ban", "198.51.100.7", "--topic", "sshd", "--for", "1h")
	testnet.Eventually(t, func() bool { return strings.Contains(b.command("explain", "198.51.100.7"), "is banned in sshd") })
	// A ban of the other's own is behind everything that it might tell on.
	b.command("ban", "198.51.100.8", "--topic", "sshd", "--for", "1h")
	testnet.Eventually(t, func() bool { return heard.holds("198.51.100.7", "198.51.100.8") })
	var s control.Vallumd
	testnet.Eventually(t, func() (ok bool) { s, _ = b.status(); return s.Told > 0 })
	if s.Told != 1 {
		t.Errorf("it tells %d bans on", s.Told)
	}
	a.command("withdraw", "198.51.100.7", "--topic", "sshd")
	testnet.Eventually(t, func() bool {
		return heard.holds("198.51.100.8") && strings.Contains(b.command("explain", "198.51.100.7"), "not banned") && strings.Contains(a.command("explain", "198.51.100.7"), "not banned")
	})
}

// The whole path: a message of vallumd's on Debian's broker, and the kernel drops the
// packets of whom it names; the deletion opens the way again. The broker asks for a
// password over TLS.
func TestAMessageOfVallumdsClosesThePort(t *testing.T) {
	t.Parallel()
	testnet.Enter(t)
	const here, offender, other = "198.18.0.1", "198.18.0.7", "198.18.0.8"
	host := testnet.Attach(t, "lan", []string{here + "/24"}, []string{offender + "/24", other + "/24"})
	l := testnet.ListenTCP(t, here+":22")
	dir := t.TempDir()
	testnet.Must(t, os.Chmod(dir, 0o755))
	at := func(name string) string { return filepath.Join(dir, name) }
	testnet.Run(t, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=home", "-addext", "subjectAltName=DNS:home", "-keyout", at("key.pem"), "-out", at("cert.pem"))
	testnet.Run(t, "mosquitto_passwd", "-c", "-b", at("accounts"), "agent", "swordfish")
	testnet.Must(t, os.WriteFile(at("password"), []byte("swordfish\n"), 0o600))
	testnet.Must(t, os.WriteFile(at("mosquitto.conf"), fmt.Appendf(nil, "user root\nlistener 8883 127.0.0.1\nallow_anonymous false\npassword_file %[1]s/accounts\ncertfile %[1]s/cert.pem\nkeyfile %[1]s/key.pem\n", dir), 0o600))
	start(t, "mosquitto", "-c", at("mosquitto.conf"))
	testnet.Must(t, os.MkdirAll(at("config"), 0o755))
	testnet.Must(t, os.WriteFile(at("config/agent.toml"), fmt.Appendf(nil, `
embedded_broker.enabled = false
may_ban = ["198.18.0.0/15"]
[topics.sshd]
detect = false
[[vallumd]]
name = "home"
url = "ssl://127.0.0.1:8883"
user = "agent"
password_file = "%[1]s/password"
ca_file = "%[1]s/cert.pem"
server_name = "home"
accept = ["sshd"]
rule = "ban"
`, dir), 0o600))
	self, err := os.Executable()
	testnet.Must(t, err)
	program := []string{"BANMESH_TEST_COMMAND=agent", self, "--config-dir", at("config"), "--state-dir", at("state"), "--socket", at("agent.sock")}
	run := func() (kill func()) {
		c := exec.Command("env", append(program, "run")...)
		testnet.Must(t, c.Start())
		kill = sync.OnceFunc(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		t.Cleanup(kill)
		return kill
	}
	kill := run()
	say := func(action, addr string) {
		testnet.Run(t, "mosquitto_pub", "-h", "127.0.0.1", "-p", "8883", "--cafile", at("cert.pem"), "--insecure", "-u", "agent", "-P", "swordfish", "-q", "1", "-t", "sshd/"+action, "-m", addr)
	}
	connected := func() bool {
		out, err := exec.Command("env", append(program, "status")...).CombinedOutput()
		return err == nil && strings.Contains(string(out), "vallumd:home on ssl://127.0.0.1:8883: connected")
	}
	testnet.Eventually(t, connected)
	if _, _, err := host.Dial(offender, here+":22", l); err != nil {
		t.Fatal(err)
	}
	say("add", offender)
	testnet.Eventually(t, func() bool { return host.Refused(offender, here+":22", l) })
	if _, _, err := host.Dial(other, here+":22", l); err != nil {
		t.Errorf("somebody else is dropped: %v", err)
	}
	say("add", here) // this machine itself
	// A kill loses nothing.
	kill()
	run()
	testnet.Eventually(t, connected)
	if !host.Refused(offender, here+":22", l) {
		t.Error("the kill opened the port")
	}
	say("del", offender)
	testnet.Eventually(t, func() bool { return !host.Refused(offender, here+":22", l) })
	out, err := exec.Command("env", append(program, "explain", here)...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "not banned") {
		t.Errorf("%v: %s", err, out)
	}
}

// Lines of junk, and as many addresses as anybody can write, stay within the
// budget, and the node goes on answering.
func TestAFloodOfVallumdsMessagesIsBounded(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, "")
	n := newVallumdNode(t, m, "accept = [\"sshd\"]\nlive = 100\n"+firewallOff)
	flood := func(topic string, lines func(*bytes.Buffer)) {
		var b bytes.Buffer
		lines(&b)
		c := exec.Command("mosquitto_pub", "-p", m.port, "-t", topic, "-l")
		c.Stdin = &b
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	flood("sshd/add", func(b *bytes.Buffer) {
		for i := range 20_000 {
			fmt.Fprintf(b, "junk %d\n", i)
		}
	})
	flood("sshd/add", func(b *bytes.Buffer) {
		for i := range 2_000 {
			fmt.Fprintf(b, "203.0.%d.%d\n", 113+i/256, i%256)
		}
	})
	m.say("sshd/del", "203.0.113.1")
	testnet.Eventually(t, func() bool {
		s, err := n.status()
		return err == nil && s.Ignored > 0 && s.Full > 0
	})
	var peers []control.Peer
	testnet.Must(t, n.c.Get(t.Context(), "/v1/peers", nil, &peers))
	if len(peers) != 1 || peers[0].Claims > 100 || peers[0].Claims == 0 {
		t.Errorf("%+v", peers)
	}
	n.stop()
	db, err := store.Open(filepath.Join(n.dir, "state", "agent.db"))
	testnet.Must(t, err)
	records := 0
	testnet.Must(t, db.View(func(tx store.Tx) error {
		return tx.Each("vallumd", "", func(string, []byte) error { records++; return nil })
	}))
	testnet.Must(t, db.Close())
	if records == 0 || records > 101 { // and the session
		t.Errorf("%d records are kept", records)
	}
}

// Whoever has the broker's word for a message has ours too: killed again and again while
// messages come in, and away while more of them come, the node has them all in the end.
func TestAKillLosesNoMessageOfVallumds(t *testing.T) {
	t.Parallel()
	const each, rounds = 60, 3
	m := newMosquitto(t, "")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	testnet.Must(t, os.MkdirAll(at("config"), 0o755))
	testnet.Must(t, os.WriteFile(at("config/agent.toml"), fmt.Appendf(nil, "embedded_broker.enabled = false\n[topics.sshd]\ndetect = false\n[[vallumd]]\nname = \"home\"\nurl = \"tcp://127.0.0.1:%s\"\naccept = [\"sshd\"]\nper_hour = 1000\n%s", m.port, firewallOff), 0o600))
	self, err := os.Executable()
	testnet.Must(t, err)
	client := control.NewClient(at("agent.sock"))
	run := func() (kill func()) {
		c := exec.Command(self, "--config-dir", at("config"), "--state-dir", at("state"), "--socket", at("agent.sock"), "run")
		c.Env = append(os.Environ(), "BANMESH_TEST_COMMAND=agent")
		testnet.Must(t, c.Start())
		kill = sync.OnceFunc(func() {
			_ = c.Process.Kill()
			_ = c.Wait()
		})
		t.Cleanup(kill)
		return kill
	}
	status := func() control.Vallumd {
		var s control.Status
		if err := client.Get(t.Context(), "/v1/status", nil, &s); err != nil || len(s.Vallumd) == 0 {
			return control.Vallumd{}
		}
		return s.Vallumd[0]
	}
	say := func(from, n int) {
		var b bytes.Buffer
		for i := from; i < from+n; i++ {
			fmt.Fprintf(&b, "203.0.113.%d\n", i)
		}
		c := exec.Command("mosquitto_pub", "-p", m.port, "-q", "1", "-t", "sshd/add", "-l")
		c.Stdin = &b
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	kill := run()
	testnet.Eventually(t, func() bool { return status().Connected })
	for round := range rounds {
		var saying sync.WaitGroup
		saying.Go(func() { say(1+round*each, each-10) })
		testnet.Eventually(t, func() bool { return status().Received > 0 })
		kill() // most of them are under way
		saying.Wait()
		say(1+round*each+each-10, 10)
		kill = run()
	}
	testnet.Eventually(t, func() bool {
		var list []control.Peer
		return client.Get(t.Context(), "/v1/peers", nil, &list) == nil && len(list) == 1 && list[0].Claims == each*rounds
	})
}

// A broker that suddenly tells many more than usual is held for a person.
func TestAFloodOfVallumdsAddressesWaitsForAPerson(t *testing.T) {
	t.Parallel()
	m := newMosquitto(t, "")
	n := newVallumdNode(t, m, "accept = [\"sshd\"]\n"+firewallOff)
	var b bytes.Buffer
	for i := range 3_000 {
		fmt.Fprintf(&b, "203.0.%d.%d\n", 113+i/256, i%256)
	}
	c := exec.Command("mosquitto_pub", "-p", m.port, "-q", "1", "-t", "sshd/add", "-l")
	c.Stdin = &b
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var p control.Peer
	testnet.Eventually(t, func() bool {
		var list []control.Peer
		if err := n.c.Get(t.Context(), "/v1/peers", nil, &list); err != nil || len(list) != 1 {
			return false
		}
		p = list[0]
		return p.Waiting >= 2_800
	})
	if p.Waiting != 2_800 {
		t.Errorf("%d wait: %+v", p.Waiting, p)
	}
	if s := n.command("status"); !strings.Contains(s, "claims of vallumd:home in sshd wait") || !strings.Contains(s, "200 watched") {
		t.Errorf("status says\n%s", s)
	}
	n.command("hold", "approve", "vallumd:home", "--topic", "sshd")
	testnet.Eventually(t, func() bool { return strings.Contains(n.command("status"), "3000 watched") })
}
