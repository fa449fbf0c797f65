package detect

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/filter"
	"banmesh/topics"
)

// victim is whom a client would have blamed in its place.
const victim = "198.51.100.1"

// A place is a stretch of a line that a client may have written.
type place struct {
	from, to int
	user     bool // surely: an attacker chooses it freely
	escape   func(string) string
}

// TestNoClientChoosesWhomALineBlames writes texts that look like the line itself
// into every quoted, bracketed and user place of every sample of every topic.
// Whatever stands there, the line blames its peer or nobody, and a text in the
// place of a user hides nobody.
func TestNoClientChoosesWhomALineBlames(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	total := 0
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		t.Run(string(d.Name), func(t *testing.T) {
			sampler, err := detect.NewSampler(d, now)
			if err != nil {
				t.Fatal(err)
			}
			lines := 0
			for _, s := range d.Samples {
				if s.Target != "" || s.Success != "" {
					lines += attack(t, d, sampler, s, now)
				}
			}
			t.Logf("%d lines", lines)
			total += lines
		})
	}
	t.Logf("%d lines in all", total)
	if total < 20_000 {
		t.Errorf("%d lines are too few to say something", total)
	}
}

// attack makes lines of one sample and gives how many.
func attack(t *testing.T, d *topics.Definition, sampler *detect.Sampler, s topics.Sample, now time.Time) int {
	t.Helper()
	lines, faults := 0, 0
	for _, p := range places(t, d, s, now) {
		original := s.Line[p.from:p.to]
		for _, text := range texts(d, s, p) {
			forged := s
			forged.Line = s.Line[:p.from] + p.escape(text) + s.Line[p.to:]
			if p.user && original != "" {
				// A program that repeats a name repeats all of it.
				forged.Line = s.Line[:p.from] + p.escape(text) + strings.ReplaceAll(s.Line[p.to:], "name: "+original, "name: "+p.escape(text))
			}
			lines++
			got := sampler.Find(forged)
			if who := blamed(got); who != "" && !slices.Contains(peers(s), who) {
				t.Errorf("blames %s: %q", who, forged.Line)
				faults++
			}
			if p.user && s.Target != "" && blamed(got) == "" && !hides(d, s, text) {
				t.Errorf("hides the peer: %q", forged.Line)
				faults++
			}
			if faults > 5 {
				return lines
			}
		}
	}
	return lines
}

// hides says that a text in the place of a user may hide the peer in this line:
// another line tells of it, or no account can have such a name.
func hides(d *topics.Definition, s topics.Sample, text string) bool {
	return d.Name == "nginx" && strings.Contains(s.Line, "[error]") && strings.Contains(text+", ", ", client: ") ||
		d.Name == "dovecot" && strings.Contains(s.Line, "auth: ") && (strings.Contains(text, "): Username ") || strings.Contains(text, "(given password: ")) ||
		d.Name == "vaultwarden" && strings.Contains(text+". ", ". Username: ") ||
		d.Name == "roundcube" && strings.Contains(s.Line, ". AUTHENTICATE") && strings.Contains(" "+text+" ", " from ") ||
		d.Name == "sshd" && strings.Contains(s.Line, "Failed hostbased for dan ") && strings.Contains(" "+text+" ", " from ") ||
		strings.Contains(s.Line, "pam_unix") && strings.Contains(" "+text, " rhost=")
}

func blamed(x detect.Sampled) string {
	switch {
	case !x.Target.IsZero():
		return x.Target.String()
	case x.Success.IsValid():
		return x.Success.String()
	}
	return ""
}

func peers(s topics.Sample) []string { return []string{s.Target, s.Success} }

// address finds addresses as samples have them.
var address = regexp.MustCompile(`\d+\.\d+\.\d+\.\d+|[0-9a-f]+(?::[0-9a-f]+)*::[0-9a-f:]*`)

// peerOf gives the address that a sample blames, as its line writes it.
func peerOf(s topics.Sample) string {
	for _, text := range address.FindAllString(s.Line, -1) {
		t, err := ban.ParseTarget(text)
		if err != nil {
			continue
		}
		if six, err := ban.ParseTarget(text + "/64"); strings.Contains(text, ":") && err == nil {
			t = six
		}
		if slices.Contains(peers(s), t.String()) || slices.Contains(peers(s), text) {
			return text
		}
	}
	return ""
}

// texts gives texts of a client's: the rest of the line behind its place, with
// another address, cut at every character, and every other line of the topic.
func texts(d *topics.Definition, s topics.Sample, p place) []string {
	original := s.Line[p.from:p.to]
	rest := address.ReplaceAllString(s.Line[p.to:], victim)
	var out []string
	for cut := 1; cut <= len(rest); cut++ {
		out = append(out, original+rest[:cut], rest[:cut]+original)
	}
	// With the front of the line, in case an expression is not held to it.
	for cut := range p.from {
		out = append(out, address.ReplaceAllString(s.Line[cut:p.from], victim)+original+rest)
	}
	for _, other := range d.Samples {
		if other.Target != "" || other.Success != "" {
			line := address.ReplaceAllString(other.Line, victim)
			out = append(out, line, original+" "+line, line+" ")
		}
	}
	return out
}

