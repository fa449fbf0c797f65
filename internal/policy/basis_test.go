package policy

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

const day = 24 * time.Hour

// with gives a vote another basis and number of hits.
func with(v Vote, basis ban.Basis, hits uint8) Vote {
	v.Basis, v.Hits = basis, hits
	return v
}

func of(v Vote, class ban.Class) Vote {
	v.Class = class
	return v
}

func old(v Vote, by time.Duration) Vote {
	v.Since = v.Since.Add(-by)
	return v
}

func TestABasisSaysWhatAClaimIsWorth(t *testing.T) {
	machine := func(name string, hits uint8) Vote { return with(vote(name, 0, 40*day), ban.BasisStrong, hits) }
	decided := func(name string, end time.Duration) Vote { return with(vote(name, 0, end), ban.BasisDecided, 0) }
	weak := func(name string) Vote { return with(vote(name, 0, 40*day), ban.BasisWeak, 200) }
	rules := TopicSource{Ban: "2 of everyone", Watch: "3 weak of everyone", Suspect: "any of everyone", Require: "hits >= 3"}
	anyOf := TopicSource{Ban: "any of everyone", Require: "hits >= 3 and tcp"}
	for _, c := range []struct {
		name  string
		topic TopicSource
		votes []Vote
		want  string
	}{
		{"a decision counts to its own end, with no hits and no connection", anyOf, []Vote{decided("alice", 30*day)}, "ban/quorum/2592000"},
		{"and at most 90 days", anyOf, []Vote{decided("alice", 400*day)}, "ban/quorum/7776000"},
		{"ten days on it is still in force", anyOf, []Vote{old(decided("alice", 20*day), 10*day)}, "ban/quorum/1728000"},
		{"a machine's claim is not", anyOf, []Vote{old(machine("alice", 5), 10*day)}, "ignore/no-quorum"},
		{"a topic may ask of decisions what it likes", TopicSource{Ban: "any of everyone", Require: "decided: hits >= 1", TTL: "decided: 1h"}, []Vote{with(decided("alice", 30*day), ban.BasisDecided, 1)}, "ban/quorum/3600"},
		{"or take none", TopicSource{Ban: "any of everyone", Require: "decided: never"}, []Vote{decided("alice", 30*day)}, "ignore/no-quorum"},
		{"or nothing else", TopicSource{Ban: "any of everyone", Require: "decided"}, []Vote{machine("alice", 200)}, "ignore/no-quorum"},
		{"a decision never stands for a second vote", rules, []Vote{decided("alice", 30*day)}, "suspect/suspect/2592000"},
		{"two machines ban for 72 hours, whatever end they write", rules, []Vote{machine("alice", 5), machine("bob", 5)}, "ban/quorum/259200"},
		{"a ban of a watched address is a vote", rules, []Vote{machine("alice", 5), machine("bob", 1)}, "ban/quorum/259200"},
		{
			"the first may be of somebody who is named and has no vote",
			TopicSource{Ban: "2 of alice, bob", Watch: "any of carol", Require: "hits >= 3"},
			[]Vote{machine("alice", 1), machine("bob", 2), machine("carol", 3)},
			"ban/quorum/259200",
		},
		{
			"who has no vote adds none",
			TopicSource{Ban: "2 of alice, bob", Watch: "any of carol", Require: "hits >= 3"},
			[]Vote{machine("alice", 1), machine("carol", 3)},
			"watch/watched/259200",
		},
		{"and never the first", rules, []Vote{machine("alice", 1), machine("bob", 2), machine("carol", 1)}, "watch/watched/259200"},
		{
			"the ban ends with the last vote that could be the first", rules,
			[]Vote{with(vote("alice", 0, time.Hour), ban.BasisStrong, 5), machine("bob", 1), machine("carol", 1)},
			"ban/quorum/3600",
		},
		{"weak evidence of one is nothing", TopicSource{Ban: "any of everyone", Watch: "3 weak of everyone"}, []Vote{weak("alice"), weak("bob")}, "ignore/no-quorum"},
		{"of three it watches", rules, []Vote{weak("alice"), weak("bob"), weak("carol")}, "watch/watched/259200"},
		{"a strong claim is weak evidence too", rules, []Vote{weak("alice"), weak("bob"), machine("carol", 1)}, "watch/watched/259200"},
		{"weak evidence is no ordinary vote for watching", TopicSource{Ban: "any of everyone", Watch: "any of everyone", Suspect: "any of everyone"}, []Vote{weak("alice"), weak("bob")}, "ignore/no-quorum"},
		{"what another program hands over is strong with its hits", anyOf, []Vote{with(vote("alice", 0, 40*day), ban.BasisHandedOver, 3)}, "ban/quorum/259200"},
		{"and weak without", anyOf, []Vote{with(vote("alice", 0, 40*day), ban.BasisHandedOver, 0)}, "ignore/no-quorum"},
		{"a class that honest clients make too is weak, whatever its author says", anyOf, []Vote{of(machine("alice", 200), ban.ClassScanWeak)}, "ignore/no-quorum"},
		{"unless a person decided", anyOf, []Vote{of(decided("alice", day), ban.ClassScanWeak)}, "ban/quorum/86400"},
		{"a class may need more", TopicSource{Ban: "any of everyone", Require: "hits >= 3, scan: hits >= 10"}, []Vote{of(machine("alice", 5), ban.ClassScan)}, "ignore/no-quorum"},
		{"and count for less time", TopicSource{Ban: "any of everyone", TTL: "72h, scan: 30m"}, []Vote{of(machine("alice", 5), ban.ClassScan)}, "ban/quorum/1800"},
		{"but not where a person decided", TopicSource{Ban: "any of everyone", TTL: "72h, manual: 30m"}, []Vote{of(decided("alice", 30*day), ban.ClassManual)}, "ban/quorum/2592000"},
		{"another basis is judged by its own rule", TopicSource{Ban: "any of everyone", TTL: "72h, handed-over: 2h"}, []Vote{with(vote("alice", 0, 40*day), ban.BasisHandedOver, 3)}, "ban/quorum/7200"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, err := Compile(source(c.topic, "alice", "bob", "carol"), nil)
			if err != nil {
				t.Fatal(err)
			}
			v := p.Judge(Question{Topic: "sshd", Target: c.votes[0].Target, Votes: c.votes, Now: t0})
			if got := short(v); got != c.want {
				t.Errorf("got %s by %v (%s), want %s", got, v.By, v.Rule, c.want)
			}
		})
	}
}

