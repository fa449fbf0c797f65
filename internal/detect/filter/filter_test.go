package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/detect/dates"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/dlclark/regexp2/v2.runClock"))
}

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// A stream is a filter that follows lines under a clock that a test sets.
type stream struct {
	*Follower
	at time.Time
}

func follow(t *testing.T, c Config) *stream {
	t.Helper()
	if c.Name == "" {
		c.Name = "x"
	}
	f, err := Compile(c)
	if err != nil {
		t.Fatal(err)
	}
	s := &stream{at: noon}
	if s.Follower, err = f.Follow(dates.Options{Now: func() time.Time { return s.at }, Location: time.UTC}); err != nil {
		t.Fatal(err)
	}
	return s
}

// line gives each match of a line without a date as "rule:id users".
func (s *stream) line(text string) string {
	var out []string
	for _, m := range s.Line([]byte(text), s.at, nil) {
		word := fmt.Sprintf("%d:%s", m.Rule, m.ID)
		if m.Address != "" {
			word += "@" + m.Address
		}
		if m.Named {
			word += " named"
		}
		if m.Bits != "" {
			word += "/" + m.Bits
		}
		if m.NoFail {
			word += " nofail"
		}
		if len(m.Users) > 0 {
			word += " users=" + strings.Join(m.Users, ",")
		}
		if len(m.Lines) != 1 {
			word += fmt.Sprintf(" lines=%d", len(m.Lines))
		}
		out = append(out, word)
	}
	return strings.Join(out, "; ")
}

// says runs lines, each with its answer, through one stream.
func says(t *testing.T, s *stream, lines ...[2]string) {
	t.Helper()
	for i, l := range lines {
		if got := s.line(l[0]); got != l[1] {
			t.Errorf("line %d %q: %q, want %q", i+1, l[0], got, l[1])
		}
	}
}

func TestTheFirstExpressionThatMatchesNamesTheOffender(t *testing.T) {
	says(t, follow(t, Config{Failregex: []string{`^bad <ADDR>$`, `^\w+ <HOST>$`, `^id=<F-ID>\S+</F-ID> (?:<ADDR>)?$`, `^net <SUBNET>$`}}),
		[2]string{"bad 192.0.2.1", "0:192.0.2.1"},
		[2]string{"worse 192.0.2.1", "1:192.0.2.1"},
		[2]string{"worse mail.example.org", "1:mail.example.org named"},
		[2]string{"id=abc 192.0.2.1", "2:abc@192.0.2.1"},
		[2]string{"id=192.0.2.1 192.0.2.1", "2:192.0.2.1"},
		[2]string{"id=abc ", "2:abc"},
		[2]string{"net 2001:db8::/32", "3:2001:db8::/32"},
		[2]string{"net 192.0.2.0", "1:192.0.2.0"},
		[2]string{"good", ""},
	)
}

func TestAnExpressionThatNamesNobodyIsRefusedAndAllFaultsAreNamed(t *testing.T) {
	_, err := Compile(Config{Name: "x", Failregex: []string{`^bad$`, `(`}, Ignoreregex: []string{`)`}, DatePattern: []string{"%Q"}})
	for _, want := range []string{"x: failregex 1: no failure-id group", "x: failregex 2:", "x: ignoreregex 1:", "%Q"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from:\n%v", want, err)
		}
	}
	if _, err := Compile(Config{Failregex: []string{`^bad$`}, Prefregex: `^<ADDR>: <F-CONTENT>.*</F-CONTENT>$`}); err != nil {
		t.Errorf("the prefregex names somebody: %v", err)
	}
	for _, c := range []struct {
		rules, lines int
		want         error
	}{{maxRules, maxMaxLines, nil}, {maxRules + 1, 1, ErrTooLarge}, {1, maxMaxLines + 1, ErrTooLarge}} {
		if _, err := Compile(Config{Failregex: slices.Repeat([]string{`^bad <ADDR>$`}, c.rules), MaxLines: c.lines}); !errors.Is(err, c.want) || c.want == nil && err != nil {
			t.Errorf("%d rules, %d lines: %v", c.rules, c.lines, err)
		}
	}
}

