package pattern

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestDeadEndsChangeNoMatch compares searches that remember dead ends with the
// backtracking engine, on rows long enough that they do, with all that a match may
// depend on beside its place.
func TestDeadEndsChangeNoMatch(t *testing.T) {
	t.Parallel()
	pieces := []string{
		"a*", "a+", "a+?", ".*", ".+?", ".*?", "[ab]*", "[ab]+?", "[^x]*", `\s*`, `\s+`, "(a)?", "(b)?", `(?(1)b|a)`, `(?:(?!ab).)*`, `(?:(?!x).)*?`,
		`(?:ab)*`, `(?:a+b*)*`, `(?:a|b )*?`, "(?=.*b)", "(?!.*x)", "(?!.*(?:ax| b))", "(?>a*)", "(?>.*?b)", `(.*)`, "a{2,}", "a", "b", "x", " ", "ab", "$", `\b`,
	}
	rapid.Check(t, func(t *rapid.T) {
		var b strings.Builder
		if rapid.Bool().Draw(t, "anchored") {
			b.WriteString("^")
		}
		b.WriteString(rapid.SampledFrom([]string{"", "(a)?", "(b+)"}).Draw(t, "first"))
		for range rapid.IntRange(1, 6).Draw(t, "pieces") {
			b.WriteString(rapid.SampledFrom(pieces).Draw(t, "piece"))
		}
		if rapid.Bool().Draw(t, "tail") {
			b.WriteString(rapid.SampledFrom([]string{`(.+?)\s*$`, `.*?(?(1)b)\s*$`, `(.+?)(?:x|ab)?\s*$`, `.+?b*$`}).Draw(t, "last"))
		}
		source := strings.ReplaceAll(b.String(), "(?(1)", "(?(1)")
		re, err := CompilePlain(source)
		if err != nil {
			t.Skip(err)
		}
		var line []byte
		for range rapid.IntRange(1, 4).Draw(t, "rows") {
			line = append(line, strings.Repeat(rapid.SampledFrom([]string{"a", " ", "ab", "b ", "aa b", "x", "é"}).Draw(t, "row"), rapid.IntRange(1, 60).Draw(t, "length")*rapid.SampledFrom([]int{1, 1, 1, 8}).Draw(t, "times"))...)
		}
		line = append(line, rapid.SampledFrom([]string{"", "\n", "x", "b"}).Draw(t, "end")...)
		exact := re.backtrack(line, nil)
		m := re.machineFor(IsASCII(line))
		if m == nil || re.stats.timeouts.Load() > 0 {
			return
		}
		got, how, _ := m.find(line, nil)
		if how != outcomeGaveUp && (how == outcomeFound) != (exact != nil) || how == outcomeFound && !slices.Equal(got, exact) {
			t.Fatalf("%q on %q: the machine says %v (%v), want %v", source, line, got, how, exact)
		}
	})
}
