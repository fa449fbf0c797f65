package ledger

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A Standing is a verdict and all that it rests on.
type Standing struct {
	Topic  ban.Topic
	Target ban.Target
	Action policy.Action
	Why    policy.Reason
	// Rule is the part of the rule that is met, or the shield of the target.
	Rule string
	// By are the operators whose claims meet the rule, longest first.
	By           []ban.Operator
	Since, Until time.Time
	Claims       []Claimed
	Disputes     []Disputed // of the target itself, whether or not they lift anything
}

// Claimed is one claim of the target or of a prefix around it, and its weight
// here.
type Claimed struct {
	ban.Claim
	Feed     ban.Feed // who says so; of our own claims the topic alone
	Own      bool
	Source   Source    // of our own
	Since    time.Time // when it arrived
	WhyNot   policy.Reason
	Evidence Evidence
}

// Counts says whether the claim counts in full.
func (c Claimed) Counts() bool { return c.WhyNot == policy.ReasonNone }

// An Explanation answers why a target is banned or not.
type Explanation struct {
	Target ban.Target
	// Shield names the protection of the target in every topic, "" for none.
	Shield    string
	Standings []Standing
}

// maxInside bounds how many targets inside a prefix are explained.
const maxInside = 1000

// Explain answers who claims something of a target, of a prefix around it, or
// of up to [maxInside] targets in it, and gives policy's verdict, since when and
// until when.
func (l *Ledger) Explain(target ban.Target) Explanation {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	e := Explanation{Target: target}
	for topic := range l.table.byTopic {
		var hits []uint32
		l.overlapping(topic, target, func(r uint32) {
			if len(hits) < maxInside {
				hits = append(hits, r)
			}
		})
		for _, r := range hits {
			if s := l.standing(r, now); len(s.Claims) > 0 {
				e.Standings = append(e.Standings, s)
			}
		}
	}
	e.Standings = l.withMistakes(target, e.Standings, now)
	slices.SortFunc(e.Standings, func(a, b Standing) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), a.Target.Compare(b.Target))
	})
	e.Shield = l.shieldOf(target, e.Standings)
	return e
}

// shieldOf names the protection of a target in every topic. A protection from
// peers alone is none where this node bans the target: no answer says both.
func (l *book) shieldOf(target ban.Target, standings []Standing) string {
	banned := slices.ContainsFunc(standings, func(s Standing) bool { return s.Action == policy.Ban })
	for i, p := range []policy.Protection{l.never, l.exempt.allowed, l.neverPeers, l.exempt.unbanned} {
		if p == nil || i >= 2 && banned {
			continue
		}
		if why, ok := p.Protects(target); ok {
			return why
		}
	}
	return ""
}

// standing computes a record's verdict anew, with everything that it rests on.
func (l *book) standing(r uint32, now time.Time) Standing {
	q := l.question(r, now, nil)
	verdict := l.policy.Judge(q)
	s := Standing{
		Topic: q.Topic, Target: q.Target,
		Action: verdict.Action, Why: verdict.Why, Rule: verdict.Rule, By: verdict.By, Until: verdict.Until,
	}
	if rec := l.table.all.at(r); rec.action == verdict.Action && rec.since != 0 {
		s.Since = time.Unix(int64(rec.since), 0)
	}
	p := place{q.Topic, q.Target}
	s.Disputes = l.disputedBy(p, l.disputes.of[p], now)
	s.Claims = l.claimed(r, s.Claims, now)
	if s.Why == policy.ReasonNone && len(s.Claims) > 0 {
		s.Why = s.Claims[0].WhyNot // a claim of ours that has outlived its ban
	}
	topic := int(l.table.all.at(r).topic)
	l.table.around(topic, q.Target, func(wider uint32) { s.Claims = l.claimed(wider, s.Claims, now) })
	return s
}

func (l *book) nameOf(o ban.Operator) string {
	if name, ok := l.policy.Name(o); ok {
		return name
	}
	return o.String()
}

