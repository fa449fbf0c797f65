package commands

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"banmesh/internal/ban"
	"banmesh/internal/cli"
	"banmesh/internal/control"
	"banmesh/internal/doctor"
	"banmesh/internal/federation"
	"banmesh/internal/span"
)

// crowded is a node with long names and large numbers.
func crowded(now time.Time) (control.Status, []control.Ban, []control.Peer, []control.Feed, control.Explanation, []doctor.Finding) {
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	long := ban.Topic("nginx-http-auth-trap")
	s := control.Status{
		Version: "0.9.0", Started: ago(26 * time.Hour), PID: 4711, Operator: "6otxxr3xmzvq3wmhdzurq6ssnm", Node: "r7f5plvtf73ztv5z", Network: "banmesh",
		Enforcement: "nftables", Bans: 1_048_576, Watched: 12_345, Waiting: 300,
		Topics: []control.TopicStatus{
			{Topic: "sshd", Detect: true, Subscribe: true, Publish: true, Policy: "2 of alice, bob, carol, dave or any of core or weak(5) of everyone", Own: 12_345, Bans: 1_000_000, Packets: 18_446_744_073},
			{Topic: long, Simulate: true, Bans: 7},
		},
		Sources: []control.SourceStatus{
			{Name: "journal 0 sshd", Kind: "journal", Topics: []ban.Topic{"sshd"}, Found: 4, Read: 12_345_600, Matched: 1_234_567, LastLine: ago(3 * time.Second)},
			{Name: "journal 0 sshd-session", Kind: "journal", Topics: []ban.Topic{"sshd"}, Found: 4, Read: 78, LastLine: ago(time.Minute)},
			{Name: "/var/log/nginx/sites/a-long-host-name.example.org/access.log", Kind: "file", Topics: []ban.Topic{long, "web-trap"}, Found: 1, Error: "permission denied: /var/log/nginx/sites"},
			{Name: "/var/log/secure", Kind: "file", Topics: []ban.Topic{"sshd"}},
		},
		Brokers: []control.BrokerStatus{
			{URL: "ssl://broker.community.example.net:8883", Connected: true, Since: ago(26 * time.Hour), Health: "connected"},
			{URL: "ssl://second.example.org:8883", Error: "dial tcp: lookup second.example.org: no such host", Health: "unreachable"},
		},
		Shielded: []control.Shielded{{Topic: long, Target: ban.MustTarget("172.18.0.5"), Entry: "own-address 172.18.0.5 (address of br-0123456789ab)", Offences: 28, Last: ago(2 * time.Minute)}},
		Warnings: []control.Warning{
			{Code: "source", Severity: control.SeverityHigh, Text: "/var/log/nginx/sites/a-long-host-name.example.org/access.log (nginx-http-auth-trap, web-trap): permission denied: /var/log/nginx/sites", Fix: "usermod -aG adm banmesh && systemctl restart banmesh-agent"},
			{Code: "tainted", Severity: control.SeverityLow, Text: "sshd: 7 log lines that a client may have written did not count", Fix: "agent status; keep the service up to date"},
		},
	}
	bans := []control.Ban{
		{Target: ban.MustTarget("203.0.113.7"), Topic: "sshd", Until: now.Add(90 * time.Minute), Origin: []string{"here"}, Class: ban.ClassAuth, Basis: ban.BasisStrong, Hits: 5},
		{Target: ban.MustTarget("2001:db8:1234:5678::/64"), Topic: long, Until: now.Add(72 * time.Hour), Origin: []string{"alice", "a-long-name-of-an-operator", "carol", "dave"}, Class: ban.ClassAuth, Hits: 255},
	}
	peers := []control.Peer{
		{Name: "alice", Feeds: 3, Claims: 1_234_567, Banning: 123_456, Alone: 12_345, Corroborated: 99_999, Met: 4321, Disputed: 3, Measured: 1000, Guests: 3, Strikes: 0},
		{Name: "a-long-name-of-an-operator", Quarantine: &control.Quarantine{Why: "changed more than 90 % of its feed within a minute"}, Strikes: 12},
	}
	feeds := []control.Feed{
		{Topic: "sshd", Own: true, Node: "r7f5plvtf73ztv5z", Status: federation.StatusWriting, Batch: 123_456, Newest: 123_456, Claims: 12_345, Bytes: 1 << 20, Issued: ago(time.Minute)},
		{Topic: long, Name: "a-long-name-of-an-operator", Operator: "6otxxr3xmzvq3wmhdzurq6ssnm", Node: "j32sqseprwfuiwsa", Status: federation.StatusWithheld, Batch: 99, Newest: 123_456, Claims: 1_000_000, Bytes: 20 << 20, Issued: ago(49 * time.Hour)},
	}
	x := control.Explanation{
		Target: ban.MustTarget("203.0.113.7"),
		Standings: []control.Standing{{
			Topic: "sshd", Target: ban.MustTarget("203.0.113.0/24"), Action: control.ActionBan, Sentence: "the topic's ban rule is met", Rule: "2 of alice, bob, carol, dave or any of core", Since: ago(time.Hour), Until: now.Add(time.Hour),
			Claims: []control.Claimed{{Name: "a-long-name-of-an-operator", Class: ban.ClassAuth, Hits: 7, Established: true, Basis: ban.BasisStrong, Counts: true, End: now.Add(time.Hour)}},
			Lifts:  []string{"agent unban 203.0.113.7"},
		}},
		Shielded: []control.Shielded{{Topic: long, Target: ban.MustTarget("172.18.0.5"), Entry: "own-address 172.18.0.5 (address of br-0123456789ab)", Offences: 28, Last: ago(2 * time.Minute)}},
		AfterBan: []control.AfterBan{{
			Topic: long, Target: ban.MustTarget("203.0.113.7"), Offences: 120, Banned: ago(time.Hour), Last: ago(time.Minute),
			Reason: "the kernel met no packet of the topic's bans since: the service's connections come from 172.18.0.9, which passes them on", Fix: "see \"Containers\" in docs/recipes.md",
		}},
		Kernel: &control.Held{Banned: true, Map: "deny4", Left: span.Of(time.Hour)},
	}
	e := doctor.Facts{
		Now: now, Clock: doctor.ClockState{Known: true, Synchronised: true}, Status: s, Feeds: feeds, Table: doctor.TableState{Known: true, Present: true},
		Never: []control.NeverBan{{Prefix: netip.MustParsePrefix("192.0.2.1/32"), Source: "gateway"}},
	}
	return s, bans, peers, feeds, x, doctor.Diagnose(e, netip.MustParseAddr("203.0.113.9"))
}

