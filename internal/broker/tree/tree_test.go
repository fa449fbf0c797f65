package tree

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// matches is MQTT's rule, written for reading.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t):
			return false
		case level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func TestTheTreeAgreesWithTheRule(t *testing.T) {
	level := rapid.SampledFrom([]string{"a", "b", "", "+", "$x"})
	rapid.Check(t, func(t *rapid.T) {
		key := func(name string, wild bool) string {
			levels := rapid.SliceOfN(level, 1, 4).Draw(t, name)
			if !wild {
				for i, l := range levels {
					if l == "+" {
						levels[i] = "c"
					}
				}
			} else if rapid.Bool().Draw(t, name+" ends in #") {
				levels = append(levels[:len(levels)-1], "#")
			}
			return strings.Join(levels, "/")
		}
		var filters, topics Tree[string]
		var allFilters, allTopics []string
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			f, p := key("filter", true), key("topic", false)
			filters.Set(f, f)
			topics.Set(p, p)
			allFilters, allTopics = append(allFilters, f), append(allTopics, p)
			if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
				filters.Delete(f)
				topics.Delete(p)
				allFilters = slices.DeleteFunc(allFilters, func(s string) bool { return s == f })
				allTopics = slices.DeleteFunc(allTopics, func(s string) bool { return s == p })
			}
		}
		sorted := func(s []string, keep func(string) bool) []string {
			out := slices.DeleteFunc(slices.Clone(s), func(x string) bool { return !keep(x) })
			slices.Sort(out)
			return slices.Compact(out)
		}
		topic, filter := key("one topic", false), key("one filter", true)
		var got []string
		filters.Matching(topic, func(f string) { got = append(got, f) })
		slices.Sort(got)
		if want := sorted(allFilters, func(f string) bool { return matches(f, topic) }); !slices.Equal(got, want) {
			t.Fatalf("filters that match %q: %q, want %q", topic, got, want)
		}
		got = nil
		topics.Matched(filter, func(p string) { got = append(got, p) })
		slices.Sort(got)
		if want := sorted(allTopics, func(p string) bool { return matches(filter, p) }); !slices.Equal(got, want) {
			t.Fatalf("topics that %q matches: %q, want %q", filter, got, want)
		}
		if want := sorted(allTopics, func(string) bool { return true }); topics.Len() != len(want) {
			t.Fatalf("Len is %d, want %d", topics.Len(), len(want))
		}
	})
}

func TestNothingIsLeftOfWhatWasDeleted(t *testing.T) {
	var x Tree[int]
	x.Set("a/b/c", 1)
	x.Set("a/b", 2)
	x.Delete("a/b/c")
	x.Delete("nothing/here")
	if got := x.Levels(); got != 2 {
		t.Errorf("%d levels are left of a/b", got)
	}
	if v, ok := x.Get("a/b"); !ok || v != 2 || x.Len() != 1 {
		t.Error("the wrong one was deleted")
	}
	x.Delete("a/b")
	if x.Len() != 0 || len(x.root.children) != 0 {
		t.Errorf("%d values and %d levels are left", x.Len(), len(x.root.children))
	}
}
