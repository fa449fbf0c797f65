package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/strict"
)

var (
	target   = ban.MustTarget("9.0.0.7")
	everyone = []string{"alice", "bob", "carol", "dave", "x", "y", "z"}
)

func drawVotes(t *rapid.T) []Vote {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Vote {
		since := time.Duration(rapid.OneOf(rapid.IntRange(-600, 0), rapid.SampledFrom([]int{-70, -60, 0})).Draw(t, "since")) * time.Minute
		return Vote{
			Operator: op(rapid.SampledFrom(everyone).Draw(t, "operator")),
			Since:    t0.Add(since),
			Claim: ban.Claim{
				Target: target,
				// Ties must occur: whom a verdict names then must not depend on order.
				End:         t0.Add(time.Duration(rapid.OneOf(rapid.IntRange(-10, 120), rapid.SampledFrom([]int{30, 60})).Draw(t, "end")) * time.Minute),
				Class:       rapid.SampledFrom([]ban.Class{ban.ClassAuth, ban.ClassScan}).Draw(t, "class"),
				Basis:       ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis")),
				Hits:        uint8(rapid.IntRange(0, 5).Draw(t, "hits")),
				Established: rapid.Bool().Draw(t, "established"),
			},
			Held:        rapid.IntRange(0, 5).Draw(t, "held") == 0,
			Quarantined: rapid.IntRange(0, 7).Draw(t, "quarantined") == 0,
		}
	}), 0, 10).Draw(t, "votes")
}

func drawRule(t *rapid.T, depth int) string {
	if depth > 0 && rapid.IntRange(0, 2).Draw(t, "nested") == 0 {
		with := rapid.SampledFrom([]string{" or ", " and "}).Draw(t, "with")
		return "(" + drawRule(t, depth-1) + with + drawRule(t, depth-1) + ")"
	}
	set := rapid.SampledFrom([]string{"core", "lp", "everyone", "alice, bob", "core, lp"}).Draw(t, "set")
	within := rapid.SampledFrom([]string{"", " within 1h", " within 3h"}).Draw(t, "within")
	if rapid.IntRange(0, 3).Draw(t, "weighted") == 0 {
		return fmt.Sprintf("weight of %s >= %d%s", set, rapid.IntRange(1, 200).Draw(t, "weight"), within)
	}
	return fmt.Sprintf("%d of %s%s", rapid.IntRange(1, 2).Draw(t, "k"), set, within)
}

func drawWatch(t *rapid.T) string {
	if rapid.Bool().Draw(t, "weak") {
		return drawRule(t, 1) + " or 2 weak of everyone"
	}
	return drawRule(t, 1)
}

func drawPolicy(t *rapid.T) *Policy {
	s := source(TopicSource{
		Ban: drawRule(t, 2), Watch: drawWatch(t), Suspect: drawRule(t, 0), Accept: rapid.Bool().Draw(t, "accept"),
		TTL:     rapid.SampledFrom([]string{"", "1h, decided: 90m", "90m, scan: 20m"}).Draw(t, "ttl"),
		Require: rapid.SampledFrom([]string{"", "hits >= 2", "tcp", "strong, scan: hits >= 4", "hits >= 3, decided: never"}).Draw(t, "require"),
	}, "alice", "bob", "carol")
	if rapid.Bool().Draw(t, "self") {
		self := op("dave")
		s.Self = &self
	}
	bob := s.Operators["bob"]
	bob.Since = t0.Add(-72*time.Hour + time.Duration(rapid.IntRange(-60, 60).Draw(t, "probation"))*time.Minute)
	s.Operators["bob"] = bob
	s.Groups["core"] = []string{"alice", "bob"}
	s.Groups["lp"] = []string{"carol", "follow alice weight 40", "follow bob"}
	p, err := Compile(s, Trust{
		op("alice"): {Operators: []ban.Operator{op("x"), op("y"), op("carol")}},
		op("bob"):   {Operators: []ban.Operator{op("y"), op("z"), op("alice")}},
	})
	if err != nil {
		t.Fatalf("%v", err)
	}
	return p
}

