package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/federation"
	"banmesh/internal/firewall"
	"banmesh/internal/neverban"
)

func TestDoctorNamesWhatIsWrongAndItsCommand(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	here := netip.MustParseAddr("9.2.2.2") // from where who asks is logged in
	well := func() Facts {
		return Facts{
			Now: now, Clock: ClockState{true, true},
			Status: control.Status{
				Version: "1", Started: now.Add(-time.Hour), Enforcement: "nftables",
				Topics:  []control.TopicStatus{{Topic: "sshd", Subscribe: true, Policy: "any of alice"}},
				Sources: []control.SourceStatus{{Name: "journal ssh.service", Found: 3, Topics: []ban.Topic{"sshd"}, Read: 20_000, Matched: 7, LastLine: now.Add(-time.Minute)}},
				Brokers: []control.BrokerStatus{{URL: "tcp://broker", Connected: true}},
			},
			Never: []control.NeverBan{{Prefix: netip.MustParsePrefix("9.2.2.2/32"), Source: string(neverban.SourceAdmin), Reason: "login"}},
			Peers: []control.Peer{{Name: "alice", Feeds: 1}},
			Table: TableState{Known: true, Present: true},
			Feeds: []control.Feed{{Topic: "sshd", Name: "alice", Status: federation.StatusSynced}},
		}
	}
	for _, f := range Diagnose(well(), here) {
		if !f.OK || f.Fix != "" {
			t.Errorf("a node that is well has %+v", f)
		}
	}
	flat := well()
	flat.Status.Compat = []control.Compat{{Protocol: "lapi", Clients: []control.CompatClient{{Name: "edge", Kind: "crowdsec-firewall-bouncer", Warning: "may enforce a range for its first address alone"}}}}
	if list := Diagnose(flat, here); !slices.ContainsFunc(list, func(f Finding) bool {
		return f.Check == "bouncer" && f.Level == LevelNote && f.OK && strings.Contains(f.Text, "edge (crowdsec-firewall-bouncer) may enforce a range") && strings.Contains(f.Fix, "ipset")
	}) {
		t.Errorf("a bouncer that cuts ranges: %+v", list)
	}
	quiet := well() // alice publishes, and has banned nobody
	quiet.Peers[0].Feeds = 0
	for _, f := range Diagnose(quiet, here) {
		if !f.OK {
			t.Errorf("a peer without bans is %+v", f)
		}
	}
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		harm func(*Facts)
		fix  string
	}{
		"a faulty configuration": {func(e *Facts) { e.Settings = errors.New("agent.toml:1:1: x") }, "agent check"},
		"a file out of reach": {func(e *Facts) {
			e.Withheld = someone{name: "banmesh", uid: 1 << 20}.withheld([]string{secret})
		}, "chgrp banmesh " + secret},
		"an agent of others":   {func(e *Facts) { e.Running = fmt.Errorf("asking: %w", control.ErrPermission) }, "sudo agent doctor"},
		"no agent":             {func(e *Facts) { e.Running = control.ErrNotRunning }, "agent run"},
		"a free-running clock": {func(e *Facts) { e.Clock.Synchronised = false }, "timedatectl"},
		"a capability lacks": {func(e *Facts) {
			e.Status.Enforcement, e.Status.Warnings = "observe", []control.Warning{{Code: "not-enforcing", Fix: "give it CAP_NET_RAW"}}
		}, "give it CAP_NET_RAW"},
		"no enforcement": {func(e *Facts) { e.Status.Enforcement = "observe" }, "agent firewall check"},
		"a log without a line for a day": {func(e *Facts) {
			e.Status.Started, e.Status.Sources[0].LastLine = now.Add(-25*time.Hour), time.Time{}
		}, "right log"},
		"a broker that is down":   {func(e *Facts) { e.Status.Brokers[0].Connected = false }, "agent status"},
		"no broker":               {func(e *Facts) { e.Status.Brokers = nil }, "agent network join"},
		"nobody trusted":          {func(e *Facts) { e.Status.Topics[0].Policy = "" }, "agent peers add"},
		"an unsafe own address":   {func(e *Facts) { e.Never[0].Prefix = netip.MustParsePrefix("9.9.9.9/32") }, "agent allow add 9.2.2.2"},
		"an empty never-ban list": {func(e *Facts) { e.Never = nil }, "agent reload"},
		"a silent peer":           {func(e *Facts) { e.Peers[0].Feeds, e.Feeds = 0, nil }, "agent feeds"},
		"a peer with strikes":     {func(e *Facts) { e.Peers[0].Strikes = 1 }, "agent peers show alice"},
		"a table that is gone":    {func(e *Facts) { e.Table = TableState{Known: true} }, "agent reload"},
		"a table that is off":     {func(e *Facts) { e.Table = TableState{Known: true, Off: true} }, "agent firewall resume"},
		"a chain before ours": {func(e *Facts) {
			e.Table = TableState{Known: true, Present: true, Ahead: []firewall.Neighbour{{Table: "x"}}}
		}, "agent firewall check"},
		"a warning of the agent's": {func(e *Facts) { e.Status.Warnings = []control.Warning{{Code: "x", Text: "y", Fix: "agent z"}} }, "agent z"},
	} {
		e := well()
		c.harm(&e)
		found := false
		for _, f := range Diagnose(e, here) {
			found = found || !f.OK && strings.Contains(f.Fix, c.fix)
		}
		if !found {
			t.Errorf("%s: no finding with the fix %q in %+v", name, c.fix, Diagnose(e, here))
		}
	}
	// Silence that a good day may explain is told, and is no fault.
	for name, change := range map[string]func(e *Facts){
		"not a line yet":        func(e *Facts) { e.Status.Sources[0].LastLine = time.Time{} },
		"a service nobody uses": func(e *Facts) { e.Status.Sources[0].LastLine = now.Add(-48 * time.Hour) },
		"enforcement elsewhere": func(e *Facts) { e.Status.Enforcement, e.Status.Reason = "off", "firewall.mode is off" },
		"nobody attacks":        func(e *Facts) { e.Status.Sources[0].Matched = 0 },
		"a warning of little":   func(e *Facts) { e.Status.Warnings = []control.Warning{{Severity: control.SeverityLow, Text: "y"}} },
		"another system's place": func(e *Facts) {
			e.Status.Sources = append(e.Status.Sources, control.SourceStatus{Name: "/var/log/secure", Topics: []ban.Topic{"sshd"}})
		},
		"the other of two units": func(e *Facts) {
			e.Status.Started = now.Add(-48 * time.Hour)
			e.Status.Sources = append(e.Status.Sources, control.SourceStatus{Name: "journal sshd.service", Found: 3, Topics: []ban.Topic{"sshd"}})
		},
	} {
		e := well()
		change(&e)
		for _, f := range Diagnose(e, here) {
			if !f.OK || f.Level == LevelWrong {
				t.Errorf("%s: %+v", name, f)
			}
		}
	}
	e := well()
	here = netip.MustParseAddr("9.9.9.9")
	e.Exempt = []control.Exemption{{Target: ban.MustTarget("9.9.9.9"), Allow: true}}
	for _, f := range Diagnose(e, here) {
		if !f.OK {
			t.Errorf("an allowed own address: %+v", f)
		}
	}
}

