package livepeer

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

// TestObservedBansDropNothingAndSayWhatTheyWouldHave runs the agent with a real
// kernel: an observed ban lets packets pass and counts them, for the topic and
// for whoever it comes from; enforced after a reload, it drops.
func TestObservedBansDropNothingAndSayWhatTheyWouldHave(t *testing.T) {
	t.Parallel()
	binary := buildAgent(t)
	n := newNetwork(t, "203.0.113.1/24", "203.0.113.9/24")
	l, err := net.Listen("tcp", "203.0.113.1:22")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	a := newNode(t, "A", "owner = \"never\"\n[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.sshd]\nfiles = []\njournal = []\n")
	config := filepath.Join(a.dir, "config", "agent.toml")
	mode := func(from, to string) {
		t.Helper()
		b, err := os.ReadFile(config)
		if err != nil || !strings.Contains(string(b), from) {
			t.Fatalf("%v\n%s", err, b)
		}
		if err := os.WriteFile(config, []byte(strings.Replace(string(b), from, to, 1)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	mode(`mode = "off"`, `mode = "observe"`)
	if s := a.run(t, binary); s.Enforcement != "observe" || !strings.Contains(s.Reason, "none is dropped") {
		t.Errorf("status says %q, %q", s.Enforcement, s.Reason)
	}
	const attacker = "203.0.113.9"
	if err := a.client.Post(t.Context(), "/v1/bans", control.BanRequest{Target: ban.MustTarget(attacker), Topic: "sshd", For: 3600}, nil); err != nil {
		t.Fatal(err)
	}
	topic := func() control.TopicStatus {
		t.Helper()
		var s control.Status
		if err := a.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
			t.Fatal(err)
		}
		for _, x := range s.Topics {
			if x.Topic == "sshd" {
				return x
			}
		}
		t.Fatal("status has no topic sshd")
		return control.TopicStatus{}
	}
	eventually(t, "what the observed ban met is counted", 30*time.Second, func() bool {
		if err := n.dial(attacker, "203.0.113.1:22"); err != nil {
			t.Fatalf("an observed ban drops: %v", err)
		}
		return topic().Packets > 0
	})
	if x := topic(); !x.Observe || len(x.Operators) != 1 || x.Operators[0].Name != "here" || x.Operators[0].Packets == 0 || x.Operators[0].Packets > x.Packets {
		t.Errorf("%+v", x)
	}
	out, err := a.agent(binary, "firewall", "show").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "  by here ") {
		t.Errorf("%v\n%s", err, out)
	}
	mode(`mode = "observe"`, `mode = "enforce"`)
	if out, err := a.agent(binary, "reload").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := n.dial(attacker, "203.0.113.1:22"); err == nil {
		t.Error("enforced after a reload, the ban lets a connection pass")
	}
	if x := topic(); x.Observe || x.Operators != nil {
		t.Errorf("enforced: %+v", x)
	}
	// Observed again, it is known at once whose ban it is.
	mode(`mode = "enforce"`, `mode = "observe"`)
	if out, err := a.agent(binary, "reload").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := n.dial(attacker, "203.0.113.1:22"); err != nil {
		t.Errorf("observed again: %v", err)
	}
	if x := topic(); !x.Observe || len(x.Operators) != 1 || x.Operators[0].Packets == 0 {
		t.Errorf("observed again: %+v", x)
	}
	// A setting that cannot change in a running agent is refused, and said.
	mode("owner = \"never\"", "owner = \"never\"\ntable = \"other\"")
	if out, err := a.agent(binary, "reload").CombinedOutput(); err == nil || !strings.Contains(string(out), "the firewall's enforcer changed, which needs a restart") {
		t.Errorf("%v\n%s", err, out)
	}
}
