// Package siem writes a node's events as collectors of logs read them: objects of
// the Elastic Common Schema, a line each, and syslog messages of RFC 5424.
//
// Lines of logs, which may have names of users in them, and the logs' paths are
// left out unless they are asked for. No host's name is ever in them: collectors
// know from whom they read.
package siem

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"banmesh/internal/control"
)

// A Format is a way to write an event.
type Format string

// The formats.
const (
	ECS    Format = "ecs"
	Syslog Format = "rfc5424"
)

// Formats lists them.
func Formats() []string { return []string{string(ECS), string(Syslog)} }

// Line gives an event in a line without its end. With lines the log line, the log
// and the client's port are in it.
func (f Format) Line(e control.Event, lines bool) ([]byte, error) {
	if !lines {
		e.Sample, e.Source = "", ""
	}
	switch f {
	case ECS:
		return ecsLine(e)
	case Syslog:
		return syslogLine(e), nil
	}
	return nil, fmt.Errorf("no format is called %q", string(f))
}

// ecsVersion is the version of the schema whose fields are used.
const ecsVersion = "8.11.0"

// A class says how kinds of events are filed: in ECS by kind, categories, types and
// outcome, in syslog by a severity of RFC 5424, 0 to 7.
type class struct {
	kind       string
	categories []string
	types      []string
	outcome    string
	severity   int
}

var network = []string{"network", "intrusion_detection"}

var classes = map[string]class{
	"ban":        {"alert", network, []string{"denied"}, "success", 5},
	"extend":     {"alert", network, []string{"denied", "change"}, "success", 5},
	"end":        {"event", network, []string{"allowed", "end"}, "success", 6},
	"watch-hit":  {"alert", append([]string{"threat"}, network...), []string{"indicator"}, "success", 5},
	"refuse":     {"event", network, []string{"info"}, "failure", 5},
	"shield":     {"event", network, []string{"allowed"}, "success", 5},
	"hold":       {"event", []string{"threat"}, []string{"info"}, "unknown", 4},
	"strike":     {"event", []string{"threat"}, []string{"info"}, "failure", 4},
	"quarantine": {"event", []string{"threat"}, []string{"info"}, "unknown", 4},
	"withdraw":   {"event", []string{"threat"}, []string{"indicator", "end"}, "success", 6},
	"unban":      {"event", network, []string{"allowed", "change"}, "success", 5},
	"allow":      {"event", []string{"configuration"}, []string{"change"}, "success", 5},
	"dispute":    {"event", []string{"threat"}, []string{"info"}, "unknown", 4},
	"peer":       {"event", []string{"configuration"}, []string{"change"}, "success", 5},
	"config":     {"event", []string{"configuration"}, []string{"change"}, "success", 5},
	"start":      {"event", []string{"process"}, []string{"start"}, "success", 6},
	"stop":       {"event", []string{"process"}, []string{"end"}, "success", 6},
	"lost":       {"pipeline_error", []string{"process"}, []string{"error"}, "failure", 3},
}

// classOf gives the class of a kind; one of a later version is plain news.
func classOf(kind string) class {
	if c, ok := classes[kind]; ok {
		return c
	}
	return class{"event", []string{"host"}, []string{"info"}, "unknown", 6}
}

type ecsDocument struct {
	Timestamp time.Time         `json:"@timestamp"`
	ECS       map[string]string `json:"ecs"`
	Message   string            `json:"message"`
	Event     ecsEvent          `json:"event"`
	Source    *ecsSource        `json:"source,omitempty"`
	Related   *ecsRelated       `json:"related,omitempty"`
	Rule      map[string]string `json:"rule,omitempty"`
	Observer  map[string]string `json:"observer"`
	Log       *ecsLog           `json:"log,omitempty"`
	Banmesh   ecsBanmesh        `json:"banmesh"`
}

type ecsEvent struct {
	Kind     string    `json:"kind"`
	Category []string  `json:"category"`
	Type     []string  `json:"type"`
	Outcome  string    `json:"outcome"`
	Action   string    `json:"action"`
	Reason   string    `json:"reason,omitempty"`
	Sequence uint64    `json:"sequence"`
	ID       string    `json:"id"`
	Provider string    `json:"provider"`
	Dataset  string    `json:"dataset"`
	Start    time.Time `json:"start,omitzero"`
	Original string    `json:"original,omitempty"`
	Severity int       `json:"severity"`
}

type ecsSource struct {
	Address string `json:"address"`
	IP      string `json:"ip,omitempty"` // ECS has no prefixes here
	Port    uint16 `json:"port,omitempty"`
}

type ecsRelated struct {
	IP []string `json:"ip"`
}