// TestAVerdictIsIndependentOfOrder: any permutation of the votes has the same
// verdict, who made it included.
func TestAVerdictIsIndependentOfOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := drawPolicy(t), drawVotes(t)
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}
		want := p.Judge(q)
		rng := rand.New(rand.NewPCG(uint64(rapid.IntRange(0, 1<<30).Draw(t, "seed")), 1))
		q.Votes = slices.Clone(votes)
		rng.Shuffle(len(q.Votes), func(i, j int) { q.Votes[i], q.Votes[j] = q.Votes[j], q.Votes[i] })
		got := p.Judge(q)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%v\nand shuffled\n%v", want, got)
		}
	})
}

// TestUntilIsExact: until the moment that a verdict names, asking again gives
// the same action, and at that moment it gives a weaker one or a later end.
// Without this the kernel would unban too early or too late.
func TestUntilIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := drawPolicy(t), drawVotes(t)
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}
		v := p.Judge(q)
		if v.Action != Ban {
			return
		}
		if !v.Until.After(t0) {
			t.Fatalf("a ban that ends before it begins: %v", v)
		}
		for _, at := range []time.Duration{v.Until.Sub(t0) / 2, v.Until.Sub(t0) - time.Second} {
			q.Now = t0.Add(at)
			if again := p.Judge(q); again.Action != Ban {
				t.Fatalf("at %v: %v, before the end of %v", at, again, v)
			}
		}
		// At the end the rule stops being met, except where a vote on probation
		// or a lapsed and rearranged confirmation takes over.
		q.Now = v.Until
		if again := p.Judge(q); again.Action == Ban && !again.Until.After(v.Until) {
			t.Fatalf("at its end %v is %v", v, again)
		}
	})
}

// TestFollowNeverAmplifies: whatever an operator publishes as its list, it and
// all whom it lists together cannot do more than it can with one vote.
func TestFollowNeverAmplifies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.IntRange(2, 4).Draw(t, "k")
		s := source(TopicSource{Ban: fmt.Sprintf("%d of lp", k)}, "alice", "bob", "carol", "dave")
		s.Groups["lp"] = []string{"follow alice depth 2 most 1000", "alice", "bob", "carol", "dave", "follow bob"}
		sybils := make([]ban.Operator, rapid.IntRange(1, 1000).Draw(t, "sybils"))
		var votes []Vote
		for i := range sybils {
			name := fmt.Sprint("sybil", i)
			sybils[i] = op(name)
			votes = append(votes, vote(name, 0, time.Hour))
		}
		// Alice may also claim to trust those whom we name, and to follow others.
		list := TrustList{Operators: append(slices.Clone(sybils), op("bob"), op("carol")), Follows: []ban.Operator{op("mallory")}}
		p, err := Compile(s, Trust{op("alice"): list, op("mallory"): {Operators: sybils}})
		if err != nil {
			t.Fatalf("%v", err)
		}
		votes = append(votes, vote("alice", 0, time.Hour), vote("mallory", 0, time.Hour))
		honest := rapid.IntRange(0, 3).Draw(t, "honest")
		for _, name := range []string{"bob", "carol", "dave"}[:honest] {
			votes = append(votes, vote(name, 0, time.Hour))
		}
		v := p.Judge(Question{Topic: "sshd", Target: target, Votes: votes, Now: t0})
		if want := honest+1 >= k; (v.Action == Ban) != want {
			t.Fatalf("%d honest operators and one with %d keys: %v, want a ban: %v", honest, len(sybils), v, want)
		}
	})
}

// TestAThousandKeysUnderOneOperatorAreOneVote: nodes do not count.
func TestAThousandKeysUnderOneOperatorAreOneVote(t *testing.T) {
	p, err := Compile(source(TopicSource{Ban: "2 of everyone or weight of everyone >= 101"}, "alice", "bob"), nil)
	if err != nil {
		t.Fatal(err)
	}
	var votes []Vote
	for i := range 1000 {
		votes = append(votes, vote("alice", time.Duration(-i)*time.Minute, time.Hour))
	}
	if v := p.Judge(Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}); v.Action != Ignore {
		t.Errorf("one operator is a quorum: %v", v)
	}
	votes = append(votes, vote("bob", 0, time.Hour))
	if v := p.Judge(Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}); v.Action != Ban {
		t.Errorf("two operators are no quorum: %v", v)
	}
}

