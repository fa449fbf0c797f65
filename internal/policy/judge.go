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
	remote := p.judgeOthers(&q, now)
	if own <= now {
		return remote
	}
	local := Verdict{Action: Ban, Until: time.Unix(own, 0), Why: ReasonLocal, Rule: "local"}
	return local.beside(remote)
}

// beside is a verdict of this node or its operator that stands whatever the
// others say: where they ban too, the later end is when the ban lapses.
func (v Verdict) beside(others Verdict) Verdict {
	switch {
	case v.Action < others.Action:
		return others
	case v.Action == Ban && others.Action == Ban:
		if others.Until.After(v.Until) {
			v.Until = others.Until
		}
		v.By = others.By
	}
	return v
}

func protects(p Protection, t ban.Target) (string, bool) {
	if p == nil {
		return "", false
	}
	return p.Protects(t)
}

// judgeOthers is the verdict without this node's own bans: that of its
// operator's other nodes, that of the peers and that of imports.
func (p *Policy) judgeOthers(q *Question, now int64) Verdict {
	if why, ok := protects(q.NeverPeers, q.Target); ok {
		return Verdict{Why: ReasonNeverBan, Rule: why}
	}
	if why, ok := protects(q.Exempt, q.Target); ok {
		return Verdict{Why: ReasonExempt, Rule: why}
	}
	r := p.topics[q.Topic]
	guest, isGuest := protects(q.Guests, q.Target)
	var siblings, peers Verdict
	if r != nil && r.accepted {
		siblings = p.judgeSiblings(r, q, now, isGuest)
	}
	if isGuest {
		peers = Verdict{Why: ReasonGuest, Rule: guest}
	} else {
		peers = p.judgePeers(r, q, now)
	}
	if !isGuest {
		peers = peers.and(p.judgeImports(q, now))
	}
	if siblings.Action == Ignore {
		return peers
	}
	return siblings.beside(peers)
}

// judgeSiblings is the verdict of this operator's other nodes. A person's
// decision there holds for guests here too.
func (p *Policy) judgeSiblings(r *rules, q *Question, now int64, guest bool) (s Verdict) {
	for i := range q.Votes {
		v := &q.Votes[i]
		if v.Own || !p.speaks(r, v.Operator) {
			continue
		}
		why, _ := p.counts(r, v, now)
		action := Ban
		switch why {
		case ReasonNone, ReasonSecond, ReasonEvidence:
		case ReasonWeak:
			if v.Held || !v.unconfirmed() {
				action = Watch
			}
		case ReasonHeld:
			action = Watch
		default:
			continue
		}
		if guest && v.Basis != ban.BasisDecided {
			continue
		}
		end := time.Unix(r.ballot(v).end, 0)
		if action > s.Action || action == s.Action && end.After(s.Until) {
			s = Verdict{Action: action, Until: end, Why: ReasonOwnOperator, Rule: "own operator"}
		}
	}
	return s
}

// unconfirmed says that a claim is weak for one reason alone: no kernel could
// be asked for the connections. It is a ban where it was made, as of a service
// behind a proxy on another machine; a mere sighting is told where the kernel
// confirmed it.
func (v *Vote) unconfirmed() bool {
	return v.Basis == ban.BasisWeak && !v.Established && v.Class != ban.ClassScanWeak
}

// judgePeers is the verdict of the other operators.
func (p *Policy) judgePeers(r *rules, q *Question, now int64) Verdict {
	var countedRoom, fullRoom, allRoom [usual]ballot
	counted := countedRoom[:0] // count for a ban
	full := fullRoom[:0]       // and would, were they not held or new
	all := allRoom[:0]         // and are at least worth watching
	claimed := false
	for i := range q.Votes {
		v := &q.Votes[i]
		if v.Own || p.imported[v.Operator] != nil || r != nil && p.speaks(r, v.Operator) {
			continue
		}
		claimed = true
		if r == nil {
			return Verdict{Why: ReasonNoRule}
		}
		b := r.ballot(v)
		var why Reason
		why, b.first = p.counts(r, v, now)
		switch why {
		case ReasonNone, ReasonSecond:
			counted, full, all = append(counted, b), append(full, b), append(all, b)
		case ReasonHeld, ReasonProbation:
			b.held = why == ReasonHeld
			full, all = append(full, b), append(all, b)
		case ReasonEvidence:
			all = append(all, b)
		case ReasonWeak:
			b.weak = true
			all = append(all, b)
		}
	}
	if !claimed {
		return Verdict{}
	}
	arrange(counted)
	// Nearly always all claims count: then they are arranged already.
	if len(full) == len(counted) {
		full = counted
	} else {
		arrange(full)
	}
	if len(all) == len(counted) {
		all = counted
	} else {
		arrange(all)
	}
	return p.weigh(r, q, now, counted, full, all)
}

