package detect

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// logins writes a log of failures ("-user") and logins ("+user") of an address.
func logins(address string, at time.Time, users ...string) string {
	var b strings.Builder
	for i, u := range users {
		verb := "Failed"
		if u[0] == '+' {
			verb = "Accepted"
		}
		fmt.Fprintf(&b, "%s web1 sshd[%d]: %s password for %s from %s port %d ssh2\n", at.Add(time.Duration(i)*time.Second).Format(time.Stamp), 100+i, verb, u[1:], address, 1024+i)
	}
	return b.String()
}

func TestALoginTakesBackTheFailuresOfItsAccountAndNoOthers(t *testing.T) {
	for _, c := range []struct {
		name   string
		lines  []string
		banned bool
	}{
		{"four failures, the login, four failures", []string{"-a", "-a", "-a", "-a", "+a", "-a", "-a", "-a", "-a"}, false},
		{"in other letters", []string{"-A", "-A", "-A", "-A", "+a", "-a", "-a", "-a", "-a"}, false},
		{"a login of one's own account between guesses", []string{"-root", "-root", "+a", "-root", "-root", "+a", "-root"}, true},
		{"more accounts than are told apart", []string{"-b", "-c", "-d", "-e", "+b", "-f", "-g"}, true},
		{"five failures before the login", []string{"-a", "-a", "-a", "-a", "-a", "+a"}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "auth.log")
			write(t, log, logins("192.0.2.1", time.Now().Add(-time.Minute), c.lines...))
			var got decisions
			readOnce(t, Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban})
			if banned := len(got.all()) > 0; banned != c.banned {
				t.Errorf("banned: %t, want %t", banned, c.banned)
			}
		})
	}
}

func TestALoginIsToldWithItsConnectionAndOnlyIfItWasOne(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	write(t, log, logins("192.0.2.1", start, "+Root")+logins("192.0.2.2", start, "+root")+logins("2001:db8::7", start, "+x from 198.51.100.1 port 1 ssh2"))
	var told []Success
	var got decisions
	d := readOnce(t, Options{
		Jails: doubting(t, log), Ban: got.ban,
		Success: func(_ context.Context, s Success) { told = append(told, s) },
		Corroborated: func(_ context.Context, q Question) Proof {
			if q.From.Addr().String() == "192.0.2.2" {
				return ProofDenied
			}
			return ProofConfirmed
		},
	})
	want := []Success{
		{Topic: "sshd", Addr: netip.MustParseAddr("192.0.2.1"), Port: 1024, Account: AccountOf("root"), At: start},
		{Topic: "sshd", Addr: netip.MustParseAddr("2001:db8::7"), Port: 1024, Account: AccountOf("x from 198.51.100.1 port 1 ssh2"), At: start},
	}
	same := slices.EqualFunc(told, want, func(a, b Success) bool { at := a.At.Equal(b.At); a.At = b.At; return at && a == b })
	if !same {
		t.Errorf("told %+v, want %+v", told, want)
	}
	if s := d.Status().Jails[0]; s.Successes != 2 || s.Uncorroborated != 1 {
		t.Errorf("%+v", s)
	}
}

func TestWhatIsCountedOfAccountsAndEpisodesOutlivesARestart(t *testing.T) {
	dir := t.TempDir()
	log, state := filepath.Join(dir, "auth.log"), filepath.Join(dir, "detect.state")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	var got decisions
	o := Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, StatePath: state}
	write(t, log, logins("192.0.2.1", start, "-a", "-a", "-a", "-a"))
	readOnce(t, o)
	write(t, log, logins("192.0.2.1", start.Add(10*time.Second), "+a"))
	readOnce(t, o)
	write(t, log, logins("192.0.2.1", start.Add(20*time.Second), "-a", "-a", "-a", "-a"))
	d := readOnce(t, o)
	if len(got.all()) > 0 || d.Status().Jails[0].Tracked != 1 {
		t.Errorf("decided %+v", got.all())
	}
}

// twins is a topic whose log is told twice, by two expressions.
func twins() *topics.Definition {
	d, err := topics.Parse("x.toml", []byte(`name = "x"
[detect]
files = ["/x"]
maxretry = 5
[[detect.rule]]
class = "auth"
twin = true
regex = ['^ one <ADDR>$']
[[detect.rule]]
class = "auth"
twin = true
regex = ['^ two <ADDR>$']
[[detect.rule]]
class = "scan"
regex = ['^ three <ADDR>$']
`))
	if err != nil {
		panic(err)
	}
	return d
}

func TestTwinsCountAsMuchAsTheOneThatTellsMost(t *testing.T) {
	for _, c := range []struct {
		lines  string
		banned bool
	}{
		{"one two one two one two one two", false},
		{"one two one two one two one two one", true},
		{"two two two two one one one one", false},
		{"one one one one one", true},
		{"one two three three three three", true},
		{"one two three three three", false},
	} {
		var lines []string
		for _, word := range strings.Fields(c.lines) {
			lines = append(lines, "2026-11-21 09:14:02 "+word+" 192.0.2.1")
		}
		banned := false
		_, err := Replay(t.Context(), Options{Jails: []Jail{{Definition: twins()}}}, strings.NewReader(strings.Join(lines, "\n")), "x", time.Now(), func(Decision) error { banned = true; return nil })
		if err != nil || banned != c.banned {
			t.Errorf("%s: banned %t, %v", c.lines, banned, err)
		}
	}
}