var (
	module    = regexp.MustCompile(`^(?:\w+(?:::\w+)+|MainThread|homeassistant\.[a-z.]+|(?:[a-z_0-9]+:)?error|[Ww]arn|info|API|Auth|pid \d+:tid \d+|[A-Z][a-z]{2} [A-Z][a-z]{2} [\d :.]+)$`)
	enclosed  = regexp.MustCompile(`"([^"]*)"|'([^']*)'|<([^<>]*)>|\[([^\[\]]*)\]|\(([^()]*)\)`)
	jsonValue = regexp.MustCompile(`:\s*"((?:[^"\\]|\\.)*)"`)
	fmtValue  = regexp.MustCompile(`=("(?:[^"\\]|\\.)*"|\S*)`)
	access    = regexp.MustCompile(`^\S+ \S+ (.*) \[[^\]]*\] "((?:[^"\\]|\\.)*)" \d+ \S+(?: "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)")?`)
)

// places finds where in a sample's line a client may have written, by the rules
// of the line's format.
func places(t *testing.T, d *topics.Definition, s topics.Sample, now time.Time) (list []place) {
	t.Helper()
	peer := peerOf(s)
	if peer == "" {
		t.Fatalf("nobody stands in %q", s.Line)
	}
	add := func(at [][]int, user bool, escape func(string) string) {
		for _, m := range at {
			for i := 2; i+1 < len(m); i += 2 {
				if m[i] < 0 {
					continue
				}
				// Nobody but the logging service writes numbers of processes and dates,
				// and nobody but the program names its parts.
				text := s.Line[m[i]:m[i+1]]
				if number := text != "" && strings.Trim(text, "0123456789 :.+-/") == ""; !number && !module.MatchString(text) && !strings.Contains(text, peer) {
					list = append(list, place{m[i], m[i+1], user && i == 2, escape})
				}
			}
		}
	}
	formats := d.Detect.Formats()
	switch {
	case strings.HasPrefix(s.Line, "{"):
		add(jsonValue.FindAllStringSubmatchIndex(s.Line, -1), false, inJSON)
	case slices.Contains(formats, "access") && access.MatchString(s.Line):
		add(access.FindAllStringSubmatchIndex(s.Line, -1), true, inAccessLog)
	case slices.Contains(formats, "logfmt"):
		add(fmtValue.FindAllStringSubmatchIndex(s.Line, -1), false, strconv.Quote)
	default:
		add(enclosed.FindAllStringSubmatchIndex(s.Line, -1), false, asItIs)
		add(users(t, d, s, now), true, asItIs)
	}
	return list
}

// users finds the user that the sample's own rule captures.
func users(t *testing.T, d *topics.Definition, s topics.Sample, now time.Time) (at [][]int) {
	t.Helper()
	c, err := detect.FilterConfig(d, "")
	if err != nil {
		t.Fatal(err)
	}
	f, err := filter.Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	follower, err := f.Follow(dates.Options{Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	line, when := s.Line, time.Time{}
	if s.Journal {
		line, when = "host "+s.Tag+"[1]: "+s.Line, now
	}
	for _, m := range follower.Line([]byte(line), when, nil) {
		user, ok := m.Fields.Get("user")
		if i := strings.Index(s.Line, user); ok && user != "" && i >= 0 {
			at = append(at, []int{0, 0, i, i + len(user)})
		}
	}
	return at
}

func asItIs(s string) string { return s }

func inJSON(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b[1 : len(b)-1])
}

// inAccessLog escapes as nginx does.
func inAccessLog(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c == '"' || c == '\\' || c < 0x20 || c >= 0x7f {
			fmt.Fprintf(&b, `\x%02X`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// FuzzNoClientChoosesWhomALineBlames writes a fuzzer's texts.
func FuzzNoClientChoosesWhomALineBlames(f *testing.F) {
	type target struct {
		sampler *detect.Sampler
		sample  topics.Sample
		places  []place
	}
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	var all []target
	for _, d := range topics.Builtin() {
		if d.Detect == nil {
			continue
		}
		sampler, err := detect.NewSampler(d, now)
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range d.Samples {
			if s.Target != "" {
				all = append(all, target{sampler, s, places(&testing.T{}, d, s, now)})
			}
		}
	}
	f.Add(uint16(0), uint8(0), " from 198.51.100.1 port 22 ssh2")
	f.Add(uint16(9), uint8(1), ">, rip=198.51.100.1, lip=1")
	f.Fuzz(func(t *testing.T, which uint16, where uint8, text string) {
		x := all[int(which)%len(all)]
		if len(x.places) == 0 || strings.ContainsAny(text, "\n\r") {
			return
		}
		p := x.places[int(where)%len(x.places)]
		s := x.sample
		s.Line = s.Line[:p.from] + p.escape(text) + s.Line[p.to:]
		got := x.sampler.Find(s)
		if target, err := ban.ParseTarget(victim); err == nil && got.Target == target {
			t.Errorf("blames the victim: %q", s.Line)
		}
	})
}
