package siem

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

var at = time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)

func sample() control.Event {
	return control.Event{
		Cursor: 1865470566400001, At: at, Kind: "ban", Topic: "sshd", Target: ban.MustTarget("203.0.113.9"), By: "detection", Peers: []string{"alice", "b]o\"b"},
		Why: "five failed logins", Until: at.Add(time.Hour), Count: 5, First: at.Add(-time.Minute), Source: "/var/log/auth.log", Sample: "Failed password for root", Port: 4711,
	}
}

func TestAnEventIsWrittenForEachCollector(t *testing.T) {
	const ecs = `{"@timestamp":"2026-11-28T10:00:00Z","ecs":{"version":"8.11.0"},"message":"ban 203.0.113.9 in sshd: five failed logins",` +
		`"event":{"kind":"alert","category":["network","intrusion_detection"],"type":["denied"],"outcome":"success","action":"ban","reason":"five failed logins","sequence":1865470566400001,"id":"1865470566400001","provider":"banmesh","dataset":"banmesh.events","start":"2026-11-28T09:59:00Z","severity":5},` +
		`"source":{"address":"203.0.113.9","ip":"203.0.113.9","port":4711},"related":{"ip":["203.0.113.9"]},"rule":{"name":"sshd","ruleset":"banmesh"},` +
		`"observer":{"product":"Banmesh agent","type":"ips","vendor":"Banmesh"},"banmesh":{"by":"detection","peers":["alice","b]o\"b"],"until":"2026-11-28T11:00:00Z","count":5}}`
	const syslog = `<85>1 2026-11-28T10:00:00.000Z - banmesh - ban [banmesh@32473 cursor="1865470566400001" target="203.0.113.9" topic="sshd" by="detection" peer="alice" peer="b\]o\"b" count="5" port="4711" first="2026-11-28T09:59:00Z" until="2026-11-28T11:00:00Z"] ban 203.0.113.9 in sshd: five failed logins`
	for f, want := range map[Format]string{ECS: ecs, Syslog: syslog} {
		got, err := f.Line(sample(), false)
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", f, err, got, want)
		}
		with, err := f.Line(sample(), true)
		if err != nil || !strings.Contains(string(with), "Failed password") || !strings.Contains(string(with), "/var/log/auth.log") {
			t.Errorf("%s: %v: the line that was asked for is not in %s", f, err, with)
		}
	}
	if _, err := Format("cef").Line(sample(), false); err == nil {
		t.Error("an unknown format is written")
	}
}

func TestEveryKindHasAClass(t *testing.T) {
	for _, k := range history.Kinds() {
		if _, ok := classes[string(k)]; !ok {
			t.Errorf("%s is filed nowhere", k)
		}
		for _, f := range Formats() {
			if b, err := Format(f).Line(control.Event{Kind: string(k), At: at}, false); err != nil || len(b) == 0 {
				t.Errorf("%s of %s: %v", f, k, err)
			}
		}
	}
}

// rfc5424 is the grammar of RFC 5424 for messages of ours.
var rfc5424 = regexp.MustCompile("^<\\d{1,3}>1 \\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\d\\.\\d{3}Z - banmesh - [!-~]{1,32} \\[banmesh@32473(?: [a-z]+=\"(?:[^\"\\\\\\]]|\\\\[\"\\\\\\]])*\")+\\] [^\\n]*$")

func FuzzEveryLineIsOne(f *testing.F) {
	f.Add("ban", "alice", "why\n", "line\x00", "/var/log/x")
	f.Add("", "]", `\`, "\u2028", "\xff")
	f.Fuzz(func(t *testing.T, kind, peer, why, line, source string) {
		e := control.Event{At: at, Kind: kind, Peers: []string{peer}, Why: why, Sample: line, Source: source}
		b, err := Syslog.Line(e, true)
		if err != nil || !rfc5424.Match(b) {
			t.Errorf("%v: %q is no message of RFC 5424", err, b)
		}
		b, err = ECS.Line(e, true)
		if err != nil || !json.Valid(b) || strings.Contains(string(b), "\n") {
			t.Errorf("%v: %q is no line of JSON", err, b)
		}
	})
}
