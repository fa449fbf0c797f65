package policy

import (
	"strconv"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// op gives the operator that the tests call by name.
func op(name string) ban.Operator { return ban.OperatorOf([]byte(name)) }

func source(topic TopicSource, names ...string) Source {
	s := Source{Operators: map[string]OperatorSource{}, Groups: map[string][]string{}, Topics: map[string]TopicSource{"sshd": topic}}
	for _, n := range names {
		s.Operators[n] = OperatorSource{ID: op(n).String()}
	}
	return s
}

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func vote(name string, since, end time.Duration) Vote {
	return Vote{Operator: op(name), Since: t0.Add(since), Claim: ban.Claim{
		Target: ban.MustTarget("198.51.100.7"), End: t0.Add(end), Basis: ban.BasisStrong, Hits: 5, Established: true,
	}}
}

func TestVotesGiveTheVerdictOfTheRules(t *testing.T) {
	lists := Trust{
		op("alice"): {Operators: []ban.Operator{op("x"), op("y"), op("z")}, Follows: []ban.Operator{op("far")}},
		op("bob"):   {Operators: []ban.Operator{op("y"), op("z")}},
		op("far"):   {Operators: []ban.Operator{op("q")}},
	}
	for _, c := range []struct {
		name   string
		topic  TopicSource
		groups map[string][]string
		votes  []Vote
		want   string // action/reason/seconds until from t0
	}{
		{"no votes, no verdict", TopicSource{Ban: "any of alice"}, nil, nil, "ignore/none"},
		{"an unknown operator is ignored", TopicSource{Ban: "any of alice"}, nil, []Vote{vote("mallory", 0, time.Hour)}, "ignore/no-quorum"},
		{
			"any of one bans until the longest claim ends",
			TopicSource{Ban: "any of alice, bob"},
			nil,
			[]Vote{vote("alice", 0, time.Hour), vote("bob", 0, 2*time.Hour)},
			"ban/quorum/7200",
		},
		{
			"2 of n lapses when the second longest ends",
			TopicSource{Ban: "2 of everyone"},
			nil,
			[]Vote{vote("alice", 0, time.Hour), vote("bob", 0, 2*time.Hour), vote("carol", 0, 3*time.Hour)},
			"ban/quorum/7200",
		},
		{
			"two nodes of one operator are one vote",
			TopicSource{Ban: "2 of everyone"},
			nil,
			[]Vote{vote("alice", 0, time.Hour), vote("alice", 0, 2*time.Hour)},
			"ignore/no-quorum",
		},
		{
			"a machine's claim counts for the topic's ttl",
			TopicSource{Ban: "any of alice"},
			nil,
			[]Vote{vote("alice", 0, 40*24*time.Hour)},
			"ban/quorum/259200",
		},
		{
			"its author's end only shortens that, however many say more",
			TopicSource{Ban: "2 of everyone"},
			nil,
			[]Vote{vote("alice", 0, 40*24*time.Hour), vote("bob", 0, 40*24*time.Hour), vote("carol", 0, 24*time.Hour)},
			"ban/quorum/259200",
		},
		{
			"the ttl can be raised",
			TopicSource{Ban: "any of alice", TTL: "7d"},
			nil,
			[]Vote{vote("alice", 0, 40*24*time.Hour)},
			"ban/quorum/604800",
		},
		{
			"votes far apart do not add up within",
			TopicSource{Ban: "2 of everyone within 6h"},
			nil,
			[]Vote{vote("alice", -7*time.Hour, time.Hour), vote("bob", 0, time.Hour)},
			"ignore/no-quorum",
		},
		{
			"votes close together add up within",
			TopicSource{Ban: "2 of everyone within 6h"},
			nil,
			[]Vote{vote("alice", -6*time.Hour, time.Hour), vote("bob", 0, 2*time.Hour), vote("carol", -13*time.Hour, 5*time.Hour)},
			"ban/quorum/3600",
		},
		{
			"or takes the later end",
			TopicSource{Ban: "any of alice or 2 of bob, carol"},
			nil,
			[]Vote{vote("alice", 0, time.Hour), vote("bob", 0, 5*time.Hour), vote("carol", 0, 4*time.Hour)},
			"ban/quorum/14400",
		},
		{"and takes the earlier end", TopicSource{Ban: "any of alice and any of (bob)"}, nil, nil, "fault"},
		{
			"and takes the earlier end, written right",
			TopicSource{Ban: "any of alice and (any of bob or any of carol)"},
			nil,
			[]Vote{vote("alice", 0, time.Hour), vote("bob", 0, 5*time.Hour)},
			"ban/quorum/3600",
		},
		{
			"weights add up",
			TopicSource{Ban: "weight of everyone >= 200"},
			nil,
			[]Vote{vote("alice", 0, 3*time.Hour), vote("bob", 0, time.Hour)},
			"ban/quorum/3600",
		},
		{
			"watch where the ban rule is not met",
			TopicSource{Ban: "2 of everyone", Watch: "any of everyone"},
			nil,
			[]Vote{vote("alice", 0, 3*time.Hour)},
			"watch/watched/10800",
		},
		{
			"fewer hits and no connection are watched only",
			TopicSource{Ban: "any of everyone", Watch: "any of everyone", Require: "hits >= 6 and tcp"},
			nil,
			[]Vote{vote("alice", 0, 3*time.Hour)},
			"watch/watched/10800",
		},
		{
			"one follow is one vote, with the followed",
			TopicSource{Ban: "2 of lp"},
			map[string][]string{"lp": {"follow alice", "carol"}},
			[]Vote{vote("alice", 0, time.Hour), vote("x", 0, time.Hour), vote("y", 0, time.Hour)},
			"ignore/no-quorum",
		},
		{
			"a follow and a named one are two",
			TopicSource{Ban: "2 of lp"},
			map[string][]string{"lp": {"follow alice", "carol"}},
			[]Vote{vote("x", 0, time.Hour), vote("carol", 0, time.Hour)},
			"ban/quorum/3600",
		},
		{
			"two follows that list the same operator need two operators",
			TopicSource{Ban: "2 of lp"},
			map[string][]string{"lp": {"follow alice", "follow bob"}},
			[]Vote{vote("y", 0, time.Hour)},
			"ignore/no-quorum",
		},
		{
			"voters are seated so that most seats are filled",
			TopicSource{Ban: "2 of lp"},
			map[string][]string{"lp": {"follow alice", "follow bob"}},
			[]Vote{vote("y", 0, 3*time.Hour), vote("x", 0, time.Hour)},
			"ban/quorum/3600",
		},
		{
			"depth 1 does not reach a friend's friend",
			TopicSource{Ban: "any of lp"},
			map[string][]string{"lp": {"follow alice"}},
			[]Vote{vote("q", 0, time.Hour)},
			"ignore/no-quorum",
		},
		{
			"depth 2 reaches a friend's friend",
			TopicSource{Ban: "any of lp"},
			map[string][]string{"lp": {"follow alice depth 2"}},
			[]Vote{vote("q", 0, time.Hour)},
			"ban/quorum/3600",
		},
		{
			"most bounds what a follow brings",
			TopicSource{Ban: "any of lp"},
			map[string][]string{"lp": {"follow alice most 1"}},
			[]Vote{vote("y", 0, time.Hour)},
			"ignore/no-quorum",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := source(c.topic, "alice", "bob", "carol")
			for k, v := range c.groups {
				s.Groups[k] = v
			}
			p, err := Compile(s, lists)
			if c.want == "fault" {
				if err == nil {
					t.Fatal("it compiles")
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			v := p.Judge(Question{Topic: "sshd", Target: ban.MustTarget("198.51.100.7"), Votes: c.votes, Now: t0})
			if got := short(v); got != c.want {
				t.Errorf("got %s by %v (%s), want %s", got, v.By, v.Rule, c.want)
			}
		})
	}
}

func TestAQuorumThatCannotBeReachedIsAWarning(t *testing.T) {
	p, err := Compile(source(TopicSource{Ban: "any of alice or 3 of alice, bob"}, "alice", "bob"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if w := p.Warnings(); len(w) != 1 || w[0].Column != 22 || w[0].Text != "3 of 2 can never be reached" {
		t.Errorf("warnings are %+v", w)
	}
}

func short(v Verdict) string {
	s := v.Action.String() + "/" + v.Why.String()
	if !v.Until.IsZero() {
		s = v.Action.String() + "/" + v.Why.String() + "/" + strconv.Itoa(int(v.Until.Sub(t0)/time.Second))
	}
	return s
}

func TestRecommendedRulesCompile(t *testing.T) {
	for n := range 20 {
		var names []string
		for i := range n {
			names = append(names, "op"+strconv.Itoa(i))
		}
		p, err := Compile(source(Recommended("everyone", n).topic(), names...), nil)
		if err != nil || len(p.Warnings()) > 0 || (len(p.Operators("sshd")) != n) {
			t.Errorf("%d operators: %v, %v", n, err, p.Warnings())
		}
	}
}