// claimed lists the live claims of a record, longest first.
func (l *book) claimed(r uint32, list []Claimed, now time.Time) []Claimed {
	topic, target := l.table.topicName(r), l.table.target(r)
	first := len(list)
	for v := range l.table.votesOf(r) {
		if !v.kept(now) {
			continue
		}
		judged := l.policyVote(v, target)
		c := Claimed{
			Claim: judged.Claim, Feed: ban.Feed{Topic: topic}, Own: judged.Own, Since: judged.Since,
			WhyNot: l.policy.Counts(topic, judged, now),
		}
		if !v.inForce(now) {
			c.End, c.WhyNot = time.Unix(int64(v.told()), 0), policy.ReasonTold
		}
		if judged.Own {
			c.Source, c.Evidence = l.sources.names[v.feed], l.proof.of[ownPlace{place{topic, target}, v.feed}]
		} else {
			c.Feed = l.feeds.list[v.feed].feed
		}
		list = append(list, c)
	}
	slices.SortFunc(list[first:], func(a, b Claimed) int {
		return cmp.Or(b.End.Compare(a.End), a.Feed.Compare(b.Feed), cmp.Compare(a.Source, b.Source))
	})
	return list
}

// A Filter selects standings for [Ledger.Bans]. The zero Filter selects every
// ban.
type Filter struct {
	Topic  ban.Topic       // "": every topic
	Action []policy.Action // nil: Ban
	// Operator selects targets that this operator claims too, if it is not the zero
	// Operator; Own those that this node claims.
	Operator ban.Operator
	Own      bool
}

// Bans gives the standings that a filter selects, sorted by topic and target,
// each with its claims. It is a copy: the ledger may change meanwhile.
func (l *Ledger) Bans(f Filter) iter.Seq[Standing] {
	l.mu.RLock()
	type found struct {
		place
		r uint32
	}
	var list []found
	now := l.now()
	actions := f.Action
	if actions == nil {
		actions = []policy.Action{policy.Ban}
	}
	for topic, x := range l.table.byTopic {
		if f.Topic != "" && x.name != f.Topic {
			continue
		}
		for r := range l.table.records(topic) {
			rec := l.table.all.at(r)
			if slices.Contains(actions, rec.action) && (rec.until == 0 || int64(rec.until) > now.Unix()) && l.selects(f, r) {
				list = append(list, found{place{x.name, l.table.target(r)}, r})
			}
		}
	}
	l.mu.RUnlock()
	slices.SortFunc(list, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.topic, b.topic), a.target.Compare(b.target))
	})
	return func(yield func(Standing) bool) {
		for _, at := range list {
			if s, ok := l.Standing(at.topic, at.target); ok && slices.Contains(actions, s.Action) && !yield(s) {
				return
			}
		}
	}
}

func (l *book) selects(f Filter, r uint32) bool {
	if f.Operator == (ban.Operator{}) && !f.Own {
		return true
	}
	for v := range l.table.votesOf(r) {
		if f.Own && isOwn(v.feed) || !isOwn(v.feed) && f.Operator != (ban.Operator{}) && l.feeds.list[v.feed].feed.Operator == f.Operator {
			return true
		}
	}
	return false
}

// Standing gives the verdict on one target in one topic with all that it rests
// on; ok is false where nobody claims the target itself. It costs a look-up.
func (l *Ledger) Standing(name ban.Topic, target ban.Target) (s Standing, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	topic, ok := l.table.topics[name]
	if !ok {
		return Standing{}, false
	}
	r, ok := l.table.find(topic, target)
	if !ok {
		return Standing{}, false
	}
	return l.standing(r, l.now()), true
}

// Stats are the numbers of a ledger's entries.
type Stats struct {
	Targets   int `json:"targets"`
	Claims    int `json:"claims"`
	Own       int `json:"own"`
	Feeds     int `json:"feeds"`
	Banned    int `json:"banned"`
	Watched   int `json:"watched"`
	Suspected int `json:"suspected"`
	// Waiting and Dropped count claims of peers that do not count yet, and those
	// that are not kept.
	Waiting int `json:"waiting"`
	Dropped int `json:"dropped"`
}

// Stats counts, by looking at every record.
func (l *Ledger) Stats() Stats {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now().Unix()
	s := Stats{
		Targets: l.table.targets(), Claims: l.table.live,
		Own: l.feeds.own(), Feeds: len(l.feeds.numbers),
	}
	for _, state := range l.feeds.peers {
		s.Waiting += state.waiting
		s.Dropped += state.dropped
	}
	for i := range l.table.all.len() {
		rec := l.table.all.at(i)
		if rec.kind == ban.KindNone || int64(rec.until) <= now {
			continue
		}
		switch rec.action {
		case policy.Ban:
			s.Banned++
		case policy.Watch:
			s.Watched++
		case policy.Suspect:
			s.Suspected++
		}
	}
	return s
}
