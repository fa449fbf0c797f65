package policy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

func TestTheEffectOfAChangeIsCountedBeforeIt(t *testing.T) {
	compile := func(rule string, names ...string) *Policy {
		p, err := Compile(source(TopicSource{Ban: rule, Watch: "any of everyone"}, names...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	var questions []Question
	for n := range 30 {
		x := ban.MustTarget(fmt.Sprintf("198.51.100.%d", n))
		q := Question{Topic: "sshd", Target: x, Now: t0}
		voters := []string{"alice"}
		if n < 10 {
			voters = append(voters, "bob")
		}
		if n >= 25 {
			voters = []string{"dave"}
		}
		for _, name := range voters {
			v := vote(name, 0, time.Hour)
			v.Target = x
			q.Votes = append(q.Votes, v)
		}
		questions = append(questions, q)
	}
	three, four := []string{"alice", "bob", "carol"}, []string{"alice", "bob", "carol", "dave"}
	e := Compare(slices.Values(questions), compile("any of everyone", three...), compile("2 of everyone", four...))
	if e.Begin != 0 || e.End != 15 || len(e.Ends) != 10 || e.Watched != 5 || e.Unwatched != 0 || e.Ends[0].Target != questions[10].Target || e.Ends[0].Until.IsZero() {
		t.Errorf("%+v", e)
	}
	back := Compare(slices.Values(questions), compile("2 of everyone", four...), compile("any of everyone", three...))
	if back.Begin != 15 || back.End != 0 || back.Unwatched != 5 || len(back.Begins) != 10 || back.Begins[0].Rule != "any of everyone" {
		t.Errorf("%+v", back)
	}
}

func TestNoChangeHasNoEffect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		q := Question{Topic: "sshd", Target: target, Votes: drawVotes(t), Now: t0}
		if e := Compare(slices.Values([]Question{q}), p, p); e.Begin+e.End+e.Watched+e.Unwatched+len(e.Begins)+len(e.Ends) != 0 {
			t.Fatalf("%+v", e)
		}
	})
}

func TestWhoClaimsGuestsFarMoreOftenThanTheCoreIsMistaken(t *testing.T) {
	core := []ban.Operator{op("a"), op("b"), op("c"), op("d"), op("e")}
	honest := map[ban.Operator]Record{op("a"): {1000, 5}, op("b"): {1000, 6}, op("c"): {1000, 4}, op("d"): {900, 5}, op("e"): {10, 0}}
	for _, c := range []struct {
		name   string
		who    string
		record Record
		want   bool
	}{
		{"as often as the core", "x", Record{1000, 11}, false},
		{"a few by chance", "x", Record{20, 3}, false},
		{"four of many", "x", Record{500, 4}, false},
		{"four of few", "x", Record{100, 4}, true},
		{"one of the core", "e", Record{1500, 72}, true},
		{"one of the core that is like the others", "e", Record{1500, 20}, false},
		{"all of its claims", "x", Record{4, 4}, true},
	} {
		records := map[ban.Operator]Record{op(c.who): c.record}
		for o, r := range honest {
			if o != op(c.who) {
				records[o] = r
			}
		}
		if got := Mistaken(records, core); slices.Contains(got, op(c.who)) != c.want || len(got) > 1 {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	// Where attackers log in somewhere first, all honest peers claim guests.
	many := map[ban.Operator]Record{}
	for i, o := range core {
		many[o] = Record{100, 20 + i}
	}
	if got := Mistaken(many, core); len(got) != 0 {
		t.Errorf("honest peers are suspended: %v", got)
	}
}
