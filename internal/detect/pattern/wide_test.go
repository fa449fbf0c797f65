package pattern

import (
	"slices"
	"strings"
	"testing"
)

// find compiles source and gives the texts of its groups in line, nil for no
// match.
func find(t *testing.T, source, line string) []string {
	t.Helper()
	re, err := Compile(source, Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := []byte(line)
	spans := re.Find(s, IsASCII(s), nil)
	if spans == nil {
		return nil
	}
	out := []string{}
	for i := 0; i < len(spans); i += 2 {
		if spans[i] < 0 {
			out = append(out, "-")
			continue
		}
		out = append(out, line[spans[i]:spans[i+1]])
	}
	return out
}

// TestLinesBeyondASCIIMatchAsInPython holds the answers of Python 3.11's re.
func TestLinesBeyondASCIIMatchAsInPython(t *testing.T) {
	for _, c := range []struct {
		source, line string
		want         []string // the whole match first, nil for none
	}{
		// A letter is a word character, whatever its number.
		{`login of \w+\b refused from (<IP4>)`, "login of usé refused from 192.0.2.1", []string{"login of usé refused from 192.0.2.1", "192.0.2.1", "192.0.2.1"}},
		{`é\B`, "éa", []string{"é"}},
		{`é\B`, "é a", nil},
		{`\bé`, "-é", []string{"é"}},
		{`\b-`, "é-", []string{"-"}},
		{`^(\w+) `, "Jürgen7٣ x", []string{"Jürgen7٣ ", "Jürgen7٣"}},
		{`^(\d+)`, "7٣²", []string{"7٣", "7٣"}},
		{`^(\w+)$`, "a²", []string{"a²", "a²"}},
		{`^a\sb`, "a\u00a0b", []string{"a\u00a0b"}},
		{`^a\Sb`, "a\u00a0b", nil},
		{`^a\Wb`, "a\u2014b", []string{"a\u2014b"}},
		{`^a[^\w]b`, "aéb", nil},
		{`^a[^x]b`, "aéb", []string{"aéb"}},
		{`^a.b`, "a\U0001F600b", []string{"a\U0001F600b"}},
		// Every byte that is no UTF-8 is one character, and no letter.
		{`^a(.*)b$`, "a\xff\xc3\xe2\x82b", []string{"a\xff\xc3\xe2\x82b", "\xff\xc3\xe2\x82"}},
		{`^a.{2}b$`, "a\xff\xfeb", []string{"a\xff\xfeb"}},
		{`^a\w`, "a\xff", nil},
		{`^user (\S+) from <ADDR>$`, "user \xc3\x28\xa0\xa1 from 192.0.2.1", []string{"user \xc3\x28\xa0\xa1 from 192.0.2.1", "\xc3\x28\xa0\xa1", "192.0.2.1", "-"}},
		{`^user (.+?) from <ADDR>$`, "user \xed\xa0\x80\xf4\x90\x80\x80 from 192.0.2.1", []string{"user \xed\xa0\x80\xf4\x90\x80\x80 from 192.0.2.1", "\xed\xa0\x80\xf4\x90\x80\x80", "192.0.2.1", "-"}},
		{"^x\x00y", "x\x00yé", []string{"x\x00y"}},
		// Characters that the expression itself names.
		{`^échec (\d)`, "échec 1", []string{"échec 1", "1"}},
		{`^échec (\d)`, "êchec 1", nil},
		{`^[а-я]+$`, "привет", []string{"привет"}},
		{`^[а-я]+$`, "приBет", nil},
		{`^[^а-я]+`, "ab\u00a0é", []string{"ab\u00a0é"}},
		{`(?i)^ÉCHEC`, "échec", []string{"échec"}},
		{`(?i)^[é-ï]x`, "ÎX", []string{"ÎX"}},
		// Letters that fold to one of ASCII.
		{`(?i)^kiss$`, "\u212aı\u017f\u017f", []string{"\u212aı\u017f\u017f"}},
		{`(?i)^İx`, "ix", []string{"ix"}},
		{`^kiss$`, "\u212aiss", nil},
		{`x\b`, "x\u0130 x\u0131 x\u017f x\u212a", nil},
		{`(?i)^[a-k]$`, "\u212a", []string{"\u212a"}},
		{`(?i)^[^a-k]$`, "\u212a", nil},
		// References and looks count characters.
		{`^(\S+) \1$`, "é\u2014 é\u2014", []string{"é\u2014 é\u2014", "é\u2014"}},
		{`^(\S+) \1$`, "é ê", nil},
		{`(?i)^(\S+) \1$`, "é É", []string{"é É", "é"}},
		{`(?<=é)x`, "ax éx", []string{"x"}},
		{`(?<!\w)x`, "éx", nil},
		{`^(?:(?!é).)*é`, "abé", []string{"abé"}},
	} {
		if got := find(t, c.source, c.line); !slices.Equal(got, c.want) {
			t.Errorf("%q on %q: %q, want %q", c.source, c.line, got, c.want)
		}
	}
}

// wide are hostile and foreign texts that are spliced into lines.
var wide = []string{
	"é", "\xff", "\xc3", "\xe2\x82", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\u00a0", "\u0085", "\u2028", "\u3000", "\u200d",
	"\u0301", "٣", "²", "ß", "ſ", "\u212a", "İ", "ı", "\ufffd", "\ufeff", "\U0001F600", "\U0010ffff", "漢字",
}

func TestBothEnginesAgreeOnLinesBeyondASCII(t *testing.T) {
	all := map[string][]string{}
	for _, known := range []map[string][]string{hard, paths} {
		for source, lines := range known {
			all[source] = lines
		}
	}
	all[`^login of \w+\b refused from <HOST>$`] = []string{"login of x refused from 192.0.2.1"}
	all[`^(?P<u>\S*)\s(?P<w>[^\s\d]+)\b\W?<ADDR>`] = []string{"a b 192.0.2.1", "a b_192.0.2.1"}
	all[`\B<ADDR>\B|\b(?P<x>[\W\d]+)\B`] = []string{"a192.0.2.1x", "--12"}
	all[`^x(?P<d>\D+)(?P<e>[^é-ï]?)$`] = []string{"xa", "x"}
	for source, lines := range all {
		re, err := Compile(source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			for _, piece := range wide {
				for at := 0; at <= len(line); at++ {
					sameEverywhere(t, re, []byte(line[:at]+piece+line[at:]+"\n"))
				}
			}
		}
	}
}

// TestALineThatTheMachineGivesUpIsMatchedAllTheSame names lines that take the
// machine more steps than it has.
func TestALineThatTheMachineGivesUpIsMatchedAllTheSame(t *testing.T) {
	// The parts before the address can be cut in very many ways.
	const source = `^(?:a|b|ab)*(?:a|ab|b)*(?:b|a)*c from <ADDR>$`
	line := strings.Repeat("ab", 40) + "c from 192.0.2.1"
	for _, c := range []struct {
		name, line string
		found      bool
	}{
		{"found", strings.Repeat("c from 192.0.2.x ", 30) + line, false},
		{"ASCII", line, true},
		{"foreign", line + "\u00a0", false},
	} {
		re, err := Compile(source, Options{})
		if err != nil {
			t.Fatal(err)
		}
		s := []byte(c.line + "\n")
		if got := re.Find(s, IsASCII(s), nil); (got != nil) != c.found {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	re, err := Compile(`^(?:\w+ ?)*\w\w\w from <ADDR>$`, Options{})
	if err != nil {
		t.Fatal(err)
	}
	given := re.Stats().Backtracked
	words := strings.Repeat("ab cd é ", 12) + "x from y from 192.0.2.1\n"
	re.Find([]byte(words), false, nil)
	if re.Stats().Backtracked == given {
		t.Errorf("%q: the machine gave nothing up, so this test shows nothing", words)
	}
}