func TestABanSaysWhetherItTookWeakOffences(t *testing.T) {
	const definition = "name = \"x\"\n[detect]\nfiles = [\"/x\"]\nmaxretry = 2\nfindtime = \"1h\"\n[[detect.rule]]\nclass = \"scan\"\nregex = ['^ strong <ADDR>$']\n[[detect.rule]]\nclass = \"auth\"\nweak = true\nregex = ['^ weak <ADDR>$']\n"
	d, err := topics.Parse("x.toml", []byte(definition))
	if err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[string]bool{"strong strong": false, "weak weak": true, "weak strong": true, "strong weak": true} {
		var text strings.Builder
		for i, word := range strings.Fields(lines) {
			fmt.Fprintf(&text, "2026-11-21 09:14:%02d %s 192.0.2.1\n", i, word)
		}
		var got []Decision
		_, err := Replay(t.Context(), Options{Jails: []Jail{{Definition: d}}}, strings.NewReader(text.String()), "x", time.Now(), func(v Decision) error { got = append(got, v); return nil })
		if err != nil || len(got) != 1 || got[0].Weak != want {
			t.Errorf("%s: %+v, %v", lines, got, err)
		}
	}
}

func TestWeakOffencesOfOneEpisodeCountAsTheHeaviest(t *testing.T) {
	w := newWindow(time.Hour, 5, newBudget())
	w.episode = time.Second
	target := ban.MustTarget("192.0.2.1")
	at := time.Unix(1000, 0)
	for _, c := range []struct {
		after  time.Duration
		weight float64
		hits   float64
	}{
		{0, 0.5, 0.5},
		{time.Second - 1, 0.5, 0.5}, // the same episode
		{time.Second - 1, 0.7, 0.7}, // a heavier one in it
		{time.Second - 1, 0.1, 0.7},
		{time.Second, 0.5, 1.2}, // the next
		{3 * time.Second, 0.5, 1.7},
	} {
		e, _ := w.addWeak(target, at.Add(c.after), c.weight, false)
		if diff := e.hits - c.hits; diff > 1e-9 || diff < -1e-9 {
			t.Errorf("after %v with %v: %v, want %v", c.after, c.weight, e.hits, c.hits)
		}
	}
}

func newBudget() *budget {
	b := &budget{}
	b.left.Store(DefaultMaxTracked)
	return b
}

