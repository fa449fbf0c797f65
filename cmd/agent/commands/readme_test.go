package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/internal/cli"
	"banmesh/internal/control"
)

// TestTheReadmesTranscriptIsWhatHappens runs the first transcript of README.md
// on a node whose peer alice bans an attacker, and compares every line but for the
// parts that differ each time. Alice bans by hand: no kernel here confirms the
// connections of a log's lines.
func TestTheReadmesTranscriptIsWhatHappens(t *testing.T) {
	t.Setenv("TZ", "UTC")
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(readme), "```\n$ agent ")
	block, _, ok2 := strings.Cut("$ agent "+block, "```")
	if !ok || !ok2 {
		t.Fatal("README.md has no transcript")
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	broker := l.Addr().String()
	l.Close()
	alice := startNode(t, fmt.Sprintf("[firewall]\nmode = \"off\"\n[embedded_broker]\nenabled = true\nlisten = %q\n[topics.sshd]\ndetect = false\npublish = true\n", broker))
	me := startNode(t, fmt.Sprintf("[firewall]\nmode = \"off\"\n[[brokers]]\nurl = \"tcp://%s\"\n[topics.sshd]\ndetect = false\n", broker))
	alice.agent(t, "ban", "203.0.113.66", "--class", "auth", "--hits", "5", "--for", "72h")
	var status control.Status
	if err := json.Unmarshal([]byte(alice.agent(t, "status", "--json")), &status); err != nil {
		t.Fatal(err)
	}

	var got strings.Builder
	for line := range strings.Lines(block) {
		command, ok := strings.CutPrefix(line, "$ agent ")
		if !ok {
			continue
		}
		args := strings.Fields(command)
		for i := range args {
			if len(args[i]) == 26 {
				args[i] = status.Operator
			}
		}
		if args[0] == "bans" {
			me.waitBan(t, "203.0.113.66")
		}
		fmt.Fprintf(&got, "$ agent %s\n%s", strings.Join(args, " "), me.agent(t, args...))
	}
	if want, got := settled(block), settled(strings.ReplaceAll(got.String(), me.config, "/etc/banmesh")); want != got {
		t.Errorf("README.md says\n%s\nbut it is\n%s", want, got)
	}
}

// settled replaces the parts that differ each time.
func settled(s string) string {
	for pattern, by := range map[string]string{
		`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`:       "TIME",
		`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+`: "TIME",
		`[a-z2-7]{26}`:                          "IDENTITY",
		// Of a log's lines that the kernel confirmed, and of a person's word.
		`\b(strong|decided)\b`:               "BASIS",
		`, over an established connection`:   "",
		`(59 min \d+ s|1 h( 1 min)?|59 min)`: "LENGTH",
		` +`:                                 " ",
	} {
		s = regexp.MustCompile(pattern).ReplaceAllString(s, by)
	}
	return s
}

// node is an agent of its own in this process.
type node struct{ config, state, socket string }

func startNode(t *testing.T, config string) *node {
	t.Helper()
	dir := t.TempDir()
	n := &node{config: filepath.Join(dir, "config"), state: filepath.Join(dir, "state"), socket: filepath.Join(dir, "a.sock")}
	if err := os.MkdirAll(n.config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.config, "agent.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan int, 1)
	go func() {
		var out, errs strings.Builder
		done <- Run(ctx, cli.Program{Name: "agent"}, n.args("run"), nil, &out, &errs)
		if t.Failed() {
			t.Log(errs.String())
		}
	}()
	t.Cleanup(func() {
		stop()
		if code := <-done; code != 0 {
			t.Errorf("the agent ended with %d", code)
		}
	})
	c := control.NewClient(n.socket)
	until(t, "the agent answers", func() bool {
		var s control.Status
		return c.Get(t.Context(), "/v1/status", nil, &s) == nil && len(s.Brokers) == 1 && s.Brokers[0].Connected
	})
	return n
}

func (n *node) args(args ...string) []string {
	return append([]string{"--config-dir", n.config, "--state-dir", n.state, "--socket", n.socket}, args...)
}

func (n *node) agent(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs strings.Builder
	if code := Run(t.Context(), cli.Program{Name: "agent"}, n.args(args...), nil, &out, &errs); code != 0 {
		t.Fatalf("agent %s: exit code %d\n%s%s", strings.Join(args, " "), code, out.String(), errs.String())
	}
	return out.String()
}

func (n *node) waitBan(t *testing.T, target string) {
	t.Helper()
	until(t, target+" is banned", func() bool { return strings.Contains(n.agent(t, "bans"), target) })
}

// until polls a condition for a while.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}
