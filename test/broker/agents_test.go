// Package broker tests networks of brokers as agents use them: real agents'
// sessions against our broker, a NATS cluster and a pair of mosquittos.
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker"
	"banmesh/internal/federation"
	"banmesh/internal/keys"
	"banmesh/internal/store"
)

const patience = 2 * time.Minute

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// A node is an agent's session and the bans that it heard.
type node struct {
	t  testing.TB
	id *keys.Identity
	s  *federation.Session

	mu   sync.Mutex
	bans map[ban.Target]bool
}

func newNode(t testing.TB, name string, urls ...string) *node {
	t.Helper()
	var brokers []federation.Broker
	for _, u := range urls {
		brokers = append(brokers, federation.Broker{URL: u})
	}
	return connect(t, name, brokers...)
}

func connect(t testing.TB, name string, brokers ...federation.Broker) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{t: t, bans: map[ban.Target]bool{}}
	var err error
	if n.id, err = keys.Open(filepath.Join(dir, "keys"), name, time.Now()); err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(filepath.Join(dir, "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	o := federation.Options{Network: "net", Identity: n.id, Store: st, Apply: n.apply, Brokers: brokers, Log: slog.New(slog.NewTextHandler(t.Output(), nil)).With("node", name)}
	if n.s, err = federation.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func (n *node) apply(_ context.Context, c ban.Change) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if c.Reset {
		clear(n.bans)
	}
	for _, x := range c.Claims {
		n.bans[x.Target] = true
	}
	for _, x := range c.Withdrawn {
		delete(n.bans, x.Target)
	}
	return nil
}

func (n *node) has() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.bans)
}

func (n *node) publishes() { n.s.Publish([]ban.Topic{"sshd"}) }

func (n *node) follows(a *node) {
	n.s.Follow([]federation.Following{{Topic: "sshd", Operator: a.id.Operator()}})
}

// say bans 10.0.x.y for x from first, below last.
func (n *node) say(first, last int) {
	n.t.Helper()
	for i := first; i < last; i++ {
		target := ban.MustTarget(fmt.Sprintf("10.0.%d.%d", i/250, i%250+1))
		if err := n.s.Say("sshd", []ban.Claim{{Target: target, End: time.Now().Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Basis: ban.BasisStrong}}, nil); err != nil {
			n.t.Fatal(err)
		}
	}
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

// ours runs the community broker with admission and proof of key.
func ours(t testing.TB, port int, state string) (stop func()) {
	t.Helper()
	b, err := broker.New(broker.Options{
		Network: "net", Keys: true, Names: []string{"127.0.0.1"}, StateDir: state,
		Listeners: []broker.Listener{{Kind: broker.TCP, Address: fmt.Sprintf("127.0.0.1:%d", port)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func TestAgentsShareBansOverOurBrokerAndItsLoss(t *testing.T) {
	t.Parallel()
	port := freePort(t)
	url := fmt.Sprintf("tcp://127.0.0.1:%d", port)
	stop := ours(t, port, t.TempDir())
	alice, bob := newNode(t, "alice", url), newNode(t, "bob", url)
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 100)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 100 })

	// The broker loses everything it had.
	stop()
	if bob.has() != 100 {
		t.Errorf("bob has %d bans without a broker", bob.has())
	}
	ours(t, port, t.TempDir())
	alice.say(100, 120)
	eventually(t, "bob hears on", func() bool { return bob.has() == 120 })
	carol := newNode(t, "carol", url)
	carol.follows(alice)
	eventually(t, "a late joiner converges", func() bool { return carol.has() == 120 })
}

func TestAgentsShareBansOverTwoOfOurBrokersWithoutACluster(t *testing.T) {
	t.Parallel()
	ports := []int{freePort(t), freePort(t)}
	urls := []string{fmt.Sprintf("tcp://127.0.0.1:%d", ports[0]), fmt.Sprintf("tcp://127.0.0.1:%d", ports[1])}
	stop := ours(t, ports[0], t.TempDir())
	ours(t, ports[1], t.TempDir())
	alice, bob := newNode(t, "alice", urls...), newNode(t, "bob", urls...)
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 50)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 50 })
	stop()
	alice.say(50, 100)
	eventually(t, "one broker is enough", func() bool { return bob.has() == 100 })
}

// server starts a broker in a process and waits until it accepts.
func server(t *testing.T, port int, name string, arg ...string) (kill func()) {
	t.Helper()
	cmd := exec.Command(name, arg...)
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	log.Close()
	kill = sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	t.Cleanup(kill)
	t.Cleanup(func() {
		if b, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("%s: %s", name, b[max(0, len(b)-8000):])
		}
	})
	eventually(t, name+" listens", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		c.Close()
		return true
	})
	return kill
}

// deployed reads a file of deploy/ and replaces the hosts in it.
func deployed(t *testing.T, name string, replace ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(text, replace[i]) {
			t.Fatalf("deploy/%s no longer has %q", name, replace[i])
		}
		text = strings.ReplaceAll(text, replace[i], replace[i+1])
	}
	path := filepath.Join(t.TempDir(), filepath.Base(name))
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// natsServer builds nats-server, as its module has it.
func natsServer(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "nats-server")
	build := exec.Command("go", "build", "-o", binary, "github.com/nats-io/nats-server/v2")
	build.Dir = "nats"
	if out, err := build.CombinedOutput(); err != nil {
		t.Skipf("nats-server cannot be built here: %v\n%s", err, out)
	}
	return binary
}