func TestAPrefixSaysWhichLinesCountAndWhatOfThem(t *testing.T) {
	s := follow(t, Config{Prefregex: `^prog\[(?P<mlfid>\d+)\]: <F-CONTENT>[^#\n]+</F-CONTENT>(?:#.*)?$`, Failregex: []string{`^bad <ADDR>$`, `^from <ADDR>`}})
	says(t, s,
		[2]string{"prog[1]: bad 192.0.2.1", "0:192.0.2.1"},
		[2]string{"prog[2]: bad 192.0.2.1#comment", "0:192.0.2.1"},
		[2]string{"prog[3]: é bad 192.0.2.1", ""},
		[2]string{"bad 192.0.2.1", ""},
		[2]string{"prog[4]: from 192.0.2.2#é", "1:192.0.2.2"},
	)
	m := s.Line([]byte("prog[9]: from 192.0.2.3"), noon, nil)
	if len(m) != 1 || !strings.HasPrefix(m[0].Text[m[0].From:], "192.0.2.3\n") {
		t.Errorf("%+v", m)
	}
}

func TestAnIgnoredLineIsNoOffenceAndIsReported(t *testing.T) {
	for _, c := range []struct {
		name string
		fail []string
		all  bool
	}{
		{"after the expressions", []string{`^bad <ADDR>`}, false},
		{"before them, when there are many", []string{`^bad <ADDR>`, `^b <ADDR>`, `^c <ADDR>`, `^d <ADDR>`}, false},
		{"with every expression tried", []string{`^bad <ADDR>`, `^bad <HOST>`}, true},
	} {
		s := follow(t, Config{Failregex: c.fail, Ignoreregex: []string{`friend$`}})
		s.All = c.all
		ignored := 0
		s.OnIgnore = func(i int) { ignored++ }
		if s.f.ignoreFirst != (len(c.fail) > 3) {
			t.Errorf("%s: ignoreFirst is %t", c.name, s.f.ignoreFirst)
		}
		says(t, s, [2]string{"bad 192.0.2.1 friend", ""})
		if ignored == 0 {
			t.Errorf("%s: nobody was told", c.name)
		}
		if got := s.line("bad 192.0.2.1"); !strings.HasPrefix(got, "0:192.0.2.1") {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// session is a filter of lines that belong together by a connection's number.
func session(t *testing.T) *stream {
	return follow(t, Config{Prefregex: `^c<F-MLFID>\d+</F-MLFID> <F-CONTENT>.+</F-CONTENT>$`, Failregex: []string{
		`^<F-NOFAIL>connect</F-NOFAIL> <ADDR>$`,
		`^refused <F-USER>\w+</F-USER>$`,
		`^<F-NOFAIL><F-MLFFORGET>end</F-MLFFORGET></F-NOFAIL>$`,
		`^<F-MLFGAINED>welcome</F-MLFGAINED> <F-USER>\w+</F-USER>$`,
		`^bye <ADDR>$`,
	}})
}

func TestLinesOfOneConnectionAreJoined(t *testing.T) {
	says(t, session(t),
		[2]string{"c1 connect 192.0.2.1", ""},
		[2]string{"c2 connect 192.0.2.2", ""},
		[2]string{"c1 refused root", "1:192.0.2.1 users=root lines=2"},
		[2]string{"c1 refused root", "1:192.0.2.1 users=root"},
		[2]string{"c2 refused admin", "1:192.0.2.2 users=admin lines=2"},
		[2]string{"c2 end", ""},
		[2]string{"c2 refused admin", ""}, // nobody is known any more
	)
	// An offence before its address waits for it.
	says(t, session(t),
		[2]string{"c1 refused root", ""},
		[2]string{"c1 connect 192.0.2.1", "0:192.0.2.1 users=root lines=2"},
	)
	// A success clears an offence that waits, and no other.
	says(t, session(t),
		[2]string{"c1 refused root", ""},
		[2]string{"c1 welcome root", ""},
		[2]string{"c1 connect 192.0.2.1", ""},
	)
	// Two users on one connection are an attack whatever succeeds.
	says(t, session(t),
		[2]string{"c1 connect 192.0.2.1", ""},
		[2]string{"c1 refused root", "1:192.0.2.1 users=root lines=2"},
		[2]string{"c1 welcome admin", "3:192.0.2.1 users=root,admin"},
	)
}

func TestAConnectionIsForgottenAfterItsTime(t *testing.T) {
	s := session(t)
	says(t, s, [2]string{"c1 connect 192.0.2.1", ""})
	s.at = noon.Add(connectionTTL)
	says(t, s, [2]string{"c1 refused root", "1:192.0.2.1 users=root lines=2"})
	s.at = noon.Add(connectionTTL + time.Nanosecond)
	says(t, s, [2]string{"c1 refused root", ""})
}

func TestConnectionsAreBoundedAndTheOldestGoes(t *testing.T) {
	s := session(t)
	for i := range maxConnections {
		s.line(fmt.Sprintf("c%d connect 192.0.2.1", i))
	}
	says(t, s, [2]string{"c0 refused root", "1:192.0.2.1 users=root lines=2"})
	s.line(fmt.Sprintf("c%d connect 192.0.2.1", maxConnections))
	says(t, s,
		[2]string{"c0 refused root", ""},
		[2]string{"c2 refused root", "1:192.0.2.1 users=root lines=2"},
	)
	for i := range 3 * maxConnections {
		s.line(fmt.Sprintf("c%d connect 192.0.2.1", 5000+i))
	}
	if n := chained(t, s); n != maxConnections {
		t.Errorf("%d connections", n)
	}
}

// chained counts the connections, and compares their chain with their map.
func chained(t *testing.T, s *stream) int {
	t.Helper()
	c, n := &s.connections, 0
	var before *connection
	for e := c.oldest; e != nil; before, e = e, e.newer {
		if n++; e.older != before || c.byID[e.id] != e {
			t.Fatalf("%q is not where it belongs", e.id)
		}
	}
	if n != len(c.byID) || c.newest != before {
		t.Fatalf("%d of %d connections are chained", n, len(c.byID))
	}
	return n
}

// One process number with another address on each line, as of a server that is one
// process, takes no more room and drops no connection of the others.
func TestAnIDThatComesAgainIsOneConnection(t *testing.T) {
	s := session(t)
	says(t, s, [2]string{"c1 connect 192.0.2.1", ""})
	for i := range 5 * maxConnections {
		s.line(fmt.Sprintf("c2 connect 198.51.%d.%d", 100+i/250, 1+i%250))
	}
	if n := chained(t, s); n != 2 {
		t.Errorf("%d connections", n)
	}
	says(t, s, [2]string{"c1 refused root", "1:192.0.2.1 users=root lines=2"})
}

// The oldest connection makes room, also where an older one had the id of a younger.
func TestAnIDThatComesAgainIsAsYoungAsItsConnection(t *testing.T) {
	s := session(t)
	s.line("c0 connect 192.0.2.1")
	for i := 1; i < maxConnections; i++ {
		s.line(fmt.Sprintf("c%d connect 192.0.2.1", i))
	}
	s.line("c0 connect 192.0.2.9")
	s.line(fmt.Sprintf("c%d connect 192.0.2.1", maxConnections))
	says(t, s,
		[2]string{"c1 refused root", ""},
		[2]string{"c0 refused root", "1:192.0.2.9 users=root lines=2"},
	)
}

func TestEvidenceOfOneConnectionIsBounded(t *testing.T) {
	s := session(t)
	s.All = true
	for i := range 2 * maxKept {
		s.Line([]byte(fmt.Sprintf("c1 refused u%d", i)), noon, nil)
	}
	m := s.Line([]byte("c1 bye 192.0.2.1"), noon, nil)
	if len(m) != 1 || len(m[0].Lines) != maxKept || len(m[0].Users) != maxKept {
		t.Fatalf("%d matches, %d lines, %d users", len(m), len(m[0].Lines), len(m[0].Users))
	}
}

func TestSeveralLinesAreMatchedTogether(t *testing.T) {
	says(t, follow(t, Config{MaxLines: 3, Failregex: []string{`^from <ADDR>$<SKIPLINES>^login failed$`}}),
		[2]string{"from 192.0.2.1", ""},
		[2]string{"noise", ""},
		[2]string{"login failed", "0:192.0.2.1 lines=2"},
		[2]string{"login failed", ""}, // the first line is used up
		[2]string{"from 192.0.2.2", ""},
		[2]string{"noise", ""},
		[2]string{"noise", ""},
		[2]string{"login failed", ""}, // too far
	)
	says(t, follow(t, Config{MaxLines: 2, Failregex: []string{`^from <ADDR>\nfailed$`}, Ignoreregex: []string{`^noise$`}}),
		[2]string{"noise", ""},
		[2]string{"from 192.0.2.1", ""},
		[2]string{"failed", "0:192.0.2.1 lines=2"},
	)
}

func TestLinesThatWereSkippedStandInTheWindowAgain(t *testing.T) {
	s := follow(t, Config{MaxLines: 3, Failregex: []string{`^from <ADDR>$<SKIPLINES>^failed$`}})
	for i := range 10 {
		if !s.Skip([]byte(fmt.Sprintf("noise %d", i)), noon) {
			t.Fatal("a line with nothing in it is tried")
		}
	}
	s.Skip([]byte("from 192.0.2.1"), noon)
	s.Skip([]byte("noise"), noon)
	s.CatchUp()
	says(t, s, [2]string{"failed", "0:192.0.2.1 lines=2"})
	// As many lines as belong together are tried after one that was worth it.
	for i, want := range []bool{false, false, true} {
		if got := s.Skip([]byte("x"), noon); got != want {
			t.Errorf("line %d after: skipped %t, want %t", i+1, got, want)
		}
	}
}

func TestALineWithoutADateCountsAsTheLastOneForAMinute(t *testing.T) {
	s := follow(t, Config{Failregex: []string{`^ ?bad <ADDR>$`}})
	at := func(line string) string {
		s.Line([]byte(line), time.Time{}, nil)
		if s.At.IsZero() {
			return "never"
		}
		return fmt.Sprintf("%s %q %t", s.At.UTC().Format("15:04:05"), s.Date, s.Dated)
	}
	for _, c := range []struct{ line, want string }{
		{"bad 192.0.2.1", "never"},
		{"2026-11-21 11:59:30 bad 192.0.2.1", `11:59:30 "2026-11-21 11:59:30" true`},
		{"bad 192.0.2.1", `11:59:30 "2026-11-21 11:59:30" false`},
		{"2026-11-21 11:59:00 bad 192.0.2.1", `11:59:00 "2026-11-21 11:59:00" true`},
		{"bad 192.0.2.1", "never"}, // a minute old
	} {
		if got := at(c.line); got != c.want {
			t.Errorf("%q: %s, want %s", c.line, got, c.want)
		}
	}
	none := follow(t, Config{DatePattern: []string{"{NONE}"}, Failregex: []string{`^bad <ADDR>$`}})
	if m := none.Line([]byte("bad 192.0.2.1"), time.Time{}, nil); len(m) != 1 || !none.At.Equal(noon) || none.Dated {
		t.Errorf("a log without dates: %d matches at %v", len(m), none.At)
	}
}

func TestGroupsWithComplexNamesMakeOneValue(t *testing.T) {
	s := follow(t, Config{Failregex: []string{`^<ADDR> <F-TUPLE_USER>\w+</F-TUPLE_USER>@<F-TUPLE_USER_2>\w*</F-TUPLE_USER_2>(?: <F-ALT_PORT_1>\d+</F-ALT_PORT_1>)?(?: <F-ALT_PORT_2>\d+</F-ALT_PORT_2>)?$`}})
	for line, want := range map[string][2]string{
		"192.0.2.1 a@b":       {", a, b", ""},
		"192.0.2.1 a@ 1":      {", a, ", "1"},
		"192.0.2.1 a@b 1 2":   {", a, b", "1"},
		"192.0.2.1 xy@b 7 88": {", xy, b", "7"},
	} {
		m := s.Line([]byte(line), noon, nil)
		if len(m) != 1 || m[0].Fields.value("user") != want[0] || m[0].Fields.value("fport") != want[1] {
			t.Errorf("%q: %+v, want %q", line, m, want)
		}
	}
}

func TestOnlyCandidatesAreTried(t *testing.T) {
	var rules []string
	for i := range 70 {
		rules = append(rules, fmt.Sprintf(`^r%d <ADDR>$`, i))
	}
	s := follow(t, Config{Failregex: rules})
	for _, c := range []struct {
		line       string
		candidates Candidates
		want       int
	}{
		{"r65 192.0.2.1", Candidates{0, 1 << 1}, 65},
		{"r65 192.0.2.1", Candidates{^uint64(0), 1}, -1},
		{"r63 192.0.2.1", Candidates{1 << 63, 0}, 63},
		{"r0 192.0.2.1", nil, 0},
		{"r0 192.0.2.1", Candidates{0, 0}, -1},
		{"r64 192.0.2.1", Candidates{1 << 3, 1}, 64},
	} {
		got := -1
		if m := s.Line([]byte(c.line), noon, c.candidates); len(m) == 1 {
			got = m[0].Rule
		}
		if got != c.want {
			t.Errorf("%q with %b: rule %d, want %d", c.line, c.candidates, got, c.want)
		}
	}
}

func TestALiteralSurvivesADateThatIsCutOutOfIt(t *testing.T) {
	for _, c := range []struct {
		dates []string
		want  []string
	}{
		{nil, []string{"login failed from"}},
		{[]string{`^\[%Y-%m-%d\]`}, []string{"login failed from"}},
		{[]string{`%Y-%m-%d**`}, []string{"login fa", "iled from"}},
		{[]string{`{UNB}%Y`}, []string{"login fa", "iled from"}},
		{[]string{`\[({DATE})`}, []string{"login failed from"}},
		{[]string{`\[(%Y)-`}, []string{"login fa", "iled from"}},
		{[]string{`x(%Y)y`}, []string{"login fa", "iled from"}},
		{[]string{`%Y\s`}, []string{"login fa", "iled from"}},
		{[]string{`{NONE}`}, []string{"login failed from"}},
	} {
		f, err := Compile(Config{DatePattern: c.dates, Failregex: []string{`^login failed from <ADDR>$`}})
		if err != nil {
			t.Fatal(err)
		}
		got := f.Literals()[0]
		for i := range got {
			got[i] = strings.TrimSpace(got[i])
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.dates, got, c.want)
		}
	}
	f, err := Compile(Config{DatePattern: []string{`{UNB}%Y`}, Failregex: []string{`^ab <ADDR>$`}})
	if err != nil || f.Literals()[0] != nil {
		t.Errorf("%q, %v: halves of a short text say too little", f.Literals(), err)
	}
}

func TestTheGateIsThePrefixAndStandsOpenWhereThatCannotBeSaid(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Config
		want bool
	}{
		{"a prefix", Config{Prefregex: `^sshd: <F-CONTENT>.*</F-CONTENT>$`, Failregex: []string{`^bad <ADDR>$`}}, true},
		{"none", Config{Failregex: []string{`^bad <ADDR>$`}}, false},
		{"several lines", Config{Prefregex: `^sshd: <F-CONTENT>.*</F-CONTENT>$`, Failregex: []string{`^bad <ADDR>$`}, MaxLines: 2}, false},
	} {
		f, err := Compile(c.c)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Gate() != nil; got != c.want {
			t.Errorf("%s: %q", c.name, f.Gate())
		}
	}
}

// FuzzLine runs hostile lines through filters of every kind.
func FuzzLine(f *testing.F) {
	var streams []*Follower
	for _, c := range []Config{
		{Name: "plain", Failregex: []string{`^bad <HOST>$`, `user (?:<F-USER>\S*</F-USER>)? from <ADDR>`}, Ignoreregex: []string{`friend`}},
		{Name: "joined", Prefregex: `^c<F-MLFID>\d+</F-MLFID> <F-CONTENT>.+</F-CONTENT>$`, Failregex: []string{`^<F-NOFAIL>connect</F-NOFAIL> <ADDR>$`, `^no <F-USER>.*</F-USER>$`}},
		{Name: "window", MaxLines: 3, Failregex: []string{`^a <ADDR>$<SKIPLINES>^b$`}},
	} {
		compiled, err := Compile(c)
		if err != nil {
			f.Fatal(err)
		}
		s, err := compiled.Follow(dates.Options{Now: func() time.Time { return noon }})
		if err != nil {
			f.Fatal(err)
		}
		streams = append(streams, s)
	}
	f.Add([]byte("2026-11-21 11:59:00 bad 192.0.2.1\nc1 connect 192.0.2.1\nc1 no \xff\na 192.0.2.1\nb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for line := range strings.SplitSeq(string(b), "\n") {
			for _, s := range streams {
				for _, m := range s.Line([]byte(line), time.Time{}, nil) {
					if m.Rule < 0 || m.Rule >= len(s.f.failregex) || m.From > len(m.Text) {
						t.Errorf("%q: %+v", line, m)
					}
				}
			}
		}
	})
}

