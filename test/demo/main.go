// Command demo shows the whole path once: three hosts in network namespaces
// behind a router. On A a real sshd is attacked from a fourth; A's agent
// detects it and publishes; C is the community broker; B accepts A's bans and
// drops the attacker's packets. It needs root, touches nothing of the machine
// outside its own namespaces, and removes them when it ends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"banmesh/internal/control"
)

func main() {
	agent := flag.String("agent", "bin/agent", "the agent's binary")
	broker := flag.String("broker", "bin/broker", "the broker's binary")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := demo(ctx, os.Stdout, *agent, *broker)
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: error: %v\n", err)
		os.Exit(1)
	}
	fmt.Printf("figure failed_login_to_remote_drop %.1f ms aim 1000\n", float64(r.drop.Microseconds())/1000)
}

// result is the demo's outcome.
type result struct {
	drop    time.Duration // from the last failed login in A's log before the ban to the first packet that B dropped
	packets uint64        // dropped by B's kernel
}

const (
	attempts = 6 // failed logins: the topic bans at five, so one is to spare
	patience = 30 * time.Second
)

func demo(ctx context.Context, w io.Writer, agent, broker string) (r result, err error) {
	if os.Geteuid() != 0 {
		return r, errors.New("network namespaces need root: run it with sudo")
	}
	for _, p := range []*string{&agent, &broker} {
		if *p, err = filepath.Abs(*p); err != nil {
			return r, err
		}
		if _, err = os.Stat(*p); err != nil {
			return r, fmt.Errorf("%w: build it with `make build`", err)
		}
	}
	dir, err := os.MkdirTemp("", "banmesh-demo-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	n, err := newNetwork(dir)
	if err != nil {
		return r, err
	}
	defer func() {
		if err != nil {
			n.tell(w)
		}
		err = errors.Join(err, n.close())
	}()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()

	fmt.Fprintln(w, "C: the community broker starts")
	brokerConfig := filepath.Join(dir, "broker.toml")
	text := fmt.Sprintf("network = \"banmesh\"\nstate_dir = %q\nkeys = true\n\n[[listeners]]\nkind = \"tcp\"\naddress = \"198.51.100.130:1883\"\n", filepath.Join(dir, "c"))
	if err = os.WriteFile(brokerConfig, []byte(text), 0o600); err != nil {
		return r, err
	}
	if _, err = n.start("c", "broker on C", broker, "--config", brokerConfig, "--socket", filepath.Join(dir, "broker.sock"), "run"); err != nil {
		return r, err
	}
	if err = n.waitPort(ctx, "b", "198.51.100.130:1883"); err != nil {
		return r, err
	}

	fmt.Fprintln(w, "A: a real sshd and its log; the agent detects and publishes")
	log := filepath.Join(dir, "auth.log")
	if err = n.startSSHD(ctx, log); err != nil {
		return r, err
	}
	if err = n.startAgent(ctx, "a", agent, "[topics.sshd]\ndetect = true\nfiles = ['"+log+"']\njournal = []\npublish = true\n"); err != nil {
		return r, err
	}
	var a control.Status
	if err = n.ask(ctx, "a", agent, &a, "status", "--json"); err != nil {
		return r, err
	}

	fmt.Fprintf(w, "B: trusts operator %s, subscribes to sshd, and detects nothing itself\n", a.Operator)
	if err = n.startAgent(ctx, "b", agent, "[topics.sshd]\ndetect = false\n"); err != nil {
		return r, err
	}
	for _, args := range [][]string{{"peers", "trust", "alice", a.Operator}, {"topics", "subscribe", "sshd"}} {
		out, err := n.agent(ctx, "b", agent, args...)
		if err != nil {
			return r, err
		}
		fmt.Fprintf(w, "   $ agent %s\n   %s", strings.Join(args, " "), strings.ReplaceAll(out, "\n", "\n   ")[:max(0, len(strings.ReplaceAll(out, "\n", "\n   "))-3)])
	}
	// B's own ssh port, which the attacker reaches until the ban arrives.
	listening := make(chan struct{})
	closeListener := make(chan struct{})
	defer close(closeListener)
	go n.inside("b", func() error { return acceptAll("198.51.100.66:22", listening, closeListener) })
	select {
	case <-listening:
	case <-ctx.Done():
		return r, ctx.Err()
	}
	if _, err := n.connect("x", "198.51.100.66:22", 2*time.Second); err != nil {
		return r, fmt.Errorf("the attacker cannot reach B before the attack: %w", err)
	}
	fmt.Fprintln(w, "   the attacker 203.0.113.66 reaches B's port 22")

	// A ban by hand on A shows that the path stands, so that the measured time is
	// the path and not its start.
	if _, err := n.agent(ctx, "a", agent, "ban", marker); err != nil {
		return r, err
	}
	if err = n.waitBan(ctx, "b", agent, marker); err != nil {
		return r, err
	}
	fmt.Fprintf(w, "   a ban by hand on A, of %s, has arrived\n", marker)

	fmt.Fprintf(w, "X: %d failed logins against A\n", attempts)
	probes := make(chan dropped, 1)
	go func() {
		d := dropped{}
		d.err = n.inside("x", func() (err error) { d.at, err = probe(ctx, "198.51.100.66:22"); return err })
		probes <- d
	}()
	failures, err := watchFailures(ctx, log)
	if err != nil {
		return r, err
	}
	for i := range attempts {
		// The wrong password is refused by the real sshd; the command fails.
		_, _ = n.run(ctx, "x", "sshpass", "-p", "wrong", "ssh", "-F", "none", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
			"-o", "PubkeyAuthentication=no", "-o", "NumberOfPasswordPrompts=1", "-o", "ConnectTimeout=3", "-p", "22", fmt.Sprintf("user%d@198.51.100.2", i))
	}
	var d dropped
	select {
	case d = <-probes:
	case <-ctx.Done():
		d.err = ctx.Err()
	}
	if d.err != nil {
		return r, fmt.Errorf("host B never dropped the attacker: %w", d.err)
	}
	var last time.Time
	for _, at := range failures() {
		if at.Before(d.at) {
			last = at
		}
	}
	if last.IsZero() {
		return r, errors.New("host B dropped the attacker before sshd logged a failed login")
	}
	r.drop = d.at.Sub(last)

	if _, err := n.connect("x", "198.51.100.66:22", 2*time.Second); err == nil {
		return r, errors.New("the attacker still reaches B")
	}
	var b control.Status
	if err = n.ask(ctx, "b", agent, &b, "status", "--json"); err != nil {
		return r, err
	}
	for _, t := range b.Topics {
		if t.Topic == "sshd" {
			r.packets = t.Packets
		}
	}
	if r.packets == 0 {
		return r, errors.New("the kernel of B counted no dropped packet")
	}
	rules, err := n.run(ctx, "b", "nft", "list", "table", "inet", "banmesh")
	if err != nil {
		return r, err
	}
	if !strings.Contains(rules, "203.0.113.66") {
		return r, fmt.Errorf("the attacker is not in B's table:\n%s", rules)
	}
	why, err := n.agent(ctx, "b", agent, "explain", "203.0.113.66")
	if err != nil {
		return r, err
	}
	fmt.Fprintf(w, "B: the attacker's connections die; %d packets dropped by the kernel\n   $ agent explain 203.0.113.66\n   %s\n", r.packets, strings.ReplaceAll(strings.TrimSpace(why), "\n", "\n   "))
	fmt.Fprintf(w, "\nfrom the last failed login in A's log to the drop on B: %.1f ms\n", float64(r.drop.Microseconds())/1000)
	return r, nil
}

// marker is an address that nobody has.
const marker = "203.0.113.250"

// waitBan waits until a target is banned on a host.
func (n *network) waitBan(ctx context.Context, host, agent, target string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var bans []control.Ban
		if err := n.ask(ctx, host, agent, &bans, "bans", "--json"); err != nil {
			return err
		}
		for _, b := range bans {
			if b.Target.String() == target {
				return nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s is not banned on %s: %w", target, host, ctx.Err())
		}
	}
}

// dropped is when a connection first failed.
type dropped struct {
	at  time.Time
	err error
}

// probe connects again and again until a connection hangs, and gives the time
// when that one began: its first packet is the first that was dropped.
func probe(ctx context.Context, address string) (time.Time, error) {
	for ctx.Err() == nil {
		start := time.Now()
		c, err := net.DialTimeout("tcp4", address, 900*time.Millisecond)
		if err != nil {
			return start, nil
		}
		c.Close()
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
	return time.Time{}, ctx.Err()
}

// acceptAll listens and closes connections, until stop.
func acceptAll(address string, ready, stop chan struct{}) error {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	close(ready)
	go func() {
		<-stop
		l.Close()
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		c.Close()
	}
}

// connect makes one connection from a host.
func (n *network) connect(host, address string, limit time.Duration) (took time.Duration, err error) {
	start := time.Now()
	err = n.inside(host, func() error {
		c, err := net.DialTimeout("tcp4", address, limit)
		if err == nil {
			c.Close()
		}
		return err
	})
	return time.Since(start), err
}

// waitPort waits until something answers.
func (n *network) waitPort(ctx context.Context, from, address string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		_, err := n.connect(from, address, time.Second)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("nothing answers on %s: %w", address, err)
		}
	}
}