// natsCluster runs the three nodes of deploy/nats, each with more lines at the
// end of its file.
func natsCluster(t *testing.T, more func(i int) string) (urls []string, kills []func()) {
	t.Helper()
	binary := natsServer(t)
	var replace []string
	ports := map[string]int{}
	for i := 1; i <= 3; i++ {
		for _, port := range []int{4222, 6222, 1883} {
			name := fmt.Sprintf("nats-%d:%d", i, port)
			ports[name] = freePort(t)
			replace = append(replace, name, fmt.Sprintf("127.0.0.1:%d", ports[name]))
		}
	}
	for i := 1; i <= 3; i++ {
		var mine []string // only lines of the node's own file
		b, err := os.ReadFile(fmt.Sprintf("../../deploy/nats/nats-%d.conf", i))
		if err != nil {
			t.Fatal(err)
		}
		for j := 0; j < len(replace); j += 2 {
			if strings.Contains(string(b), replace[j]) {
				mine = append(mine, replace[j:j+2]...)
			}
		}
		conf := deployed(t, fmt.Sprintf("nats/nats-%d.conf", i), append(mine, "/var/lib/nats", t.TempDir())...)
		f, err := os.OpenFile(conf, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteString(more(i))
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		port := ports[fmt.Sprintf("nats-%d:1883", i)]
		kills = append(kills, server(t, port, binary, "-c", conf))
		urls = append(urls, fmt.Sprintf("tcp://127.0.0.1:%d", port))
	}
	return urls, kills
}

func TestANodeOfANATSClusterDiesWhileAgentsPublish(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("it builds nats-server")
	}
	urls, kills := natsCluster(t, func(int) string { return "" })
	// Each agent starts at another node, and knows them all; both lose theirs.
	alice := connect(t, "alice", federation.Broker{URL: urls[0], Others: urls[1:]})
	bob := connect(t, "bob", federation.Broker{URL: urls[0], Others: []string{urls[2], urls[1]}})
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 50)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 50 })
	killed := make(chan struct{})
	go func() { defer close(killed); kills[0]() }()
	alice.say(50, 150) // while the node dies
	<-killed
	alice.say(150, 200)
	eventually(t, "nothing is lost", func() bool { return bob.has() == 200 })
	carol := connect(t, "carol", federation.Broker{URL: urls[2], Others: urls[:2]})
	carol.follows(alice)
	eventually(t, "a late joiner at another node converges", func() bool { return carol.has() == 200 })
}

func TestAPairOfMosquittosCarriesANetwork(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	acl := deployed(t, "mosquitto/banmesh.acl")
	if err := os.Chmod(filepath.Dir(acl), 0o755); err != nil {
		t.Fatal(err)
	}
	config := func(port int, more string) string {
		name := deployed(t, "mosquitto/mosquitto.conf", "listener 1883", fmt.Sprintf("listener %d 127.0.0.1", port), "/etc/mosquitto/banmesh.acl", acl, "persistence true", "persistence false")
		if os.Geteuid() == 0 {
			more += "\nuser root\n" // so that it can read the test's files
		}
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(more); err != nil {
			t.Fatal(err)
		}
		return name
	}
	hub, leaf := freePort(t), freePort(t)
	bridge, err := os.ReadFile(deployed(t, "mosquitto/bridge.conf", "peer.example.org:1883", fmt.Sprintf("127.0.0.1:%d", hub)))
	if err != nil {
		t.Fatal(err)
	}
	hubConf := config(hub, "")
	killHub := server(t, hub, path, "-c", hubConf)
	server(t, leaf, path, "-c", config(leaf, "\n"+string(bridge)))
	alice, bob := newNode(t, "alice", fmt.Sprintf("tcp://127.0.0.1:%d", leaf)), newNode(t, "bob", fmt.Sprintf("tcp://127.0.0.1:%d", hub))
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 50)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 50 })
	killHub()
	alice.say(50, 100)
	if bob.has() < 50 {
		t.Errorf("bob lost bans with the hub: %d", bob.has())
	}
	server(t, hub, path, "-c", hubConf)
	eventually(t, "bob hears what he missed", func() bool { return bob.has() == 100 })
}

// A mosquitto that bridges to our broker with its defaults works, which the
// engine alone refuses.
func TestAMosquittoBridgesToOurOpenBroker(t *testing.T) {
	t.Parallel()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("mosquitto is not installed")
	}
	b, err := broker.New(broker.Options{Open: true, Anonymous: broker.AccessFull, Listeners: []broker.Listener{{Kind: broker.TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	leaf := freePort(t)
	conf := filepath.Join(t.TempDir(), "leaf.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nconnection hub\naddress %s\ntopic banmesh/1/# both 1\nnotifications false\n", leaf, b.Addr())
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	server(t, leaf, path, "-c", conf)
	alice, bob := newNode(t, "alice", fmt.Sprintf("tcp://127.0.0.1:%d", leaf)), newNode(t, "bob", "tcp://"+b.Addr().String())
	alice.publishes()
	bob.follows(alice)
	alice.say(0, 50)
	eventually(t, "bob has all of it", func() bool { return bob.has() == 50 })
	bob.publishes()
	alice.follows(bob)
	bob.say(0, 10)
	eventually(t, "and the other way round", func() bool { return alice.has() == 10 })
}
