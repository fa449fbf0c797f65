package cli

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestATableFitsTheTerminal(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"a pipe", 0, "NAME   BANS  WHY                          NODE\nalice  3     she said so and so and much  qwertyuiop\nbob    1234\n"},
		{"wide enough", 52, "NAME   BANS  WHY                          NODE\nalice  3     she said so and so and much  qwertyuiop\nbob    1234\n"},
		{"cut", 45, "NAME   BANS  WHY                   NODE\nalice  3     she said so and so …  qwertyuiop\nbob    1234\n"},
		{"left out", 26, "NAME   BANS  WHY\nalice  3     she said so …\nbob    1234\n(with --wide: NODE)\n"},
		{"nearly nothing", 3, "NAME\nalice\nbob\n(with --wide: BANS, WHY, NODE)\n"},
	} {
		var b strings.Builder
		table := NewTable(Narrow(&b, c.width), "NAME", "BANS", "WHY", "NODE")
		table.Cut("WHY")
		table.Row("alice", "3", "she said so and so and much", "qwertyuiop")
		table.Row("bob", "1234", "", "")
		if err := table.Flush(); err != nil {
			t.Fatal(err)
		}
		if b.String() != c.want {
			t.Errorf("%s:\n%swant\n%s", c.name, b.String(), c.want)
		}
	}
}

func TestNoLineOfATableIsLongerThanTheTerminal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		screen := rapid.IntRange(30, 120).Draw(t, "screen")
		heading := []string{"ONE"}
		for i := range rapid.IntRange(0, 8).Draw(t, "columns") {
			heading = append(heading, fmt.Sprintf("COLUMN%d", i))
		}
		var b strings.Builder
		table := NewTable(Narrow(&b, screen), heading...)
		if len(heading) > 3 {
			table.Cut(heading[2], heading[1])
		}
		for range rapid.IntRange(0, 4).Draw(t, "rows") {
			row := []string{rapid.StringN(0, 20, -1).Draw(t, "first")}
			for range heading[1:] {
				row = append(row, rapid.String().Draw(t, "cell"))
			}
			table.Row(row...)
		}
		if err := table.Flush(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSuffix(line, "\n")
			if !strings.HasPrefix(line, "(with --wide: ") && utf8.RuneCountInString(line) > screen {
				t.Fatalf("%d columns of %d: %q", utf8.RuneCountInString(line), screen, line)
			}
		}
	})
}

func TestTextIsBrokenBetweenWords(t *testing.T) {
	w := Narrow(&strings.Builder{}, 20)
	if got := Wrap(w, 6, "      ", "a fault of many words, and a-very-long-command-of-one-word"); got != "a fault of\n      many words,\n      and\n      a-very-long-command-of-one-word" {
		t.Errorf("%q", got)
	}
	if got := Wrap(&strings.Builder{}, 6, "  ", "a  fault"); got != "a  fault" {
		t.Errorf("a pipe: %q", got)
	}
}

// Colours reach a terminal alone, and no text from outside can make any.
func TestOnlyOurOwnTextIsPainted(t *testing.T) {
	var b strings.Builder
	screen := newTerminal(&b, 80, true)
	fmt.Fprintf(screen, "%s \x1b[31mx\x1b[0m \x00%sr\n", Paint(screen, Bad, "WRONG"), strings.Repeat("0", 16))
	if want := "\x1b[31mWRONG\x1b[0m ?[31mx?[0m ?0000000000000000r\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	b.Reset()
	table := NewTable(screen, "A", "B")
	table.Row("down", "x")
	table.Paint(0, Bad)
	if err := table.Flush(); err != nil || b.String() != "A     B\n\x1b[31mdown\x1b[0m  x\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	b.Reset()
	if err := JSON(screen, map[string]string{"state": "WRONG"}); err != nil || strings.Contains(b.String(), "\x1b") {
		t.Errorf("JSON on a terminal: %q, %v", b.String(), err)
	}
	for name, w := range map[string]interface{ Write([]byte) (int, error) }{"a pipe": &b, "NO_COLOR": newTerminal(&b, 80, false)} {
		if got := Paint(w, Bad, "WRONG"); got != "WRONG" {
			t.Errorf("%s: %q", name, got)
		}
	}
}
