package policy

import (
	"time"

	"banmesh/internal/ban"
)

// cautionTTL is how long a shared address is watched: the next customer behind
// it is someone else.
const cautionTTL = time.Hour

// usual is how many votes are judged without allocating: most targets have
// fewer.
const usual = 8

// Judge gives the verdict. It is pure: the same question has the same answer,
// in whatever order the votes are listed.
func (p *Policy) Judge(q Question) Verdict {
	if why, ok := protects(q.NeverBan, q.Target); ok {
		return Verdict{Why: ReasonNeverBan, Rule: why}
	}
	if why, ok := protects(q.Allowed, q.Target); ok {
		return Verdict{Why: ReasonExempt, Rule: why}
	}
	now, own := q.Now.Unix(), int64(0)
	for i := range q.Votes {
		if v := &q.Votes[i]; v.Own {
			own = max(own, v.End.Unix())
		}
	}
	var remote Verdict
	if why, ok := protects(q.NeverPeers, q.Target); ok {
		remote = Verdict{Why: ReasonNeverBan, Rule: why}
	} else if why, ok := protects(q.Exempt, q.Target); ok {
		remote = Verdict{Why: ReasonExempt, Rule: why}
	} else {
		remote = p.judgeRemote(&q, now)
	}
	if own <= now {
		return remote
	}
	local := Verdict{Action: Ban, Until: time.Unix(own, 0), Why: ReasonLocal, Rule: "local"}
	if remote.Action == Ban {
		// Both hold; the later end is when the ban lapses.
		if remote.Until.After(local.Until) {
			local.Until = remote.Until
		}
		local.By = remote.By
	}
	return local
}

func protects(p Protection, t ban.Target) (string, bool) {
	if p == nil {
		return "", false
	}
	return p.Protects(t)
}

// judgeRemote is the verdict without the node's own bans.
func (p *Policy) judgeRemote(q *Question, now int64) Verdict {
	r := p.topics[q.Topic]
	var strongRoom, fullRoom, allRoom [usual]ballot
	strong := strongRoom[:0] // what counts for a ban
	full := fullRoom[:0]     // and what would, were it not held or new
	all := allRoom[:0]       // and what is at least worth watching
	remote, held := false, false
	for i := range q.Votes {
		v := &q.Votes[i]
		if v.Own {
			continue
		}
		remote = true
		if r == nil {
			break
		}
		b := r.ballot(v)
		switch p.counts(r, v, now) {
		case ReasonNone:
			strong, full, all = append(strong, b), append(full, b), append(all, b)
		case ReasonHeld:
			held = true
			b.held = true
			full, all = append(full, b), append(all, b)
		case ReasonProbation:
			full, all = append(full, b), append(all, b)
		case ReasonEvidence:
			all = append(all, b)
		}
	}
	switch {
	case !remote:
		return Verdict{}
	case r == nil:
		return Verdict{Why: ReasonNoRule}
	case len(all) == 0:
		return Verdict{Why: ReasonNoQuorum}
	}

	shared, cautious := protects(q.Caution, q.Target)
	// why is the reason for not banning what the rule would ban; until bounds
	// how long that reason can stand.
	why, rule, until := ReasonNoQuorum, "", int64(0)
	if met, end := r.ban.lapse(r, strong, now); met != nil {
		disputed, settled := r.disputed(q.Disputes, now)
		switch {
		case disputed != nil:
			why, rule, until = ReasonDisputed, disputed.text, settled
		case cautious:
			return watch(q, strong, met, end, ReasonCaution, shared, cautious)
		default:
			return Verdict{Action: Ban, Until: time.Unix(end, 0), Why: ReasonQuorum, Rule: met.text, By: met.by(q, strong, now)}
		}
	} else if len(full) > len(strong) {
		if held {
			if met, end := r.ban.lapse(r, full, now); met != nil {
				why, rule, until = ReasonHeld, met.text, end
			}
			full = unheld(full)
		}
		if met, end := r.ban.lapse(r, full, now); met != nil {
			return watch(q, full, met, end, ReasonProbation, shared, cautious)
		}
	}

	// What is disputed or held is still watched where the watch rule says so:
	// that harms nobody who does nothing here.
	met, end := r.watch.lapse(r, all, now)
	switch {
	case met != nil && why == ReasonNoQuorum:
		return watch(q, all, met, end, ReasonWatched, shared, cautious)
	case met != nil:
		v := watch(q, all, met, min(end, until), why, shared, cautious)
		if v.Why == why {
			v.Rule = rule
		}
		return v
	case why == ReasonHeld:
		return Verdict{Action: Hold, Until: time.Unix(until, 0), Why: why, Rule: rule}
	case why == ReasonDisputed:
		return Verdict{Until: time.Unix(until, 0), Why: why, Rule: rule}
	}
	return Verdict{Why: why}
}