// weigh asks the rules of a topic, the strictest first.
func (p *Policy) weigh(r *rules, q *Question, now int64, counted, full, all []ballot) Verdict {
	shared, cautious := protects(q.Caution, q.Target)
	why, rule, until := ReasonNoQuorum, "", int64(0)
	if met, end := r.ban.lapse(tally{counted, now, true}); met != nil {
		disputed, settled := r.disputed(q.Disputes, now)
		switch {
		case disputed != nil:
			why, rule, until = ReasonDisputed, disputed.text, settled
		case cautious:
			return q.notice(Watch, tally{counted, now, true}, met, end, ReasonCaution, shared, cautious)
		default:
			return Verdict{Action: Ban, Until: time.Unix(end, 0), Why: ReasonQuorum, Rule: met.text, By: q.by(met, tally{counted, now, true})}
		}
	} else if len(full) > len(counted) {
		// Claims that wait or are new are watched at least, where they would ban.
		if met, end := r.ban.lapse(tally{full, now, true}); met != nil {
			reason := ReasonHeld
			if unheld := unheld(full); len(unheld) > 0 {
				if new, newEnd := r.ban.lapse(tally{unheld, now, true}); new != nil {
					met, end, full, reason = new, newEnd, unheld, ReasonProbation
				}
			}
			return q.notice(Watch, tally{full, now, true}, met, end, reason, shared, cautious)
		}
	}
	for _, notice := range [...]struct {
		rule   *node
		action Action
		why    Reason
	}{{r.watch, Watch, ReasonWatched}, {r.suspect, Suspect, ReasonSuspect}} {
		t := tally{all, now, false}
		met, end := notice.rule.lapse(t)
		switch {
		case met == nil:
		case why == ReasonNoQuorum:
			return q.notice(notice.action, t, met, end, notice.why, shared, cautious)
		default:
			// A disputed target is still watched: that harms nobody who does
			// nothing here.
			v := q.notice(notice.action, t, met, min(end, until), why, shared, cautious)
			if v.Why == why {
				v.Rule = rule
			}
			return v
		}
	}
	if why == ReasonDisputed {
		return Verdict{Until: time.Unix(until, 0), Why: why, Rule: rule}
	}
	return Verdict{Why: why}
}

func (q *Question) by(met *node, t tally) []ban.Operator {
	if q.Brief {
		return nil
	}
	return met.by(t)
}

// notice is the verdict of a part of a rule that is met and does not ban. A
// shared address is noticed for a short time only.
func (q *Question) notice(action Action, t tally, met *node, end int64, why Reason, shared string, cautious bool) Verdict {
	rule := met.text
	if cautious {
		if end = min(end, newest(t.ballots)+seconds(cautionTTL)); end <= t.now {
			return Verdict{Why: ReasonCaution, Rule: shared}
		}
		if why != ReasonDisputed && why != ReasonHeld {
			why, rule = ReasonCaution, shared
		}
	}
	return Verdict{Action: action, Until: time.Unix(end, 0), Why: why, Rule: rule, By: q.by(met, t)}
}

// disputed gives the part of the dispute rule that is met, and until when.
func (r *rules) disputed(disputes []Dispute, now int64) (*node, int64) {
	if r.dispute == nil || len(disputes) == 0 {
		return nil, 0
	}
	ballots := make([]ballot, 0, len(disputes))
	for _, d := range disputes {
		if end := d.End.Unix(); end > now {
			ballots = append(ballots, ballot{operator: d.Operator, end: end})
		}
	}
	arrange(ballots)
	return r.dispute.lapse(tally{ballots, now, false})
}

func newest(ballots []ballot) (since int64) {
	for i := range ballots {
		since = max(since, ballots[i].since)
	}
	return since
}

func unheld(ballots []ballot) []ballot {
	kept := make([]ballot, 0, len(ballots))
	for i := range ballots {
		if !ballots[i].held {
			kept = append(kept, ballots[i])
		}
	}
	return kept
}
