package pattern

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The two ways to search a line find the same.
func TestSkippingFindsAsTheAutomatonDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune("abcdAB [")), 4, 12, -1)
		lower := rapid.Map(text, strings.ToLower)
		var groups []Group
		for range rapid.IntRange(1, 70).Draw(t, "groups") {
			g := Group{Gate: rapid.SliceOfN(lower, 0, 2).Draw(t, "gate")}
			for range rapid.IntRange(1, 3).Draw(t, "expressions") {
				g.Literals = append(g.Literals, rapid.SliceOfN(lower, 1, 3).Draw(t, "literals"))
			}
			groups = append(groups, g)
		}
		s := NewScanner(groups)
		automaton := NewScanner(groups)
		automaton.skip = nil
		got, want := s.NewHits(), automaton.NewHits()
		for range 3 {
			line := []byte(strings.Join(rapid.SliceOfN(rapid.OneOf(text, rapid.String(), rapid.Map(lower, strings.ToUpper)), 0, 12).Draw(t, "line"), ""))
			if rapid.Bool().Draw(t, "of a text") {
				line = append(line, groups[0].Literals[0][0]...)
			}
			if a, b := s.Scan(line, got), automaton.Scan(line, want); a != b || !slices.Equal(got.words, want.words) || !slices.Equal(got.found, want.found) {
				t.Fatalf("%q: %v %b, by the automaton %v %b", line, a, got.words, b, want.words)
			}
			for i := range groups {
				if len(got.Found()) > 0 && got.Found()[i/wordBits]&(1<<(i%wordBits)) != 0 && got.Open(i) != want.Open(i) {
					t.Fatalf("%q: the gate of group %d is open: %v, by the automaton %v", line, i, got.Open(i), want.Open(i))
				}
			}
		}
	})
}

// A line made of the beginnings of texts is given to the automaton, whose cost is the line's length.
func TestALineMadeToCostComparisonsGoesToTheAutomaton(t *testing.T) {
	var texts []string
	for c := 'b'; c < 'j'; c++ {
		texts = append(texts, strings.Repeat("a", 20)+string(c)+"a")
	}
	s := NewScanner([]Group{{Literals: [][]string{texts}}})
	if s.skip == nil {
		t.Fatal("it is not searched for by skipping")
	}
	line, hits := []byte(strings.Repeat("a", 1<<12)), s.NewHits()
	if s.skip.scan(line, hits) {
		t.Error("the search went on")
	}
	if s.Scan(line, hits) {
		t.Error("something was found")
	}
	if !s.Scan([]byte(string(line)+"ba"), hits) {
		t.Error("a text at the end was not found")
	}
}
