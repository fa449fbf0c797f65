package commands

import (
	"errors"
	"strings"
	"testing"

	"banmesh/internal/cli"
)

func TestAQuestionIsYesOnlyFromAPerson(t *testing.T) {
	for _, c := range []struct {
		in       string
		terminal bool
		yes      bool
	}{
		{"y\n", true, true},
		{"YES\n", true, true},
		{"y", true, true},
		{"n\n", true, false},
		{"\n", true, false},
		{"", true, false},
		{"yesterday\n", true, false},
		{"y\n", false, false},
	} {
		var out strings.Builder
		err := answer(&out, strings.NewReader(c.in), c.terminal, "this lifts 9 bans")
		if (err == nil) != c.yes {
			t.Errorf("%q on a terminal %t: %v", c.in, c.terminal, err)
		}
		if asked := strings.Contains(out.String(), "this lifts 9 bans. Go on?"); asked != c.terminal {
			t.Errorf("%q: printed %q", c.in, out.String())
		}
		if e, ok := errors.AsType[*cli.Error](err); err != nil && (!ok || e.Code != 3 || !strings.Contains(err.Error(), "this lifts 9 bans")) {
			t.Errorf("%q: %v", c.in, err)
		}
	}
}
