package policy

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/span"
)

func TestFaultsAreToldAtOnceWithPlaceAndHint(t *testing.T) {
	s := source(TopicSource{Ban: "2 of cor within 6h", Watch: "anyy of core", Require: "hits > 3", Dispute: "any of core within soon", Prefix: []string{"v4/99"}}, "alice")
	s.Groups["core"] = []string{"alice", "follow bob"}
	s.Groups["any"] = []string{"alice"}
	s.Operators["carol"] = OperatorSource{ID: "nonsense"}
	_, err := Compile(s, nil)
	want := "operators.carol.id: \"nonsense\": not an identity: want 26 characters\n" +
		"  hint: `agent peers add` writes it; an operator's identity has 26 characters, shown by `agent key show`\n" +
		"groups.any: \"any\" cannot be a name: it is a word of the rules\n" +
		"groups.core[1]:8: no operator is called \"bob\"\n" +
		"  follow bob\n" +
		"         ^^^\n" +
		"  hint: write `NAME` or `follow NAME depth 1 most 25`\n" +
		"topics.sshd.ban:6: no group or operator is called \"cor\"\n" +
		"  2 of cor within 6h\n" +
		"       ^^^\n" +
		"  hint: did you mean \"core\"?\n" +
		"topics.sshd.watch:1: expected `any`, a number, `weight` or `(`, got \"anyy\"\n" +
		"  anyy of core\n" +
		"  ^^^^\n" +
		"  hint: did you mean \"any\"?\n" +
		"topics.sshd.dispute:20: expected a length of time, got \"soon\"\n" +
		"  any of core within soon\n" +
		"                     ^^^^\n" +
		"  hint: write 90s, 10m, 6h, 7d or 2w\n" +
		"topics.sshd.require:6: expected \">=\", got \">\"\n" +
		"  hits > 3\n" +
		"       ^\n" +
		"  hint: write `hits >= 3`, `tcp`, `strong` or `decided`, joined with `and`; or `never`\n" +
		"topics.sshd.prefix: \"v4/99\" is not a prefix limit\n" +
		"  hint: write \"v4/24\" (8 to 32) or \"v6/48\" (19 to 128)"
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
}

// The grammar of times has no end of its own: policy bounds each.
func TestTimesWithoutAnEndAreRefused(t *testing.T) {
	for ttl, want := range map[string]string{"30d": "", "1mo": "", "90d": "", "1d 12h, decided: 1h 30m": "", "90d 1s": "ttl:1", "-1": "ttl:1", "0": "ttl:1", "72h, decided: 91d": "ttl:15"} {
		_, err := Compile(source(TopicSource{Ban: "any of alice", TTL: ttl}, "alice"), nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("ttl = %q: %v", ttl, err)
		}
	}
	for _, within := range []string{"-1", "0s", "soon"} {
		if _, err := Compile(source(TopicSource{Ban: "2 of everyone within " + within}, "alice", "bob"), nil); err == nil {
			t.Errorf("within %s is taken", within)
		}
	}
	s := source(TopicSource{}, "alice")
	alice := s.Operators["alice"]
	alice.Since = t0
	for d, ok := range map[span.Duration]bool{{}: true, span.Of(MaxProbation): true, span.Of(MaxProbation + time.Second): false, span.Of(span.Permanent): false} {
		alice.Probation = &d
		s.Operators["alice"] = alice
		if _, err := Compile(s, nil); (err == nil) != ok {
			t.Errorf("a probation of %v: %v", d, err)
		}
	}
}
