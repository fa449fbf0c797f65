package guides

import (
	"slices"
	"testing"
)

func TestAGuideIsRead(t *testing.T) {
	g, err := parse("# Title\n<!-- hosts: one two -->\n<!-- run two: first\nsecond -->\n```console\n# agent bans\nTARGET  TOPIC\n\nend\ntwo$ agent status\n```\n" +
		"<!-- beside -->\n```console\n# waits\n```\n" +
		"<!-- not run: no such thing here -->\n```sh\nnever\n```\n```toml\n# two:/etc/banmesh/agent.toml\na = 1\n```\n```\nfree text\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.hosts, []string{"one", "two"}) || len(g.steps) != 5 || !slices.Equal(g.skipped, []string{"no such thing here"}) {
		t.Fatalf("%+v", g)
	}
	if s := g.steps[0]; s.host != "two" || s.script != "first\nsecond" || !s.hidden {
		t.Errorf("the hidden step is %+v", s)
	}
	if s := g.steps[1]; s.host != "" || s.script != "agent bans" || !slices.Equal(s.wanted, []string{"TARGET  TOPIC", "", "end"}) || s.first != 6 || s.last != 9 {
		t.Errorf("the first command is %+v", s)
	}
	if s := g.steps[2]; s.host != "two" || s.wanted != nil {
		t.Errorf("the second command is %+v", s)
	}
	if s := g.steps[3]; s.script != "waits" || !s.beside || g.steps[2].beside {
		t.Errorf("the command that waits is %+v", s)
	}
	if s := g.steps[4]; s.beside || s.host != "two" || s.script != "mkdir -p $(dirname /etc/banmesh/agent.toml) && cat >>/etc/banmesh/agent.toml <<'END OF FILE'\na = 1\nEND OF FILE" {
		t.Errorf("the file is %+v", s)
	}
	for _, broken := range []string{"```sh\nno end", "<!-- run: no end\n"} {
		if _, err := parse(broken); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

func TestAnswersAreComparedWithoutTimesAndKeys(t *testing.T) {
	for _, c := range []struct {
		wanted []string
		answer string
		same   bool
	}{
		{[]string{"banned until 2026-11-24 12:04:00 UTC, for 3 d more"}, "banned until 2027-01-01 00:00:00 UTC, for 12 h more\n", true},
		{[]string{"banned"}, "not banned\n", false},
		{[]string{"a   b"}, "a      b\n", true},
		{[]string{"a", "...", "z"}, "a\nb\nc\nz\n", true},
		{[]string{"a", "...", "z"}, "a\nz\n", true},
		{[]string{"a", "..."}, "b\n", false},
		{[]string{"a"}, "a\nb\n", false},
		{[]string{"key: XcGQ_jdUyugj1Yi8MFoK7NafsxLqGg3tAxEm90oAbS8"}, "key: -dj3JYYKfe5HpwVYsx01n5KgmJlscmkf3SAfQkklf0-\n", true},
		{[]string{"alice is 6otxxr3xmzvq3wmhdzurq6ssnm"}, "alice is 5od6ops6rb2kbwpopbvcb2ox74\n", true},
	} {
		if got := same(c.wanted, c.answer); got != c.same {
			t.Errorf("same(%q, %q) = %v", c.wanted, c.answer, got)
		}
	}
}