// All that a person looks at fits a terminal of 80 columns; commands to copy stay
// whole.
func TestWhatAPersonLooksAtFits(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	s, bans, peers, feeds, x, found := crowded(now)
	for name, show := range map[string]func(w io.Writer) error{
		"status":  func(w io.Writer) error { return printStatus(w, s, now) },
		"bans":    func(w io.Writer) error { return printBans(w, bans, now) },
		"peers":   func(w io.Writer) error { return printPeers(w, peers, now) },
		"feeds":   func(w io.Writer) error { return printFeeds(w, feeds, now) },
		"explain": func(w io.Writer) error { printExplanation(w, x, now); return nil },
		"nothing": func(w io.Writer) error {
			stranger := ban.MustTarget("2001:db8:1234:5678:9abc:def0:1234:5678")
			printExplanation(w, control.Explanation{Target: stranger}, now)
			printExplanation(w, control.Explanation{Target: stranger, Counted: []control.Counted{
				{Topic: "nginx-http-auth-trap", Target: stranger, Offences: 3, Limit: 5, Within: span.Of(10 * time.Minute), Last: now.Add(-time.Minute)},
			}}, now)
			return errors.Join(printBans(w, nil, now), printPeers(w, nil, now), printFeeds(w, nil, now))
		},
		"doctor": func(w io.Writer) error { printFindings(w, found, 9); return nil },
	} {
		var narrow, wide strings.Builder
		for b, w := range map[*strings.Builder]io.Writer{&narrow: cli.Narrow(&narrow, 80), &wide: cli.Wide(cli.Narrow(&wide, 80))} {
			if err := show(w); err != nil {
				t.Fatal(b, err)
			}
		}
		for line := range strings.Lines(narrow.String()) {
			line = strings.TrimSuffix(line, "\n")
			command := strings.Contains(line, "fix: ") || strings.Contains(line, "mend: ") || strings.HasPrefix(line, "(with --wide")
			if !command && utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s: %d columns: %s", name, utf8.RuneCountInString(line), line)
			}
		}
		golden(t, "testdata/narrow/"+name+".txt", narrow.String()+"\n--wide:\n"+wide.String())
	}
}
