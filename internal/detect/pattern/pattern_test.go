package pattern

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/dlclark/regexp2/v2.runClock"))
}

func TestTagsStandForWhatTheManualSays(t *testing.T) {
	for _, c := range []struct{ source, line, group, want string }{
		{`from <HOST>$`, "from ::ffff:192.0.2.1", "ip4", "192.0.2.1"},
		{`from <HOST>$`, "from [2001:db8::1]", "ip6", "2001:db8::1"},
		{`from <HOST>$`, "from mail.example.org", "dns", "mail.example.org"},
		{`^<F-ID>\w+</F-ID>:`, "abc: x", "fid", "abc"},
		{`^<F-ID/> x`, "a-b x", "fid", "a-b"},
		{`port <F-PORT/>`, "port smtp", "fport", "smtp"},
		{`<SUBNET>`, "2001:db8::/32", "cidr", "32"},
		{`user <F-USER>.*?</F-USER> from <ADDR>`, "user a from b from 192.0.2.1", "user", "a from b"},
		{`<F-ALT_USER_1>x</F-ALT_USER_1> <ADDR>`, "x 192.0.2.1", "alt_user_1", "x"},
	} {
		re, err := Compile(c.source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		spans := re.Find([]byte(c.line+"\n"), true, nil)
		if g := re.Group(c.group); spans == nil || g < 0 || spans[2*g] < 0 || c.line[spans[2*g]:spans[2*g+1]] != c.want {
			t.Errorf("%s on %q: %v", c.source, c.line, spans)
		}
	}
	for _, text := range []string{"<HOST", "<host>", "a<b>c", "</F-USER>", "<F-user>", "x < y > z", "<F->"} {
		if got := Expand(text, false); got != text {
			t.Errorf("Expand(%q) = %q", text, got)
		}
	}
	if strings.Contains(Expand("<HOST>", true), "dns") {
		t.Error("<HOST> takes names with usedns = no")
	}
}

func TestBadExpressionsAreRefused(t *testing.T) {
	for _, s := range []string{"(", ")", "[", "a**", "*a", "(?P<1>x)", "(?P=x)", `\`, `(?P<a>x)(?P<a>y)`, "(?z)", "x{3,2}", "(?(9)a|b)", "", "  ", strings.Repeat("(", 300), `\q`, "[z-a]"} {
		if _, err := Compile(s, Options{}); err == nil {
			t.Errorf("Compile(%.30q) took it", s)
		}
	}
}

// hard are expressions that only look-around, references or conditionals can
// say, each with lines.
var hard = map[string][]string{
	`^(?!bad)\w+ <ADDR>$`:                               {"good 192.0.2.1", "bad 192.0.2.1", "badly 192.0.2.1"},
	`^(?P<q>["'])?x(?(q)(?P=q)|y) <ADDR>`:               {`"x" 192.0.2.1`, `xy 192.0.2.1`, `"xy 192.0.2.1`, `'x" 192.0.2.1`},
	`for (?:(?! from ).)* from <ADDR>`:                  {"for a from 192.0.2.1", "for a from b from 192.0.2.1", "for  from 192.0.2.1"},
	`^(\w+) \1 <ADDR>`:                                  {"a a 192.0.2.1", "a b 192.0.2.1", "ab a 192.0.2.1"},
	`^(?P<i>invalid )?user (?(i)\S+|[^:]+) from <ADDR>`: {"invalid user x from 192.0.2.1", "user a b from 192.0.2.1", "invalid user a b from 192.0.2.1"},
	`(?<=x: )<ADDR>`:                                    {"x: 192.0.2.1", "y: 192.0.2.1"},
	`^(?>a+)b <ADDR>`:                                   {"aab 192.0.2.1", "aac 192.0.2.1"},
	`^(?(2)a|b)(x)?(y)? <ADDR>`:                         {"b 192.0.2.1", "a 192.0.2.1", "bxy 192.0.2.1"},
	`^(?:a|ab)(?=b)b? <ADDR>`:                           {"ab 192.0.2.1", "abb 192.0.2.1"},
}

// paths are expressions with more than one way to match, each with lines.
var paths = map[string][]string{
	`(?P<a>a+)(?P<b>a*)b? <ADDR>`:                                                 {"xaaab 192.0.2.1", "a 192.0.2.1", "b 192.0.2.1"},
	`^(?P<u>.*?) from (?P<w>.* )?<ADDR>`:                                          {"a from b from 192.0.2.1", "from from 192.0.2.1 from 192.0.2.2"},
	`^(?:(?P<k>\w+)=(?P<v>\S*) ?)+<ADDR>$`:                                        {"a=1 b= c=3 192.0.2.1", "a=1 b 192.0.2.1"},
	`^(?:(?P<x>x)|(?P<y>y)|z)*?z?<ADDR>`:                                          {"xyz192.0.2.1", "zzx192.0.2.1", "192.0.2.1"},
	`(?:one|two|three|four|five|six|seven|eight|nine|ten|t(?P<n>w|e)nty)+ <ADDR>`: {"oneten 192.0.2.1", "tweentyninetwnty 192.0.2.1", "eleven 192.0.2.1"},
	`^(?P<p>ab|a)(?P<q>bc|c){1,3}(?P<r>\d{2,4}?)(?P<s>\d*) <ADDR>`:                {"abc123 192.0.2.1", "abcbc12345 192.0.2.1", "abcbcc1 192.0.2.1"},
	`^((?:(?! at ).)*) at (?:(?!x)[^y])*?<ADDR>`:                                  {"a b at 192.0.2.1", "a at b at 192.0.2.1", "a at x 192.0.2.1"},
	`(?i)^(?P<f>FAILED|fail)(?:ed)? (?P<g>[a-f]+)? ?<ADDR>\s*$`:                   {"failed abc 192.0.2.1 ", "Faileded 192.0.2.1"},
	`^(?P<m>(?:a?){3}(?:b|c)*)(?P<o>c)? <HOST>$`:                                  {"aabcc 192.0.2.1", "c example.org", "aaaa 192.0.2.1"},
	`x(?:ab)+c <ADDR>`: {"xababc 192.0.2.1", "xabc 192.0.2.1", "xc 192.0.2.1"},
	`(?P<d>\d+)(?:\.(?P<e>\d+))*(?:,|;|\s)+<ADDR>`: {"1.2.3,; 192.0.2.1", "x 1, 192.0.2.1", "1. 192.0.2.1"},
}

func TestBothEnginesGiveTheSameAnswer(t *testing.T) {
	all := maps.Clone(hard)
	maps.Copy(all, paths)
	for source, lines := range all {
		re, err := Compile(source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			sameEverywhere(t, re, []byte(line+"\n"))
		}
	}
}

// sameEverywhere compares the machine with the backtracking engine.
func sameEverywhere(t *testing.T, re *Regex, line []byte) {
	t.Helper()
	exact := re.backtrack(line, nil)
	if re.stats.timeouts.Load() > 0 {
		return
	}
	if m := re.machineFor(IsASCII(line)); m != nil {
		got, how, _ := m.find(line, nil)
		if how != outcomeGaveUp && (how == outcomeFound) != (exact != nil) || how == outcomeFound && !slices.Equal(got, exact) {
			t.Errorf("%q on %q: the machine says %v (%v), want %v", re.source, line, got, how, exact)
		}
	}
	if exact != nil && len(re.Literals()) > 0 {
		folded := lower(string(line))
		if !slices.ContainsFunc(re.Literals(), func(l string) bool { return strings.Contains(folded, l) }) {
			t.Errorf("%q on %q: none of the required %q is there", re.source, line, re.Literals())
		}
	}
}

func TestRequiredTextsAreAsLongAsCanBeSaid(t *testing.T) {
	for source, want := range map[string][]string{
		`\S+failed <ADDR>`:   {"failed"},
		`(?:ab)+c`:           {"ab"},
		`(?i)Failed`:         {"failed"},
		`(?:one|two) \d+`:    {"one", "two"},
		`[xy]z\w`:            {"xz", "yz"},
		`\w+`:                nil,
		`(?:a|\d)b?`:         nil,
		`user (?:\S+ )?from`: {"user"},
	} {
		re, err := CompilePlain(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := re.Literals(); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", source, got, want)
		}
	}
}

func TestARepetitionOfNothingEnds(t *testing.T) {
	re, err := CompilePlain(`^(?:a*|(?:b?)+)*c$`)
	if err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]bool{"aabc\n": true, "c\n": true, "d\n": false} {
		if got := re.Find([]byte(line), true, nil) != nil; got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
	if s := re.Stats(); s.Backtracked > 0 {
		t.Errorf("the machine gave up: %+v", s)
	}
}

func TestTheScannerFindsEveryExpressionWhoseLiteralIsThere(t *testing.T) {
	s := NewScanner([]Group{
		{Literals: [][]string{{"failed", "invalid user"}, nil, {"user"}, {"led pass"}}},
		{Literals: [][]string{{"x"}, {"pass"}}, Gate: []string{"word", "y"}},
	})
	got := s.NewHits()
	for _, c := range []struct {
		line          string
		first, second uint64
		open          bool
	}{
		{"", 2, 0, false},
		{"FAILED password", 2 | 1 | 8, 2, true},
		{"Invalid User x", 2 | 1 | 4, 1, false},
		{"faile", 2, 0, false},
		{"XY", 2, 1, true},
	} {
		s.Scan([]byte(c.line), got)
		if a, b := got.Candidates(0)[0], got.Candidates(1)[0]; a != c.first || b != c.second || got.Open(1) != c.open || !got.Open(0) {
			t.Errorf("%q: %b, %b, open %t; want %b, %b, %t", c.line, a, b, got.Open(1), c.first, c.second, c.open)
		}
	}
}

func TestABacktrackingExpressionIsStopped(t *testing.T) {
	re, err := Compile(`^(?:\w+ ?)*(\w)\1x <ADDR>$`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	line := []byte(strings.Repeat("a", 60) + "y 192.0.2.1x 192.0.2.1!\n")
	line = append([]byte(strings.Repeat("ab ", 40)), line...)
	for range 3 {
		re.Find(line, true, nil)
	}
	if s := re.Stats(); s.Timeouts == 0 || s.Timeouts+s.Skipped != 3 {
		t.Errorf("of three lines that never end: %+v", s)
	}
	// Three lines that run into the limit used to blind the expression.
	if re.Find([]byte("ab aax 192.0.2.1\n"), true, nil) == nil {
		t.Error("the honest line after them was not found")
	}
}

func TestAnAllowanceIsATenthOfTheTime(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	var a allowance
	runs := 0
	for range 1000 {
		if !a.left(now) {
			break
		}
		a.spend(now, MatchTimeout)
		runs++
	}
	if want := int(allowanceSaved / MatchTimeout); runs != want {
		t.Errorf("%d runs at one moment, want %d", runs, want)
	}
	for range 60 {
		now = now.Add(time.Second)
		for a.left(now) {
			a.spend(now, MatchTimeout)
			runs++
		}
	}
	if want := int((allowanceSaved + 60*time.Second/allowanceShare) / MatchTimeout); runs < want-1 || runs > want+1 {
		t.Errorf("%d runs in a minute of hostile lines, want %d", runs, want)
	}
	a = allowance{}
	for range 100_000 {
		a.spend(now, unnoticed)
	}
	if !a.left(now) || a.spentUntil.Load() != 0 {
		t.Error("honest lines cost something")
	}
}

func TestUnicodeLinesUseUnicodesClasses(t *testing.T) {
	re, err := Compile(`^user (\w+)\s(\S+) <ADDR>$`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if re.Find([]byte("user Jürgen\u00a0ß 192.0.2.1\n"), false, nil) == nil {
		t.Error("no match")
	}
}

// FuzzEngines holds the machine against the backtracking engine on lines and on
// expressions that a fuzzer makes up.
func FuzzEngines(f *testing.F) {
	for _, known := range []map[string][]string{hard, paths} {
		for source, lines := range known {
			f.Add(source, lines[0])
			f.Add(source, "\u00e9"+lines[0]+"\xff")
		}
	}
	f.Add(`^(?:a|b)*?c{2,3}[^x-z]\b$`, "abccq")
	f.Add(`^\W+é?[^\s\d]$`, "\u2014\u0301é")
	f.Fuzz(func(t *testing.T, source, line string) {
		if len(source) > 60 || len(line) > 60 || strings.ContainsAny(line, "\n") {
			return
		}
		if strings.Contains(source, "(?i") && !IsASCII([]byte(source+line)) {
			return // the engines know different cases beyond ASCII
		}
		re, err := Compile(source, Options{})
		if err != nil {
			return
		}
		if _, err := re.exact(); err != nil {
			return
		}
		sameEverywhere(t, re, []byte(line+"\n"))
	})
}