func TestWhyAClaimDoesNotCountInFull(t *testing.T) {
	s := source(TopicSource{Ban: "any of everyone", Require: "hits >= 3 and tcp", Accept: true}, "alice", "bob", "carol")
	self := op("dave")
	s.Self = &self
	p, err := Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	noTCP := vote("alice", 0, day)
	noTCP.Established = false
	held := vote("alice", 0, day)
	held.Held = true
	rejected := held
	rejected.Rejected = true
	for why, v := range map[Reason]Vote{
		ReasonNone: vote("alice", 0, day), ReasonAged: old(vote("alice", 0, day), 72*time.Hour), ReasonExpired: vote("alice", -day, 0),
		ReasonWeak: with(vote("alice", 0, day), ban.BasisWeak, 9), ReasonSecond: with(vote("alice", 0, day), ban.BasisStrong, 2),
		ReasonEvidence: noTCP, ReasonHeld: held, ReasonRejected: rejected, ReasonUnknown: vote("mallory", 0, day), ReasonOwnOperator: with(vote("dave", 0, day), ban.BasisStrong, 1),
	} {
		if got := p.Counts("sshd", v, t0); got != why {
			t.Errorf("%+v: %v, want %v", v, got, why)
		}
	}
	// Weak for want of a kernel to ask, it bans on the operator's other nodes all the same.
	lone := with(vote("dave", 0, day), ban.BasisWeak, 5)
	lone.Established = false
	if got := p.Counts("sshd", lone, t0); got != ReasonOwnOperator {
		t.Errorf("another node's weak claim: %v", got)
	}
	lone.Held = true
	if got := p.Counts("sshd", lone, t0); got != ReasonWeak {
		t.Errorf("another node's weak claim that waits: %v", got)
	}
	for why := range ReasonRejected + 1 {
		var back Reason
		if b, err := why.MarshalText(); err != nil || back.UnmarshalText(b) != nil || back != why || why.Sentence() == "" {
			t.Errorf("reason %d has no name or sentence of its own", why)
		}
	}
}