func TestTheAddressOfWhoAsksIsRead(t *testing.T) {
	for s, want := range map[string]string{
		"203.0.113.5 50000 198.51.100.1 22": "203.0.113.5", "::ffff:203.0.113.5 1 2 3": "203.0.113.5", "fe80::1%eth0 1 2 3": "fe80::1", "": "invalid IP", "x": "invalid IP",
	} {
		if got := LoggedInFrom(s).String(); got != want {
			t.Errorf("%q: %s, want %s", s, got, want)
		}
	}
}

// A fault of which no warning of the status tells is told by the doctor alone, and every check that
// can be wrong has words for a message that shows no log line, host or user.
func TestWhatTheDoctorAloneFindsHasWordsOfItsOwn(t *testing.T) {
	e := Facts{
		Settings: errors.New("x"), Withheld: []Finding{{Check: "readable", Level: LevelWrong}}, Moved: []MovedJail{{Jail: "sshd"}}, Clock: ClockState{Known: true},
		Table: TableState{Known: true}, Boot: []firewall.Restorer{{Fails: true}},
		Status: control.Status{
			Enforcement: "observe", Started: time.Unix(0, 0), Warnings: []control.Warning{{Code: "source", Severity: control.SeverityHigh}},
			Topics:  []control.TopicStatus{{Topic: "sshd", Subscribe: true}},
			Sources: []control.SourceStatus{{Name: "/var/log/auth.log", Found: 1, Topics: []ban.Topic{"sshd"}}},
			Brokers: []control.BrokerStatus{{URL: "tcp://a", Connected: true}, {URL: "tcp://b"}},
		},
		Now: time.Unix(1e9, 0), Peers: []control.Peer{{Name: "alice"}},
	}
	alone := map[string]bool{}
	for _, f := range Diagnose(e, netip.Addr{}) {
		if f.Level == LevelWrong && !f.Warned {
			alone[f.Check] = true
			if title, mend := Words(f.Check); title == "" || mend == "" {
				t.Errorf("%s has no words of its own", f.Check)
			}
		}
	}
	for _, want := range []string{"config", "readable", "import", "clock", "table", "boot", "log", "never-ban", "broker", "policy", "peer"} {
		if !alone[want] {
			t.Errorf("%s is not found", want)
		}
	}
	if alone["firewall"] || alone["source"] {
		t.Errorf("warnings of the status are told twice: %v", alone)
	}
}
