package topics_test

import (
	"fmt"
	"strings"
	"testing"

	"banmesh/topics"
)

// definition writes a definition with expressions of a length, and more of them by
// the number.
func definition(count, length int) []byte {
	var b strings.Builder
	b.WriteString("name = \"games\"\ntarget = \"ip\"\n[detect]\nfiles = [\"/var/log/games.log\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = [\n")
	for i := range count - 1 {
		fmt.Fprintf(&b, "'^no %d from <ADDR>$',\n", i)
	}
	fmt.Fprintf(&b, "'^%s<ADDR>$',\n]\n", strings.Repeat("x", length-len("^<ADDR>$")))
	return []byte(b.String())
}

func TestADefinitionsCostIsBounded(t *testing.T) {
	t.Parallel()
	const most, longest = 2000, 16 << 10
	for _, c := range []struct {
		count, length int
		fault         string
	}{
		{most, 100, ""},
		{most + 1, 100, "2001 expressions are more than 2000"},
		{1, longest, ""},
		{1, longest + 1, "an expression of 16385 bytes is longer than 16384"},
	} {
		_, err := topics.Parse("games.toml", definition(c.count, c.length))
		switch {
		case c.fault == "" && err != nil:
			t.Errorf("%d expressions of up to %d bytes: %v", c.count, c.length, err)
		case c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault)):
			t.Errorf("%d expressions of up to %d bytes: %v, want %q", c.count, c.length, err, c.fault)
		}
	}
}