func TestWeakEvidenceIsNoRuleToBanBy(t *testing.T) {
	for rule, want := range map[string]bool{"3 weak of everyone": false, "any of everyone or 2 weak of everyone": false, "any of everyone": true} {
		if _, err := Compile(source(TopicSource{Ban: rule}, "alice", "bob", "carol"), nil); (err == nil) != want {
			t.Errorf("ban = %q: %v", rule, err)
		}
	}
	for rule, want := range map[string]bool{"3 weak of everyone": true, "any weak of everyone": false, "1 weak of everyone": false, "all weak of everyone": true} {
		if _, err := Compile(source(TopicSource{Watch: rule}, "alice", "bob", "carol"), nil); (err == nil) != want {
			t.Errorf("watch = %q: %v", rule, err)
		}
	}
}

// Nothing that is weak bans, however much there is of it and whatever the rules
// are, and adding it never lifts a ban. What this operator's other nodes ban
// without a kernel's word is no weak evidence to them.
func TestNoAmountOfWeakEvidenceBans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := drawPolicy(t), drawVotes(t)
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}
		for i := range votes {
			if rapid.Bool().Draw(t, "weaken") {
				votes[i].Basis = ban.BasisWeak
			}
		}
		var strong []Vote
		for _, v := range votes {
			if r := p.topics["sshd"]; v.Basis != ban.BasisWeak || r != nil && p.speaks(r, v.Operator) && v.unconfirmed() {
				strong = append(strong, v)
			}
		}
		with := p.Judge(q)
		q.Votes = strong
		without := p.Judge(q)
		if (with.Action == Ban) != (without.Action == Ban) || with.Action == Ban && !with.Until.Equal(without.Until) {
			t.Fatalf("%v, and without weak evidence %v", with, without)
		}
		if with.Action < without.Action {
			t.Fatalf("%v, and without weak evidence %v", with, without)
		}
	})
}

// The end that an author writes buys no time beyond the reader's.
func TestALaterEndBuysNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, votes := drawPolicy(t), drawVotes(t)
		q := Question{Topic: "sshd", Target: target, Votes: votes, Now: t0}
		ttl := p.topics["sshd"].ttl
		for i := range votes {
			v := &votes[i]
			if most := v.Since.Add(time.Duration(ttl.of(v.Class, v.Basis)) * time.Second); v.End.After(most) {
				v.End = most
			}
		}
		want := p.Judge(q)
		q.Votes = slices.Clone(votes)
		for i := range q.Votes {
			v := &q.Votes[i]
			if most := v.Since.Add(time.Duration(ttl.of(v.Class, v.Basis)) * time.Second); v.End.Equal(most) {
				v.End = v.End.Add(1000 * day)
			}
		}
		if got := p.Judge(q); got.Action != want.Action || !got.Until.Equal(want.Until) {
			t.Fatalf("%v, and with later ends %v", want, got)
		}
	})
}

// A service behind a proxy on another machine: no kernel confirms its log, and
// this operator's other machines ban by it all the same.
func TestAnUnconfirmedBanOfOnesOwnBansAndAStrangersDoesNot(t *testing.T) {
	s := source(TopicSource{Ban: "any of everyone", Accept: true}, "alice")
	self := op("dave")
	s.Self = &self
	p, err := Compile(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	unconfirmed := func(name string, change func(*Vote)) Vote {
		v := with(vote(name, 0, day), ban.BasisWeak, 5)
		v.Established = false
		if change != nil {
			change(&v)
		}
		return v
	}
	for claim, c := range map[string]struct {
		vote Vote
		want Action
	}{
		"own":                 {unconfirmed("dave", nil), Ban},
		"a stranger's":        {unconfirmed("alice", nil), Ignore},
		"what honest ones do": {unconfirmed("dave", func(v *Vote) { v.Class = ban.ClassScanWeak }), Watch},
		"what was only seen":  {unconfirmed("dave", func(v *Vote) { v.Established = true }), Watch},
		"held":                {unconfirmed("dave", func(v *Vote) { v.Held = true }), Watch},
	} {
		if got := p.Judge(Question{Topic: "sshd", Target: target, Votes: []Vote{c.vote}, Now: t0}); got.Action != c.want {
			t.Errorf("%s: %v, want %v", claim, got, c.want)
		}
	}
	q := Question{Topic: "sshd", Target: target, Votes: []Vote{unconfirmed("dave", nil)}, Now: t0, Guests: shieldOne(target)}
	if got := p.Judge(q); got.Action == Ban {
		t.Errorf("a guest is banned: %v", got)
	}
}