func TestALineIsTheSameWhateverWroteIt(t *testing.T) {
	for line, want := range map[string]string{
		"plain":                                             "plain",
		"\x1b[36m2026 \x1b[0mx\x1b[":                        "2026 x",
		"\x1b[1;33m[W]\x1b[0m \x1bx":                        "[W] x",
		"<38>Nov 21 09:14:02 web1 sshd[1]: x":               "Nov 21 09:14:02 web1 sshd[1]: x",
		"<38>1 2026-11-21T09:14:02Z web1 sshd 4711 - - x y": "2026-11-21T09:14:02Z web1 sshd[4711]: x y",
		"<38>1 2026-11-21T09:14:02Z web1 sshd - ID47 [a b=\"] \\\" \"][c d=\"e\"] x y": "2026-11-21T09:14:02Z web1 sshd: x y",
		"<38>1 2026-11-21T09:14:02Z web1 sshd 4711 - -":                                "2026-11-21T09:14:02Z web1 sshd[4711]: ",
		"<38>1 2026-11-21T09:14:02Z web1 sshd 4711 - [a b=\"x y":                       "1 2026-11-21T09:14:02Z web1 sshd 4711 - [a b=\"x y",
		"<192>x": "<192>x", "<>x": "<>x", "<a>x": "<a>x", "<38": "<38",
		"<09/16/08@05:03:30> x":    "<09/16/08@05:03:30> x",
		"from fe80::1%eth0 port 7": "from fe80::1 port 7", "[2001:db8::1%br-0.5] x%20y [::1%lo]": "[2001:db8::1] x%20y [::1]",
		"12:30%full ::1% ::1%a-name-of-more-than-15": "12:30%full ::1% ::1%a-name-of-more-than-15",
	} {
		if got := string(plain([]byte(line), make([]byte, 0, 2*len(line)+2))); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// FuzzPlain holds that no line grows, and that a line with neither colours, zones
// nor a priority stays as it is.
func FuzzPlain(f *testing.F) {
	f.Add([]byte("<38>1 2026-11-21T09:14:02Z web1 sshd 4711 - [a b=\"c\"] x"))
	f.Add([]byte("\x1b[1mx\x1b[0m"))
	f.Fuzz(func(t *testing.T, line []byte) {
		got := plain(line, make([]byte, 0, 2*len(line)+2))
		if len(got) > len(line)+2 {
			t.Errorf("%q grew to %q", line, got)
		}
		if !slices.Contains(line, escape) && !slices.Contains(line, '%') && (len(line) == 0 || line[0] != '<') && string(got) != string(line) {
			t.Errorf("%q became %q", line, got)
		}
	})
}

func TestALineBreakOfAClientTaintsWhatFollows(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct {
		name   string
		n      int // of the line after it
		pid    int
		after  time.Duration
		live   bool
		doubts bool
	}{
		{"the next line", 1, 7, 0, true, true},
		{"the eighth, soon after", 8, 7, 2 * time.Second, true, true},
		{"the ninth, within the second", 9, 7, 999 * time.Millisecond, true, true},
		{"the ninth, later", 9, 7, time.Second, true, false},
		{"the next, long after", 1, 7, 10 * time.Second, true, false},
		{"the eighth of a log of the past", 8, 7, time.Hour, false, true},
		{"the ninth of a log of the past", 9, 7, 0, false, false},
		{"of another process", 1, 8, 0, true, false},
	} {
		x := newTaint(7, now)
		got := false
		for range c.n {
			got = x.covers(c.pid, now.Add(c.after), c.live)
		}
		if got != c.doubts {
			t.Errorf("%s: %t", c.name, got)
		}
	}
}

func TestATaintedLineCountsOnlyForTheVeryConnection(t *testing.T) {
	var d *topics.Definition
	for _, x := range topics.Builtin() {
		if x.Name == "livepeer" {
			d = x
		}
	}
	for _, c := range []struct {
		proof Proof
		want  JailStatus
	}{
		{ProofConfirmed, JailStatus{Found: 1}},
		{ProofUnknown, JailStatus{Tainted: 1}},
		{ProofDenied, JailStatus{Tainted: 1, Uncorroborated: 1}},
	} {
		var got decisions
		o := Options{Jails: []Jail{{Definition: d}}, Ban: got.ban, Now: time.Now, Corroborated: func(context.Context, Question) Proof { return c.proof }}
		det, err := prepare(o)
		if err != nil {
			t.Fatal(err)
		}
		r := newReader(det, &readerGroup{jails: det.jails})
		r.caught.Store(true)
		for _, line := range []string{
			"E1128 00:34:52.886438    1337 segment_rpc.go:308] manifestID=x",
			"2026/11/28 00:34:52 http: TLS handshake error from 203.0.113.50:4711: tls: first record does not look like a TLS handshake",
		} {
			r.handle(t.Context(), source.Line{Text: []byte(line), Stream: "log"})
		}
		if s := det.Status().Jails[0]; s.Found != c.want.Found || s.Tainted != c.want.Tainted || s.Uncorroborated != c.want.Uncorroborated {
			t.Errorf("proof %d: %+v", c.proof, s)
		}
	}
}

// A guesser with one password a connection leaves a line of his failure, and one of the
// connection's end, which honest clients leave too. His ban rests on the failures alone,
// so that other nodes believe it.
func TestTheEndOfAConnectionThatFailedMakesNoBanWeak(t *testing.T) {
	definitions := topics.Builtin()
	i := slices.IndexFunc(definitions, func(d *topics.Definition) bool { return d.Name == "sshd" })
	for _, c := range []struct {
		name        string
		lines       func(port int) []string
		connections int // after which it is banned
		weak        bool
	}{
		{"failures and ends", func(port int) []string {
			return []string{fmt.Sprintf("Failed password for root from 192.0.2.7 port %d ssh2", port), fmt.Sprintf("Connection closed by authenticating user root 192.0.2.7 port %d [preauth]", port)}
		}, 5, false},
		{"ends alone", func(port int) []string {
			return []string{fmt.Sprintf("Connection closed by authenticating user root 192.0.2.7 port %d [preauth]", port)}
		}, 10, true},
		{"ends of other connections", func(port int) []string {
			return []string{fmt.Sprintf("Failed password for root from 192.0.2.7 port %d ssh2", port), fmt.Sprintf("Connection closed by authenticating user root 192.0.2.7 port %d [preauth]", port+1000)}
		}, 4, true},
	} {
		for _, n := range []int{c.connections - 1, c.connections} {
			var lines []string
			for k := range n {
				for _, line := range c.lines(50000 + k) {
					// A minute apart: no episode of one moment.
					lines = append(lines, fmt.Sprintf("Nov 21 09:%02d:02 web1 sshd[%d]: %s", 10+k/2, 100+k, line))
				}
			}
			var got []Decision
			at := time.Date(2026, 11, 21, 10, 0, 0, 0, time.Local)
			_, err := Replay(t.Context(), Options{Jails: []Jail{{Definition: definitions[i]}}}, strings.NewReader(strings.Join(lines, "\n")), "x", at, func(d Decision) error { got = append(got, d); return nil })
			if err != nil || (len(got) > 0) != (n == c.connections) || len(got) > 0 && got[0].Weak != c.weak {
				t.Errorf("%s, %d connections: %+v, %v", c.name, n, got, err)
			}
		}
	}
}