// TestWhoIsReachedTwiceIsOneVote: an operator whom two followed lists name can
// sit in either one's seat, and in one of them only, however many nodes it has.
func TestWhoIsReachedTwiceIsOneVote(t *testing.T) {
	s := source(TopicSource{Ban: "2 of lp"}, "alice", "bob")
	s.Groups["lp"] = []string{"follow alice", "follow bob"}
	p, err := Compile(s, Trust{op("alice"): {Operators: []ban.Operator{op("x"), op("y")}}, op("bob"): {Operators: []ban.Operator{op("x")}}})
	if err != nil {
		t.Fatal(err)
	}
	q := Question{Topic: "sshd", Target: target, Now: t0}
	for range 50 {
		q.Votes = append(q.Votes, vote("x", 0, time.Hour))
	}
	if v := p.Judge(q); v.Action == Ban {
		t.Errorf("one operator filled two seats: %v", v)
	}
	// With another, who can only take the seat that it first sat in.
	q.Votes = append(q.Votes, vote("y", 0, time.Hour))
	if v := p.Judge(q); v.Action != Ban || len(v.By) != 2 {
		t.Errorf("two operators are two votes: %v", v)
	}
}

// TestProtectionBeatsEverything: no votes at all make a protected target
// banned.
func TestProtectionBeatsEverything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := drawPolicy(t), drawVotes(t)
		target := ban.MustTarget(rapid.SampledFrom([]string{"9.0.0.7", "9.0.0.0/24", "2a01::7", "2a01::/64", "2a01::/48", "0x52908400098527886e0f7030069857d2e4169ee7"}).Draw(t, "target"))
		for i := range votes {
			votes[i].Target = target
		}
		votes = append(votes, Vote{Own: true, Since: t0, Claim: ban.Claim{Target: target, End: t0.Add(time.Hour)}})
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0, NeverBan: shieldAll{}}
		if v := p.Judge(q); v.Action != Ignore || v.Why != ReasonNeverBan {
			t.Fatalf("never-ban: %v", v)
		}
		q.NeverBan, q.Allowed = nil, shieldAll{}
		if v := p.Judge(q); v.Action != Ignore || v.Why != ReasonExempt {
			t.Fatalf("allowed: %v", v)
		}
		q.Allowed, q.Exempt = nil, shieldAll{}
		if v := p.Judge(q); v.Action != Ban || v.Why != ReasonLocal || len(v.By) > 0 {
			t.Fatalf("unbanned, and banned here again: %v", v)
		}
		q.Exempt, q.NeverPeers = nil, shieldAll{}
		if v := p.Judge(q); v.Action != Ban || v.Why != ReasonLocal || len(v.By) > 0 {
			t.Fatalf("shielded from peers: %v", v)
		}
		q.NeverPeers, q.Caution = nil, shieldAll{}
		q.Votes = votes[:len(votes)-1]
		if v := p.Judge(q); v.Why != ReasonOwnOperator && (v.Action == Ban || v.Action != Ignore && v.Until.Sub(t0) > cautionTTL) {
			t.Fatalf("a shared address: %v", v)
		}
		q.Caution, q.Guests = nil, shieldAll{}
		if v := p.Judge(q); v.Action != Ignore && v.Why != ReasonOwnOperator {
			t.Fatalf("a guest: %v", v)
		}
	})
}

type shieldAll struct{}

func (shieldAll) Protects(ban.Target) (string, bool) { return "all", true }

// FuzzRules: no expression crashes the parser, a fault's excerpt lies inside
// its text.
func FuzzRules(f *testing.F) {
	for _, s := range []string{
		"any of core or 2 of lp within 6h", "weight of everyone >= 100", "never", "((any of alice))", "2 off core", "all of core, bob and", "hits >= 3 and tcp", "72h, decided: 30d, scan: 1h 30m", "hits >= 3, scan: never", "2 weak of core",
		"", "9999999999999 of core", "any of core within 1x", "anyy of core", "any of cor", "🙂 of core",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		src := source(TopicSource{Ban: s, Watch: s, Require: s, TTL: s}, "alice", "bob")
		src.Groups["core"] = []string{"alice", s}
		_, err := Compile(src, nil)
		if err == nil {
			return
		}
		for _, fault := range err.(strict.Faults) {
			if fault.Column < 0 || fault.Column > max(len(s), maxExpression)+1 || strings.Count(fault.Excerpt, "\n") > 1 {
				t.Fatalf("%+v\n%s", fault, fault.Excerpt)
			}
		}
	})
}