// watch is the verdict of a part of a rule that is met and does not ban. A
// shared address is watched for a short time only.
func watch(q *Question, ballots []ballot, met *node, end int64, why Reason, shared string, cautious bool) Verdict {
	rule, now := met.text, q.Now.Unix()
	if cautious {
		if end = min(end, newest(ballots)+int64(cautionTTL/time.Second)); end <= now {
			return Verdict{Why: ReasonCaution, Rule: shared}
		}
		if why != ReasonDisputed && why != ReasonHeld {
			why, rule = ReasonCaution, shared
		}
	}
	return Verdict{Action: Watch, Until: time.Unix(end, 0), Why: why, Rule: rule, By: met.by(q, ballots, now)}
}

// counts says what a remote vote is worth: [ReasonNone] for a ban,
// [ReasonHeld], [ReasonProbation] and [ReasonEvidence] for watching only,
// anything else for nothing.
func (p *Policy) counts(r *rules, v *Vote, now int64) Reason {
	switch {
	case v.Quarantined:
		return ReasonQuarantine
	case v.End.Unix() <= now:
		return ReasonExpired
	case r.tooWide(v.Target):
		return ReasonPrefix
	case !r.knows(v.Operator):
		return ReasonUnknown
	case v.Since.Unix()+int64(r.confirmedTTL/time.Second) <= now:
		return ReasonExpired
	case int(v.Hits) < r.evidence.hits, r.evidence.established && !v.Established:
		return ReasonEvidence
	case v.Held:
		return ReasonHeld
	}
	if op := p.operators[v.Operator]; op != nil && op.probation.Unix() > now {
		return ReasonProbation
	}
	return ReasonNone
}

// Counts says why a vote does not count in full for a ban, or [ReasonNone].
func (p *Policy) Counts(topic ban.Topic, v Vote, now time.Time) Reason {
	switch r := p.topics[topic]; {
	case v.Own && v.End.After(now):
		return ReasonNone
	case v.Own:
		return ReasonExpired
	case r == nil:
		return ReasonNoRule
	default:
		return p.counts(r, &v, now.Unix())
	}
}

// Accepts says whether the topic's rules would look at a claim of target at
// all.
func (p *Policy) Accepts(topic ban.Topic, target ban.Target) bool {
	r := p.topics[topic]
	return r != nil && !r.tooWide(target)
}

func (r *rules) tooWide(t ban.Target) bool {
	p, ok := t.Prefix()
	if !ok {
		return false
	}
	if p.Addr().Is4() {
		return p.Bits() < r.prefix4
	}
	return p.Bits() < r.prefix6
}

func (r *rules) knows(o ban.Operator) bool { return r.everyone.members[o] != nil }

// disputed gives the part of the dispute rule that is met, and until when.
func (r *rules) disputed(disputes []Dispute, now int64) (*node, int64) {
	if r.dispute == nil || len(disputes) == 0 {
		return nil, 0
	}
	ballots := make([]ballot, 0, len(disputes))
	for _, d := range disputes {
		if end := d.End.Unix(); end > now {
			ballots = append(ballots, ballot{operator: d.Operator, end: end, capped: end, long: end})
		}
	}
	arrange(ballots, byEnd)
	return r.dispute.met(ballots, now)
}

func newest(ballots []ballot) (since int64) {
	for i := range ballots {
		since = max(since, ballots[i].since)
	}
	return since
}

func unheld(ballots []ballot) []ballot {
	kept := ballots[:0]
	for i := range ballots {
		if !ballots[i].held {
			kept = append(kept, ballots[i])
		}
	}
	return kept
}
