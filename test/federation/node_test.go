// Package federation tests the protocol as people have it: running agents,
// each a process with its own keys and state, over real brokers.
package federation

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/keys"
)

var program string // the agent's

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "federation")
	if err == nil {
		program = filepath.Join(dir, "agent")
		var out []byte
		if out, err = exec.Command("go", "build", "-o", program, "../../cmd/agent").CombinedOutput(); err != nil {
			err = fmt.Errorf("building the agent: %w\n%s", err, out)
		}
	}
	code := 1
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = m.Run()
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

// patience is generous: other tests keep the machine busy.
const patience = 90 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// A node is an agent's directories and, when it runs, its process.
type node struct {
	t       testing.TB
	name    string
	dir     string
	id      *keys.Identity
	brokers string // sections of the configuration
	rules   string
	client  *control.Client
	cmd     *exec.Cmd
	out     lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// newNode makes a machine of an operator of its own. It listens to nobody and
// publishes nothing until rules say so.
func newNode(t testing.TB, name string, brokers ...string) *node {
	t.Helper()
	n := &node{t: t, name: name, dir: t.TempDir()}
	for _, url := range brokers {
		n.brokers += fmt.Sprintf("[[brokers]]\nurl = %q\n", url)
	}
	n.client = control.NewClient(n.path("s"))
	var err error
	if n.id, err = keys.Open(n.path("state"), name, time.Now()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.kill()
		if t.Failed() {
			text := n.out.String()
			t.Logf("%s: %s", n.name, text[max(0, len(text)-3000):])
		}
	})
	return n
}

func (n *node) path(name string) string { return filepath.Join(n.dir, name) }

// trusts gives the section of the configuration that names operators.
func trusts(peers ...*node) (text string) {
	for _, p := range peers {
		text += fmt.Sprintf("[operators.%s]\nid = %q\n", p.name, p.id.Operator())
	}
	return text
}

// configure writes the configuration, and tells a running agent.
func (n *node) configure(rules string) {
	n.t.Helper()
	n.rules = rules
	text := "network = \"testnet\"\n" + n.brokers + "[firewall]\nmode = \"off\"\n" + rules
	if err := os.MkdirAll(n.path("config"), 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.WriteFile(n.path("config/agent.toml"), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
	if n.cmd != nil {
		n.do("reload")
	}
}

// start runs the agent and waits until it answers.
func (n *node) start() {
	n.t.Helper()
	n.cmd = n.command("run")
	n.cmd.Stdout, n.cmd.Stderr = &n.out, &n.out
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	eventually(n.t, n.name+" answers", func() bool {
		var s control.Status
		return n.client.Get(n.t.Context(), "/v1/status", nil, &s) == nil
	})
}

// stop ends the agent in order; kill as a power cut would.
func (n *node) stop() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	if err := n.cmd.Wait(); err != nil {
		n.t.Errorf("%s: %v", n.name, err)
	}
	n.cmd = nil
}

func (n *node) kill() {
	if n.cmd != nil {
		_ = n.cmd.Process.Kill()
		_ = n.cmd.Wait()
		n.cmd = nil
	}
}

func (n *node) command(args ...string) *exec.Cmd {
	return exec.Command(program, append([]string{"--config-dir", n.path("config"), "--state-dir", n.path("state"), "--socket", n.path("s")}, args...)...)
}

// do runs a command that must succeed and gives its output.
func (n *node) do(args ...string) string {
	n.t.Helper()
	out, err := n.command(args...).Output()
	if err != nil {
		var more []byte
		if x, ok := errors.AsType[*exec.ExitError](err); ok {
			more = x.Stderr
		}
		n.t.Fatalf("%s: agent %s: %v\n%s%s", n.name, strings.Join(args, " "), err, out, more)
	}
	return string(out)
}

// bans bans targets by hand for an hour.
func (n *node) bans(targets ...string) {
	n.t.Helper()
	for _, s := range targets {
		q := control.BanRequest{Target: ban.MustTarget(s), Topic: "sshd", For: 3600}
		if err := n.client.Post(n.t.Context(), "/v1/bans", q, nil); err != nil {
			n.t.Fatalf("%s bans %s: %v", n.name, s, err)
		}
	}
}

// banned gives the bans at the node, sorted.
func (n *node) banned() (out []string) {
	n.t.Helper()
	var list []control.Ban
	if err := n.client.Get(n.t.Context(), "/v1/bans", nil, &list); err != nil {
		n.t.Fatalf("%s: %v", n.name, err)
	}
	for _, b := range list {
		out = append(out, b.Target.String())
	}
	slices.Sort(out)
	return out
}

// has says whether exactly these targets are banned, given sorted.
func (n *node) has(targets ...string) func() bool {
	return func() bool { return slices.Equal(n.banned(), targets) }
}

func (n *node) status() (s control.Status) {
	n.t.Helper()
	if err := n.client.Get(n.t.Context(), "/v1/status", nil, &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// warns says whether the node's status has a warning of this code.
func (n *node) warns(code string) func() bool {
	return func() bool {
		return slices.ContainsFunc(n.status().Warnings, func(w control.Warning) bool { return w.Code == code })
	}
}

// feed gives how a feed of another node, or its own, stands at this one.
func (n *node) feed(of *node) (found control.Feed) {
	n.t.Helper()
	var list []control.Feed
	if err := n.client.Get(n.t.Context(), "/v1/feeds", nil, &list); err != nil {
		n.t.Fatal(err)
	}
	for _, f := range list {
		if f.Node == of.id.Node().String() && f.Topic == "sshd" {
			found = f
		}
	}
	return found
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A server is a broker in a process, which can be stopped and started.
type server struct {
	t    testing.TB
	port int
	args []string
	cmd  *exec.Cmd
}

func (s *server) url() string { return fmt.Sprintf("tcp://127.0.0.1:%d", s.port) }

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.args[0], s.args[1:]...)
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, s.args[0]+" listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (s *server) stop() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

// mosquitto runs the distribution's broker on a free port with a configuration
// of which the first line is the listener.
func mosquitto(t testing.TB, config ...string) *server {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/mosquitto"); err != nil {
			t.Skip("mosquitto is not installed")
		}
	}
	s := &server{t: t, port: freePort(t)}
	text := fmt.Sprintf("listener %d 127.0.0.1\n", s.port)
	if len(config) == 0 {
		config = []string{"allow_anonymous true"}
	}
	if os.Geteuid() == 0 {
		text = "user root\n" + text // so that it can read the test's files
	}
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(file, []byte(text+strings.Join(config, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{path, "-c", file}
	s.start()
	t.Cleanup(s.stop)
	return s
}
