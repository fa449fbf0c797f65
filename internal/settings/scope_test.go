package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// settingsOf loads a configuration that was written for a test.
func settingsOf(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(dir, "")
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
		x, _ := s.Find("livepeer")
		if got := x.Scope; !slices.Equal(got.Ports, c.ports) || got.All != c.all || got.MaxConnections != c.limit || got.Remember != c.remember {
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
		{"enabled = true", "enabled = true\ndry_run = true", ""},
		{"enabled = true", "enabled = true\n[http]\nlisten = \"127.0.0.1:1\"", "what is served over HTTP"},
		{"enabled = true", "enabled = true\n[topics.sshd]\nobserve = true", ""},
	} {
		text := strings.Replace(before, c.from, c.to, 1)
		next, err := settingsOf(t, text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if got := NeedsRestart(old, next); got != c.want {
			t.Errorf("%s: %q, want %q", text, got, c.want)
		}
	}
}

func TestTheEmbeddedBrokersRoomIsBounded(t *testing.T) {
	t.Parallel()
	for n, ok := range map[int]bool{-1: false, embeddedLeast - 1: false, embeddedLeast: true, embeddedMost: true, embeddedMost + 1: false} {
		_, err := settingsOf(t, fmt.Sprintf("[embedded_broker]\nmax_bytes = %d\n", n))
		if got := err == nil; got != ok {
			t.Errorf("max_bytes = %d: %v", n, err)
		}
	}
}

func TestListsBeyondLoopbackNeedATokenOrANetwork(t *testing.T) {
	for text, fault := range map[string]string{
		"listen = \"127.0.0.1:7937\"":                                "",
		"listen = \"[::1]:7937\"":                                    "",
		"listen = \":7937\"":                                         "reached from other machines",
		"listen = \"0.0.0.0:7937\"":                                  "reached from other machines",
		"listen = \"192.0.2.1:7937\"":                                "reached from other machines",
		"listen = \"192.0.2.1:7937\"\nallow = [\"192.0.2.0/24\"]":    "",
		"listen = \"192.0.2.1:7937\"\nallow = [\"192.0.2.9\"]":       "",
		"listen = \"192.0.2.1:7937\"\nallow = [\"everybody\"]":       "neither an address nor a prefix",
		"listen = \"192.0.2.1:7937\"\ntoken_file = \"/etc/b.token\"": "",
	} {
		_, err := settingsOf(t, "[http]\n"+text+"\n")
		if (err == nil) != (fault == "") || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", text, err, fault)
		}
	}
}
