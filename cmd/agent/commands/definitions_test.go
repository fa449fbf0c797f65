package commands

import (
	"slices"
	"strings"
	"testing"
)

func TestTheLinesThatTwoTextsDifferIn(t *testing.T) {
	for _, c := range []struct{ old, now, want string }{
		{"a\nb\nc\n", "a\nb\nc\n", ""},
		{"a\nb\nc\n", "a\nx\nc\n", "-b +x"},
		{"", "a\n", "+a"},
		{"a\nb\n", "b\nc\n", "-a +c"},
		{"a\na\nb\n", "a\nb\nb\n", "-a +b"},
	} {
		if got := difference(c.old, c.now); !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q to %q: %q, want %s", c.old, c.now, got, c.want)
		}
	}
	long := strings.Repeat("x\n", 3*maxCompared)
	if got := difference(long, long); len(got) != 0 {
		t.Errorf("equal long texts differ in %d lines", len(got))
	}
}
