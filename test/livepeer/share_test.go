package livepeer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/gate"
)

// walletTopic is a topic of the test's own, so that it does not depend on
// those that the agent ships.
const walletTopic = "test-wallets"

// marker is a wallet that is denied first.
const marker = "0x27b1fdb04752bbc536007a920d24acb045561c26"

// node is a running agent.
type node struct {
	name, dir string
	client    *control.Client
	cmd       *exec.Cmd
	out       bytes.Buffer
}

// agent gives a command of the agent for this node.
func (n *node) agent(binary string, args ...string) *exec.Cmd {
	return exec.Command(binary, append([]string{"--config-dir", filepath.Join(n.dir, "config"), "--state-dir", filepath.Join(n.dir, "state"), "--socket", filepath.Join(n.dir, "s")}, args...)...)
}

// newNode writes the configuration of a node.
func newNode(t *testing.T, name, config string) *node {
	t.Helper()
	n := &node{name: name, dir: t.TempDir()}
	n.client = control.NewClient(filepath.Join(n.dir, "s"))
	for file, text := range map[string]string{
		"agent.toml":                        "[firewall]\nmode = \"off\"\n" + config,
		"topics.d/" + walletTopic + ".toml": "name = \"" + walletTopic + "\"\ntitle = \"Wallets of a test\"\ntarget = \"wallet\"\n",
	} {
		file = filepath.Join(n.dir, "config", file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// run starts the agent and waits until it answers.
func (n *node) run(t *testing.T, binary string) control.Status {
	t.Helper()
	n.cmd = n.agent(binary, "run")
	n.cmd.Stdout, n.cmd.Stderr = &n.out, &n.out
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		cut := time.AfterFunc(20*time.Second, func() { _ = n.cmd.Process.Kill() })
		defer cut.Stop()
		err := n.cmd.Wait()
		if err != nil || t.Failed() {
			t.Logf("agent %s: %v\n%s", n.name, err, &n.out)
		}
	})
	var s control.Status
	eventually(t, n.name+" answers", 30*time.Second, func() bool { return n.client.Get(t.Context(), "/v1/status", nil, &s) == nil })
	return s
}

// eventually waits until a claim holds and gives how long it took.
func eventually(t *testing.T, claim string, most time.Duration, holds func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Since(began) > most {
			t.Fatalf("not within %s: %s", most, claim)
		}
		<-tick.C
	}
	return time.Since(began)
}

func appendTo(file, text string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// freeAddress gives a loopback address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestADenialOfOneOperatorIsEnforcedAtAnothersGate: A denies a wallet by hand,
// B opted in and trusts A, so B's gate refuses it; A withdraws, B admits it.
func TestADenialOfOneOperatorIsEnforcedAtAnothersGate(t *testing.T) {
	t.Parallel()
	binary := buildAgent(t)
	broker := freeAddress(t)
	a := newNode(t, "A", fmt.Sprintf("[embedded_broker]\nenabled = true\nlisten = %q\n[topics.%s]\npublish = true\n", broker, walletTopic))
	b := newNode(t, "B", fmt.Sprintf("[[brokers]]\nurl = \"tcp://%s\"\n", broker))
	file := filepath.Join(b.dir, "gate", "wallets")
	var said bytes.Buffer // the gate's words
	m := &Manager{Program: build(t, "gate"), File: file, Log: &said}
	gateAddress, err := StartManager(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	if err := appendTo(filepath.Join(b.dir, "config", "agent.toml"), fmt.Sprintf("[gate]\nenabled = true\nlisten = %q\nfile = %q\n", gateAddress, file)); err != nil {
		t.Fatal(err)
	}
	status := a.run(t, binary)
	for _, args := range [][]string{{"peers", "trust", "alice", status.Operator}, {"topics", "subscribe", walletTopic}} {
		if out, err := b.agent(binary, args...).CombinedOutput(); err != nil {
			t.Fatalf("agent %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	b.run(t, binary)
	eventually(t, "both are connected to the broker", 30*time.Second, func() bool {
		var s control.Status
		err := b.client.Get(t.Context(), "/v1/status", nil, &s)
		return err == nil && len(s.Brokers) == 1 && s.Brokers[0].Connected
	})
	path, err := os.ReadFile(filepath.Join(b.dir, "state", "gate.path"))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	o := Orchestrator{"http://" + gateAddress + "/" + strings.TrimSpace(string(path)), &http.Client{Transport: transport, Timeout: 10 * time.Second}}
	refuses := func(wallet string) bool {
		_, err := o.Authenticate(wallet)
		if err != nil && err.Error() != "authentication failed: not served by this orchestrator\n" {
			t.Fatal(err)
		}
		return err != nil
	}
	if refuses(bad) {
		t.Fatal("the wallet is refused before anybody denied it")
	}
	post := func(path string, body any) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := a.client.Post(ctx, path, body, nil); err != nil {
			t.Fatal(err)
		}
	}
	class := ban.ClassPayment
	// Another wallet first shows that B has joined A's feed, so that what is
	// measured is a denial and not the start.
	post("/v1/bans", control.BanRequest{Target: ban.MustTarget(marker), Topic: walletTopic, For: 3600, Class: &class})
	eventually(t, "B's gate refuses the first wallet", 30*time.Second, func() bool { return refuses(marker) })
	if refuses(bad) {
		t.Error("one wallet's denial refuses another")
	}
	if _, err := o.Authenticate(good); err != nil {
		t.Errorf("another wallet: %v", err)
	}
	post("/v1/bans", control.BanRequest{Target: ban.MustTarget(bad), Topic: walletTopic, For: 3600, Class: &class})
	denied := eventually(t, "B's gate refuses what A denied", 30*time.Second, func() bool { return refuses(bad) })
	out, err := b.agent(binary, "livepeer", "gate").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "the gate answers by the newest list, written ") || !strings.Contains(string(out), "s ago: 2 wallets denied") {
		t.Errorf("the gate's own account: %v\n%s", err, out)
	}
	out, err = b.agent(binary, "status").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "wallet gate: the gate answers by the newest list") || strings.Contains(string(out), "warning: the wallet gate") {
		t.Errorf("the status: %v\n%s", err, out)
	}
	post("/v1/unban", control.UnbanRequest{Target: ban.MustTarget(bad), Topic: walletTopic})
	admitted := eventually(t, "B's gate admits what A withdrew", 30*time.Second, func() bool { return !refuses(bad) })
	t.Logf("refused after %s, admitted after %s", denied.Round(time.Millisecond), admitted.Round(time.Millisecond))

	// The file is healed while the agent lives, and rules without it.
	if err := os.Truncate(file, 50); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the agent writes the torn list again", 30*time.Second, func() bool { _, err := gate.ReadFile(file); return err == nil })
	if err := b.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the gate denies while the agent stands still", 30*time.Second, func() bool { return refuses(marker) })
	if err := b.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	// A setting is taken over by a reload.
	config := filepath.Join(b.dir, "config", "agent.toml")
	text, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(config, []byte(strings.Replace(string(text), "enabled = true\n", "enabled = true\ndry_run = true\n", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := b.agent(binary, "reload").CombinedOutput(); err != nil {
		t.Fatalf("reload: %v\n%s", err, out)
	}
	eventually(t, "the dry run refuses nobody", 30*time.Second, func() bool { return !refuses(marker) })
}
