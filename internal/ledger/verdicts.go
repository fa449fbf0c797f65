package ledger

import (
	"math"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// question gathers everything that a verdict on a record depends on. votes is appended to
// and becomes part of the answer.
func (l *book) question(r uint32, now time.Time, votes []policy.Vote) policy.Question {
	target := l.table.target(r)
	topic := int(l.table.all.at(r).topic)
	votes = l.appendVotes(votes, r, target)
	l.table.around(topic, target, func(wider uint32) {
		votes = l.appendVotes(votes, wider, l.table.target(wider))
	})
	return policy.Question{
		Topic:      l.table.topicName(r),
		Target:     target,
		Votes:      votes,
		Disputes:   l.disputesOf(topic, target),
		NeverBan:   l.never,
		NeverPeers: l.neverPeers,
		Guests:     l.guests,
		Allowed:    l.exempt.allowed,
		Exempt:     l.exempt.exempt(l.table.topicName(r)),
		Caution:    l.caution,
		Now:        now,
	}
}

func (l *book) appendVotes(votes []policy.Vote, r uint32, on ban.Target) []policy.Vote {
	for v := range l.table.votesOf(r) {
		votes = append(votes, l.policyVote(v, on))
	}
	return votes
}

func (l *book) policyVote(v *vote, on ban.Target) policy.Vote {
	feed := &l.feeds.list[v.feed]
	return policy.Vote{
		Claim: v.claim(on), Operator: feed.feed.Operator, Own: isOwn(v.feed), Since: time.Unix(int64(v.since), 0),
		Held: v.hold() == queued || v.hold() == guarded, Rejected: v.hold() == rejected, Quarantined: feed.quarantined,
	}
}

// evaluate asks policy about a record again, and about the single IPv6
// addresses inside it. It frees a record that nothing is left of.
func (l *book) evaluate(r uint32, now time.Time) {
	if l.loading {
		return
	}
	rec := l.table.all.at(r)
	if rec.kind == ban.KindNet6 {
		x := l.table.byTopic[rec.topic]
		for _, inside := range slices.Clone(x.under[key6(l.table.target(r))]) {
			l.evaluateOne(inside, now)
		}
	}
	l.evaluateOne(r, now)
}

func (l *book) evaluateOne(r uint32, now time.Time) {
	latest, kept := l.prune(r, now)
	rec := l.table.all.at(r)
	var verdict policy.Verdict
	// A target that nobody claims any longer is no entry of its own, whatever
	// contains it.
	if rec.votes != 0 && int64(latest) > now.Unix() {
		q := l.question(r, now, l.scratch[:0])
		q.Brief = true
		l.scratch = q.Votes
		verdict = l.policy.Judge(q)
	}
	switch {
	case rec.since == 0:
		// The first time in this process. After a restart that is not when it
		// began: that was when the last of its claims arrived.
		rec.since = seconds(now)
		if arrived := l.arrived(r, verdict.Why == policy.ReasonLocal); arrived != 0 {
			rec.since = min(rec.since, arrived)
		}
	case rec.action != verdict.Action:
		rec.since = seconds(now)
	}
	rec.action, rec.why, rec.until = verdict.Action, verdict.Why, 0
	if !verdict.Until.IsZero() {
		// Claims of a wider prefix may last longer than all of the target's own;
		// then it is theirs to ban or not.
		latest = min(latest, seconds(verdict.Until))
		rec.until = latest
	}
	if rec.enforced(now) != rec.told && !rec.dirty {
		rec.dirty = true
		l.dirty = append(l.dirty, r)
	}
	if int64(latest) <= now.Unix() {
		latest = kept
	}
	if rec.votes != 0 {
		l.wheel.schedule(r, rec, min(latest, l.nextToTell(r)))
	} else if !rec.dirty && rec.told == 0 {
		l.table.drop(r)
	}
}

// arrived is when the last of a record's claims arrived, or of its own ones
// alone, or 0.
func (l *book) arrived(r uint32, own bool) (latest uint32) {
	for v := range l.table.votesOf(r) {
		if (isOwn(v.feed) || !own) && v.inForce(l.now()) {
			latest = max(latest, v.since)
		}
	}
	return latest
}

// nextToTell is when this node's feed has to say something else of a record's
// target: when the first of several own claims ends. It is never where there are
// not several.
func (l *book) nextToTell(r uint32) uint32 {
	first, own := uint32(math.MaxUint32), 0
	for v := range l.table.votesOf(r) {
		if isOwn(v.feed) {
			own++
			first = min(first, v.told())
		}
	}
	if own < 2 {
		return math.MaxUint32
	}
	return first
}

// prune removes ended claims and gives the latest end of those that are left,
// and until when one of them is kept.
func (l *book) prune(r uint32, now time.Time) (latest, kept uint32) {
	for again := true; again; {
		again, latest, kept = false, 0, 0
		for v := range l.table.votesOf(r) {
			if !v.kept(now) {
				own := isOwn(v.feed)
				l.withdraw(r, v.feed)
				if _, ok := l.ownClaim(r, now); own && ok {
					// Another source says so for less, or until later.
					l.ownDirty[place{l.table.topicName(r), l.table.target(r)}] = ban.ReasonEnded
					l.notifyOwn()
				}
				again = true
				break
			}
			latest, kept = max(latest, v.end), max(kept, v.end)
			if isOwn(v.feed) {
				kept = max(kept, v.told())
			}
		}
	}
	return latest, kept
}

// evaluateTopic asks policy about every target of a topic again.
func (l *book) evaluateTopic(topic int, now time.Time) {
	if l.loading {
		return
	}
	for r := range l.table.records(topic) {
		l.evaluateOne(r, now)
	}
}

// evaluateAll asks policy about every target again, in the order in which they
// lie in memory: with a million of them the order decides the cost.
func (l *book) evaluateAll(now time.Time) {
	if l.loading {
		return
	}
	for r := range l.table.all.len() {
		if l.table.all.at(r).kind != ban.KindNone {
			l.evaluateOne(r, now)
		}
	}
	l.notify()
}

// Expire ends verdicts, exemptions and probations whose time has come. It costs
// nothing for those whose time has not. Call it about once a second; a
// late call is harmless, since kernels time their bans themselves and every
// reading method compares with the clock.
func (l *Ledger) Expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exempt.expire(now) || !l.nextAll.IsZero() && !now.Before(l.nextAll) {
		l.nextAll = l.policy.NextProbation(now)
		l.evaluateAll(now)
	}
	// Prefixes often end together, as those of a list do: each topic is looked at once.
	topics := map[int]struct{}{}
	l.wheel.drain(now, func(r uint32, slot uint32) {
		rec := l.table.all.at(r)
		if rec.kind == ban.KindNone || rec.wake != slot {
			return // freed or scheduled anew since
		}
		rec.wake = 0
		wide := l.isWide(r)
		topic := int(rec.topic)
		l.evaluate(r, now)
		if wide {
			topics[topic] = struct{}{}
		}
	})
	for topic := range topics {
		l.evaluateTopic(topic, now)
	}
	l.Peers.tidy(now)
	if err := l.Own.clean(now); err != nil {
		l.log.Error("the journal of own bans is not shortened", "error", err)
	}
	l.notify()
}
