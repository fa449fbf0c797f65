package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/control"
	"banmesh/internal/firewall"
)

// settingsOf loads a configuration that was written for a test.
func settingsOf(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return LoadSettings(dir)
}

func TestATopicsScopeIsWhatWasWritten(t *testing.T) {
	for _, c := range []struct {
		name, text string
		ports      []uint16
		all        bool
		limit      uint32
		remember   time.Duration
		fault      string
	}{
		{name: "not detected, so nobody is remembered", ports: []uint16{8935}},
		{name: "detected", text: "detect = true", ports: []uint16{8935}, remember: 10 * time.Minute},
		{name: "other ports", text: "detect = true\nports = [8936, 8935]", ports: []uint16{8936, 8935}, remember: 10 * time.Minute},
		{name: "all ports, and yet some are remembered", text: "detect = true\nall_ports = true", ports: []uint16{8935}, all: true, remember: 10 * time.Minute},
		{name: "all ports, believing the log", text: "detect = true\nall_ports = true\ncorroborate = \"off\"", all: true},
		{name: "all ports, and few connections", text: "all_ports = true\nmax_connections = 7", ports: []uint16{8935}, all: true, limit: 7},
		{name: "remembered for longer", text: "detect = true\ncorroborate = \"1h\"", ports: []uint16{8935}, remember: time.Hour},
		{name: "remembered for no time", text: "detect = true\ncorroborate = \"0\"", fault: "corroborate: peers are remembered for a second or more"},
		{name: "remembered for nonsense", text: "detect = true\ncorroborate = \"soon\"", fault: `it is a time, or "off"`},
		{name: "port 0", text: "ports = [0]", fault: "0 is not a port"},
		{name: "no protocol", text: "protocols = [\"icmpx\"]", fault: "unknown protocol"},
		{name: "no connections", text: "max_connections = 0", fault: "max_connections: 0 is not within 1"},
		{name: "reports of what is not detected", text: "reports = true", fault: "reports: what is reported is counted where"},
		{name: "ipset remembers nobody", text: "detect = true\n[firewall]\nenforcer = \"ipset\"", ports: []uint16{8935}},
		{name: "ipset limits nobody", text: "max_connections = 3\n[firewall]\nenforcer = \"ipset\"", fault: "only the nftables enforcer limits connections"},
	} {
		s, err := settingsOf(t, "[topics.livepeer]\n"+c.text+"\n")
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: %v, want %q", c.name, err, c.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		x, _ := s.find("livepeer")
		if got := x.scope; !slices.Equal(got.Ports, c.ports) || got.All != c.all || got.MaxConnections != c.limit || got.Remember != c.remember {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestWhatARunningAgentCannotTakeOverNeedsARestart(t *testing.T) {
	const before = "[firewall]\nmode = \"enforce\"\n[gate]\nenabled = true\n"
	old, err := settingsOf(t, before)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ from, to, want string }{
		{`"enforce"`, `"observe"`, ""},
		{`"enforce"`, `"off"`, "the firewall's enforcer"},
		{`"enforce"`, "\"enforce\"\nmax_bans = 9\nkeep_sockets = true", ""},
		{`"enforce"`, "\"enforce\"\ntable = \"other\"", "the firewall's enforcer"},
		{`"enforce"`, "\"enforce\"\nenforcer = \"ipset\"", "the firewall's enforcer"},
		{"enabled = true", "enabled = true\ndry_run = true", "the wallet gate"},
		{"enabled = true", "enabled = true\n[http]\nlisten = \"127.0.0.1:1\"", "what is served over HTTP"},
		{"enabled = true", "enabled = true\n[topics.sshd]\nobserve = true", ""},
	} {
		text := strings.Replace(before, c.from, c.to, 1)
		next, err := settingsOf(t, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := needsRestart(old, next); got != c.want {
			t.Errorf("%s: %q, want %q", text, got, c.want)
		}
	}
}

func TestNamesOfOperatorsBecomePlain(t *testing.T) {
	for in, want := range map[string]string{"alice": "alice", "Bob-2": "Bob-2", "eve \"x\",\n": "eve__x___", "ö": "_"} {
		if got := strings.Map(plainName, in); got != want {
			t.Errorf("%s: %q, want %q", fmt.Sprintf("%q", in), got, want)
		}
	}
}

// A kernel without connection tracking refuses whatever needs it.
type trackless struct{ *firewall.Fake }

func (f trackless) Configure(ctx context.Context, c firewall.Config) error {
	for _, s := range c.Scopes {
		if s.Remember != 0 || s.MaxConnections != 0 {
			return firewall.ErrUnsupported
		}
	}
	return f.Fake.Configure(ctx, c)
}

func TestAKernelWithoutTrackingStillEnforces(t *testing.T) {
	n := newNode(t, quiet+"max_connections = 5\n[topics.livepeer]\ndetect = true\nall_ports = true\nfiles = []\njournal = []\ndocker = []\n")
	e := &enforcer{a: n.a, fw: trackless{firewall.NewFake(nil)}}
	if err := e.configure(t.Context()); err != nil {
		t.Fatalf("bans are not enforced: %v", err)
	}
	if _, err := e.fw.Established(t.Context(), netip.MustParseAddr("203.0.113.9"), 8935); !errors.Is(err, firewall.ErrNotRemembered) {
		t.Errorf("asking for a peer: %v", err)
	}
	_, warnings := e.status(t.Context())
	if !slices.ContainsFunc(warnings, func(w control.Warning) bool { return w.Code == "no-tracking" }) || e.tracks() == nil {
		t.Errorf("nobody is told: %+v", warnings)
	}
	if n.a.enforcer.tracks() != nil {
		t.Error("where it can be, it is said not to be")
	}
}