// A process's number is used again, and one line may stand for many: the lines
// of a connection take nothing of either from another one.
func TestLinesOfAConnectionKeepToTheirOwnAddressAndCount(t *testing.T) {
	f, err := Compile(Config{
		Name: "x", UseDNS: "no", Prefregex: `^ ?<F-MLFID>x\[\d+\]</F-MLFID>: (?:repeated <F-REPEATED>\d+</F-REPEATED> )?<F-CONTENT>.+</F-CONTENT>$`,
		Failregex: []string{`^bad from <ADDR>$`, `^bad$`},
	})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	s := f.NewState(func() time.Time { return now })
	for _, c := range []struct{ line, id, repeated string }{
		{"x[1]: repeated 3 bad from 192.0.2.1", "192.0.2.1", "3"},
		{"x[1]: bad", "192.0.2.1", ""},
		{"x[1]: bad from 2001:db8::2", "2001:db8::2", ""},
		{"x[1]: bad", "2001:db8::2", ""},
		{"x[2]: bad from 192.0.2.3", "192.0.2.3", ""},
	} {
		got := s.Process([]byte(c.line), "", now, nil)
		if len(got) != 1 {
			t.Fatalf("%s: %+v", c.line, got)
		}
		if repeated, _ := got[0].Fields.Get("repeated"); got[0].ID != c.id || repeated != c.repeated {
			t.Errorf("%s: names %s, %q times", c.line, got[0].ID, repeated)
		}
	}
}