type ecsLog struct {
	File map[string]string `json:"file"`
}

// ecsBanmesh holds facts for which the schema has no field.
type ecsBanmesh struct {
	By    string    `json:"by,omitempty"`
	Peers []string  `json:"peers,omitempty"`
	Until time.Time `json:"until,omitzero"`
	Count int       `json:"count,omitempty"`
}

func ecsLine(e control.Event) ([]byte, error) {
	c := classOf(e.Kind)
	d := ecsDocument{
		Timestamp: e.At.UTC(), ECS: map[string]string{"version": ecsVersion}, Message: sentence(e),
		Event: ecsEvent{
			Kind: c.kind, Category: c.categories, Type: c.types, Outcome: c.outcome, Action: e.Kind, Reason: e.Why, Sequence: e.Cursor, ID: strconv.FormatUint(e.Cursor, 10),
			Provider: "banmesh", Dataset: "banmesh.events", Start: e.First, Original: e.Sample, Severity: c.severity,
		},
		Observer: map[string]string{"vendor": "Banmesh", "product": "Banmesh agent", "type": "ips"},
		Banmesh:  ecsBanmesh{By: e.By, Peers: e.Peers, Until: e.Until, Count: e.Count},
	}
	if !e.Target.IsZero() {
		d.Source = &ecsSource{Address: e.Target.String(), Port: e.Port}
		if a, err := netip.ParseAddr(d.Source.Address); err == nil {
			d.Source.IP, d.Related = a.String(), &ecsRelated{[]string{a.String()}}
		}
	}
	if e.Topic != "" {
		d.Rule = map[string]string{"name": string(e.Topic), "ruleset": "banmesh"}
	}
	if e.Source != "" {
		d.Log = &ecsLog{map[string]string{"path": e.Source}}
	}
	b, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("writing an event: %w", err)
	}
	return b, nil
}

// sentence says an event to people.
func sentence(e control.Event) string {
	parts := []string{e.Kind}
	if !e.Target.IsZero() {
		parts = append(parts, e.Target.String())
	}
	if e.Topic != "" {
		parts = append(parts, "in "+string(e.Topic))
	}
	s := strings.Join(parts, " ")
	if e.Why != "" {
		s += ": " + e.Why
	}
	return s
}

const (
	// facility is that of security and authorization messages (RFC 5424, 6.2.1).
	facility = 10
	// structure names the element of our parameters; the number is the one that RFC
	// 5612 reserves for examples, for we have none of our own.
	structure = "banmesh@32473"
)

// syslogLine gives a message of RFC 5424 without host and process, whose text is
// UTF-8 with the mark that the RFC wants.
func syslogLine(e control.Event) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s - banmesh - %s [%s", facility*8+classOf(e.Kind).severity, e.At.UTC().Format("2006-01-02T15:04:05.000Z"), messageID(e.Kind), structure)
	add := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, ` %s="%s"`, name, escape(value))
		}
	}
	add("cursor", strconv.FormatUint(e.Cursor, 10))
	if !e.Target.IsZero() {
		add("target", e.Target.String())
	}
	add("topic", string(e.Topic))
	add("by", e.By)
	for _, p := range e.Peers {
		add("peer", p) // a name may come several times (RFC 5424, 6.3.3)
	}
	if e.Count > 0 {
		add("count", strconv.Itoa(e.Count))
	}
	if e.Port > 0 {
		add("port", strconv.Itoa(int(e.Port)))
	}
	if !e.First.IsZero() {
		add("first", e.First.UTC().Format(time.RFC3339))
	}
	if !e.Until.IsZero() {
		add("until", e.Until.UTC().Format(time.RFC3339))
	}
	add("log", e.Source)
	add("line", e.Sample)
	b.WriteString("] ")
	text := oneLine(sentence(e))
	if strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf }) {
		b.WriteString("\ufeff")
	}
	b.WriteString(text)
	return []byte(b.String())
}

// messageID makes a kind a MSGID: printable ASCII, at most 32 bytes.
func messageID(kind string) string {
	id := strings.Map(func(r rune) rune {
		if r > ' ' && r < 0x7f {
			return r
		}
		return -1
	}, kind)
	if id == "" {
		return "-"
	}
	return id[:min(len(id), 32)]
}

// escape makes a text the value of a parameter (RFC 5424, 6.3.3).
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`).Replace(oneLine(s))
}

// oneLine replaces control characters and damaged UTF-8.
func oneLine(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, steers) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// steers says whether a character steers a terminal or ends a line.
func steers(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || slices.Contains([]rune{'\u2028', '\u2029'}, r)
}
