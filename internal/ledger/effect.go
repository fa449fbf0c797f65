package ledger

import (
	"iter"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Effect says which bans would begin and end with another policy, by the claims
// that are held now. Nothing changes.
func (l *Ledger) Effect(next *policy.Policy) policy.Effect {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return policy.Compare(l.questions(), l.policy, next)
}

// questions gives policy's question about every target. Their votes are valid
// until the next one.
func (l *book) questions() iter.Seq[policy.Question] {
	return func(yield func(policy.Question) bool) {
		now := l.now()
		var votes []policy.Vote
		for r := range l.table.all.len() {
			if rec := l.table.all.at(r); rec.kind == ban.KindNone || rec.votes == 0 {
				continue
			}
			q := l.question(r, now, votes[:0])
			votes = q.Votes
			if !yield(q) {
				return
			}
		}
	}
}

// EffectOfUndo says which bans would end if an operator's claims counted for
// nothing, by the claims that are held now. Nothing changes.
func (l *Ledger) EffectOfUndo(o ban.Operator) (e policy.Effect) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for q := range l.questions() {
		q.Brief = true
		if l.policy.Judge(q).Action != policy.Ban {
			continue
		}
		for i := range q.Votes {
			if q.Votes[i].Operator == o && !q.Votes[i].Own {
				q.Votes[i].Quarantined = true
			}
		}
		if l.policy.Judge(q).Action != policy.Ban {
			e.End++
		}
	}
	return e
}

// EffectOfShields says which targets that the never-ban sets keep from being banned
// would be banned with others, one against every claim and one against
// those of others. Nothing changes.
func (l *Ledger) EffectOfShields(next *policy.Policy, everyone, peers policy.Protection) (e policy.Effect) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	for q := range l.questions() {
		if l.policy.Judge(q).Why != policy.ReasonNeverBan {
			continue
		}
		q.NeverBan, q.NeverPeers = everyone, peers
		v := next.Judge(q)
		if v.Action != policy.Ban {
			continue
		}
		if e.Begin++; len(e.Begins) < policy.MaxSamples {
			e.Begins = append(e.Begins, policy.Sample{Topic: q.Topic, Target: q.Target, Why: v.Why, Rule: v.Rule, Until: v.Until})
		}
	}
	return e
}
