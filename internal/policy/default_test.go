package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

func (r Rules) topic() TopicSource {
	return TopicSource{Ban: r.Ban, Watch: r.Watch, Suspect: r.Suspect, Require: r.Require}
}

func someNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("op%d", i))
	}
	return names
}

func TestTheRecommendedRulesGrowWithWhomOneKnows(t *testing.T) {
	for n, want := range map[int]Rules{
		0:  {},
		1:  {"any of everyone", "any of everyone", "", "hits >= 3"},
		3:  {"any of everyone", "any of everyone or 3 weak of everyone", "", "hits >= 3"},
		4:  {"2 of everyone", "any of everyone or 3 weak of everyone", "", "hits >= 3"},
		6:  {"3 of everyone", "any of everyone or 3 weak of everyone", "", "hits >= 3"},
		20: {"3 of everyone", "any of everyone or 3 weak of everyone", "", "hits >= 3"},
		21: {"8 of everyone", "2 of everyone or 3 weak of everyone", "any of everyone", "hits >= 3"},
	} {
		if got := Recommended("everyone", n); got != want {
			t.Errorf("%d names: %+v, want %+v", n, got, want)
		}
	}
	if got := Recommended("core", 10); got != (Rules{"3 of core", "any of core or 3 weak of core", "any of everyone", "hits >= 3"}) {
		t.Errorf("a core of ten: %+v", got)
	}
}

func TestANewcomerJoinsByTheStricterRule(t *testing.T) {
	rules := Recommended("everyone", 3)
	rules = rules.Join("everyone", []string{"alice", "bob", "carol"})
	if rules.Ban != "any of alice, bob, carol or 2 of everyone" {
		t.Errorf("the fourth: %q", rules.Ban)
	}
	rules = rules.Join("everyone", []string{"alice", "bob", "carol", "dave"})
	if rules.Ban != "any of alice, bob, carol or 2 of everyone" {
		t.Errorf("the fifth: %q", rules.Ban)
	}
	rules = rules.Join("everyone", []string{"alice", "bob", "carol", "dave", "erin"})
	if rules.Ban != "any of alice, bob, carol or 2 of alice, bob, carol, dave, erin or 3 of everyone" || rules.Watch != "any of everyone or 3 weak of everyone" {
		t.Errorf("the sixth: %+v", rules)
	}
	if first := (Rules{}).Join("everyone", nil); first != Recommended("everyone", 1) {
		t.Errorf("the first: %+v", first)
	}
}

// Naming operators who say nothing changes no verdict, one after the other from
// none to more than a person can know; and whoever came after the third bans
// nobody alone.
func TestNamingOperatorsWhoSayNothingChangesNoVerdict(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 24).Draw(t, "named")
		names := someNames(n + 1)
		rules := Rules{}
		for i := range n {
			rules = rules.Join("everyone", names[:i])
		}
		q := Question{Topic: "sshd", Target: target, Now: t0}
		for range rapid.IntRange(0, 12).Draw(t, "votes") {
			q.Votes = append(q.Votes, Vote{
				Operator: op(rapid.SampledFrom(names[:n]).Draw(t, "operator")), Since: t0,
				Held: rapid.IntRange(0, 9).Draw(t, "held") == 0,
				Claim: ban.Claim{
					Target: target, End: t0.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "end")) * time.Hour),
					Basis: ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis")), Hits: uint8(rapid.IntRange(0, 5).Draw(t, "hits")), Established: true,
				},
			})
		}
		before, err := Compile(source(rules.topic(), names[:n]...), nil)
		if err != nil {
			t.Fatal(err)
		}
		grown := rules.Join("everyone", names[:n])
		after, err := Compile(source(grown.topic(), names...), nil)
		if err != nil {
			t.Fatal(err)
		}
		was, is := before.Judge(q), after.Judge(q)
		if was.Action != is.Action || !was.Until.Equal(is.Until) || was.Why != is.Why {
			t.Fatalf("%+v\nbecomes %+v\nwith %s, after %s", was, is, grown.Ban, rules.Ban)
		}
		if n >= 3 {
			q.Votes = []Vote{with(Vote{Operator: op(names[n]), Since: t0, Claim: ban.Claim{Target: target, End: t0.Add(day), Established: true}}, ban.BasisDecided, 200)}
			if v := after.Judge(q); v.Action == Ban {
				t.Fatalf("the newcomer bans alone: %+v", v)
			}
		}
		if len(grown.Ban) > maxExpression || strings.Count(grown.Ban, " or ") > 4 {
			t.Fatalf("%q", grown.Ban)
		}
	})
}
