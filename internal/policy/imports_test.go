package policy

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// listed is the claim of an import, which has no evidence.
func listed(name, target string, end time.Duration) Vote {
	return Vote{Operator: ban.Import(name).Operator(), Since: t0, Claim: ban.Claim{
		Target: ban.MustTarget(target), End: t0.Add(end), Basis: ban.BasisHandedOver,
	}}
}

func withImports(s Source, imports map[string]ImportSource) Source {
	s.Imports = imports
	return s
}

func TestAnImportHasARuleOfItsOwn(t *testing.T) {
	at := ban.MustTarget("198.51.100.7")
	imports := map[string]ImportSource{
		"list:drop":  {Topics: []string{"sshd"}},
		"list:hard":  {Topics: []string{"sshd"}, Rule: "ban", Prefix: []string{"v4/8"}},
		"list:soft":  {Topics: []string{"sshd"}, Rule: "suspect"},
		"list:other": {Topics: []string{"web"}, Rule: "ban"},
	}
	rejected := listed("list:hard", "198.51.100.7", day)
	rejected.Rejected = true
	silenced := listed("list:hard", "198.51.100.7", day)
	silenced.Quarantined = true
	for _, c := range []struct {
		name  string
		topic *TopicSource // nil: the topic has no rules
		votes []Vote
		guard func(*Question)
		want  string
	}{
		{"it is watched without a rule of the topic", nil, []Vote{listed("list:drop", "198.51.100.7", day)}, nil, "watch/imported/86400"},
		{"it bans where that is written", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, nil, "ban/imported/86400"},
		{"it makes a suspect", nil, []Vote{listed("list:soft", "198.51.100.7", day)}, nil, "suspect/imported/86400"},
		{"the strongest rule holds", nil, []Vote{listed("list:soft", "198.51.100.7", 2*day), listed("list:hard", "198.51.100.7", day), listed("list:drop", "198.51.100.7", 3*day)}, nil, "ban/imported/86400"},
		{"a topic that it is not for hears nothing", nil, []Vote{listed("list:other", "198.51.100.7", day)}, nil, "ignore/none"},
		{"a prefix of the floor is taken", nil, []Vote{listed("list:drop", "198.51.0.0/16", day)}, nil, "watch/imported/86400"},
		{"and a wider one is not", nil, []Vote{listed("list:drop", "198.50.0.0/15", day)}, nil, "ignore/none"},
		{"a floor of its own", nil, []Vote{listed("list:hard", "198.0.0.0/8", day)}, nil, "ban/imported/86400"},
		{"a person's rejection silences it", nil, []Vote{rejected}, nil, "ignore/none"},
		{"so does a quarantine", nil, []Vote{silenced}, nil, "ignore/none"},
		{"it is no vote of a quorum", &TopicSource{Ban: "2 of everyone"}, []Vote{vote("alice", 0, day), listed("list:drop", "198.51.100.7", 2*day)}, nil, "watch/imported/172800"},
		{"nor one of everyone", &TopicSource{Ban: "any of everyone"}, []Vote{listed("list:drop", "198.51.100.7", day)}, nil, "watch/imported/86400"},
		{"peers' bans stand above its watch", &TopicSource{Ban: "any of everyone"}, []Vote{vote("alice", 0, time.Hour), listed("list:drop", "198.51.100.7", day)}, nil, "ban/quorum/3600"},
		{"of two bans the later end counts", &TopicSource{Ban: "any of everyone"}, []Vote{vote("alice", 0, time.Hour), listed("list:hard", "198.51.100.7", day)}, nil, "ban/imported/86400"},
		{"a dispute lifts its ban", &TopicSource{Ban: "any of everyone", Dispute: "any of everyone"}, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) {
			q.Disputes = []Dispute{{Operator: op("alice"), End: t0.Add(day)}}
		}, "watch/disputed/86400"},
		{"never-ban stands above it", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.NeverBan = shieldOne(at) }, "ignore/never-ban"},
		{"and what others may not ban", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.NeverPeers = shieldOne(at) }, "ignore/never-ban"},
		{"and an unban", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.Exempt = shieldOne(at) }, "ignore/exempt"},
		{"and what a person allowed", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.Allowed = shieldOne(at) }, "ignore/exempt"},
		{"no list bans or watches a guest", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.Guests = shieldOne(at) }, "ignore/guest"},
		{"a shared address is watched, for a short time", nil, []Vote{listed("list:hard", "198.51.100.7", day)}, func(q *Question) { q.Caution = shieldOne(at) }, "watch/caution/3600"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := source(TopicSource{}, "alice", "bob")
			if s.Topics = map[string]TopicSource{}; c.topic != nil {
				s.Topics["sshd"] = *c.topic
			}
			p, err := Compile(withImports(s, imports), nil)
			if err != nil {
				t.Fatal(err)
			}
			q := Question{Topic: "sshd", Target: at, Votes: c.votes, Now: t0}
			if c.guard != nil {
				c.guard(&q)
			}
			if got := short(p.Judge(q)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestFaultsOfImportsAreTold(t *testing.T) {
	for name, s := range map[string]ImportSource{
		"drop":         {},
		"list:":        {},
		"list:a b":     {},
		"peer:x":       {},
		"list:rule":    {Rule: "drop"},
		"list:wide":    {Prefix: []string{"v4/0"}},
		"list:many":    {Live: MaxImported + 1},
		"list:nothing": {Live: -1},
		"list:topic":   {Topics: []string{"No Topic"}},
		"list:" + strings.Repeat("a", ban.MaxImportName+1): {},
	} {
		if _, err := Compile(withImports(Source{}, map[string]ImportSource{name: s}), nil); err == nil {
			t.Errorf("%s %+v: no fault", name, s)
		}
	}
	p, err := Compile(withImports(Source{}, map[string]ImportSource{"list:most": {Live: MaxImported, Topics: []string{"sshd"}}}), nil)
	if err != nil {
		t.Fatal(err)
	}
	o, ok := p.Operator("list:most")
	if name, named := p.Name(o); !ok || !named || name != "list:most" {
		t.Errorf("it is called %q", name)
	}
	if len(p.Operators("sshd")) != 0 {
		t.Error("a feed of an import is looked for at brokers")
	}
}

// Whatever votes there are, and in whatever order: an import that watches lifts no
// ban and makes none, and the verdict does not depend on the order.
func TestAnImportThatWatchesMovesNoBan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := source(TopicSource{Ban: "2 of everyone", Watch: "any of everyone", Dispute: "any of everyone"}, everyone...)
		before, err := Compile(s, nil)
		if err != nil {
			t.Fatal(err)
		}
		after, err := Compile(withImports(s, map[string]ImportSource{"list:a": {Topics: []string{"sshd"}}, "list:b": {Topics: []string{"sshd"}, Rule: "suspect"}}), nil)
		if err != nil {
			t.Fatal(err)
		}
		votes := drawVotes(t)
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}
		was := before.Judge(q)
		for _, name := range []string{"list:a", "list:b"} {
			if rapid.Bool().Draw(t, name) {
				v := listed(name, target.String(), time.Duration(rapid.IntRange(1, 100).Draw(t, "hours"))*time.Hour)
				v.Held = rapid.Bool().Draw(t, "held")
				votes = append(votes, v)
			}
		}
		q.Votes = votes
		is := after.Judge(q)
		if (was.Action == Ban) != (is.Action == Ban) || was.Action == Ban && !was.Until.Equal(is.Until) || is.Action < was.Action {
			t.Fatalf("%s became %s", short(was), short(is))
		}
		q.Votes = slices.Clone(votes)
		slices.Reverse(q.Votes)
		if again := after.Judge(q); short(again) != short(is) || again.Rule != is.Rule {
			t.Fatalf("%s, and %s in another order", short(is), short(again))
		}
	})
}