// startAgent starts a host's agent on a configuration that names the broker on
// C, and waits until it is connected.
func (n *network) startAgent(ctx context.Context, host, agent, more string) error {
	config := filepath.Join(n.dir, host, "config")
	if err := os.MkdirAll(config, 0o755); err != nil {
		return err
	}
	text := "[[brokers]]\nurl = \"tcp://198.51.100.130:1883\"\n" + more
	if err := os.WriteFile(filepath.Join(config, "agent.toml"), []byte(text), 0o644); err != nil {
		return err
	}
	if _, err := n.start(host, "agent on "+strings.ToUpper(host), n.argv(host, agent, "run")...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		var s control.Status
		err := n.ask(ctx, host, agent, &s, "status", "--json")
		if err == nil && len(s.Brokers) == 1 && s.Brokers[0].Connected && s.Enforcement == "nftables" {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the agent on %s is not up: %+v, %w", host, s, errors.Join(err, ctx.Err()))
		}
	}
}

func (n *network) argv(host, agent string, args ...string) []string {
	d := filepath.Join(n.dir, host)
	return append([]string{agent, "--config-dir", filepath.Join(d, "config"), "--state-dir", filepath.Join(d, "state"), "--socket", filepath.Join(d, "agent.sock")}, args...)
}

func (n *network) agent(ctx context.Context, host, agent string, args ...string) (string, error) {
	return n.run(ctx, host, n.argv(host, agent, args...)...)
}

func (n *network) ask(ctx context.Context, host, agent string, answer any, args ...string) error {
	out, err := n.agent(ctx, host, agent, args...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), answer)
}
