package ledger

import (
	"math"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// question gathers what a verdict on a record depends on. votes is appended to
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
		Held: v.hold() != counted, Quarantined: feed.quarantined,
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

// enforced is the end that enforcers should know, or 0.
func (rec *record) enforced(now time.Time) uint32 {
	if rec.action == policy.Ban && int64(rec.until) > now.Unix() {
		return rec.until
	}
	return 0
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
// lie in memory: with a million of them that is what it costs.
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

// Expire does what is due: verdicts that lapse, exemptions and probations that
// end. It costs nothing for what is not due. Call it about once a second; a
// late call is harmless, since kernels time their bans themselves and every
// reading method compares with the clock.
func (l *Ledger) Expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.exempt.expire(now) || !l.nextAll.IsZero() && !now.Before(l.nextAll) {
		l.nextAll = l.policy.NextProbation(now)
		l.evaluateAll(now)
	}
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
			l.evaluateTopic(topic, now)
		}
	})
	l.Peers.tidy(now)
	l.notify()
}

// Enforced is a ban that enforcers should hold.
type Enforced struct {
	Topic  ban.Topic
	Target ban.Target
	Until  time.Time
	// Class is the kind of offence of the claim that lasts longest, this node's
	// own first. Own says that this node claims it. Both are for readers of lists.
	Class ban.Class
	Own   bool
}

// enforcedAs describes a record that is to be banned until then.
func (l *Enforcement) enforcedAs(r uint32, until time.Time) Enforced {
	e := Enforced{Topic: l.table.topicName(r), Target: l.table.target(r), Until: until}
	var longest uint32
	now := l.now()
	for v := range l.table.votesOf(r) {
		if !v.inForce(now) {
			continue
		}
		if isOwn(v.feed) && !e.Own {
			e.Class, e.Own, longest = v.class(), true, v.end
		} else if isOwn(v.feed) == e.Own && v.end >= longest {
			e.Class, longest = v.class(), v.end
		}
	}
	return e
}

// An Origin is on whose word a ban in force rests.
type Origin struct {
	Own bool // this node's
	// Operators are those whose claims meet the rule, longest first.
	Operators []ban.Operator
}

// Origin says on whose word a ban in force rests; it is empty where there is
// none. It is the enforcers' question, asked once a ban, and costs one verdict.
func (l *Enforcement) Origin(name ban.Topic, target ban.Target) (o Origin) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	topic, ok := l.table.topics[name]
	if !ok {
		return o
	}
	r, ok := l.table.find(topic, target)
	if !ok {
		return o
	}
	v := l.policy.Judge(l.question(r, l.now(), nil))
	if v.Action != policy.Ban {
		return o
	}
	return Origin{Own: v.Why == policy.ReasonLocal, Operators: v.By}
}

// InForce gives up to most bans of a topic that enforcers hold or will.
func (l *Enforcement) InForce(name ban.Topic, most int) (list []Enforced) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	topic, ok := l.table.topics[name]
	if !ok {
		return nil
	}
	now := l.now()
	for r := range l.table.records(topic) {
		if len(list) == most {
			break
		}
		if until := l.table.all.at(r).enforced(now); until != 0 {
			list = append(list, l.enforcedAs(r, time.Unix(int64(until), 0)))
		}
	}
	return list
}

// A Change is a step of the desired state. With Ban the target is to be banned
// until Until, whether or not it is banned already; without, it is to be free.
type Change struct {
	Enforced
	Ban bool
}

// Desired gives the whole desired state. From then on [Enforcement.Take] gives what
// changes after it.
func (l *Enforcement) Desired() []Enforced {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	list := make([]Enforced, 0, l.banned(now))
	for topic := range l.table.byTopic {
		for r := range l.table.records(topic) {
			rec := l.table.all.at(r)
			rec.dirty = false
			rec.told = rec.enforced(now)
			if rec.told != 0 {
				list = append(list, l.enforcedAs(r, time.Unix(int64(rec.told), 0)))
			} else if rec.votes == 0 {
				l.table.drop(r)
			}
		}
	}
	l.dirty = nil
	return list
}

// Changed receives a value when there may be something to [Enforcement.Take].
func (l *Enforcement) Changed() <-chan struct{} { return l.changed }

// Take gives up to most changes of the desired state since the last Take or
// [Enforcement.Desired]. Several changes of a target are one. A ban that lapses by
// itself is given too, as freed.
func (l *Enforcement) Take(most int) []Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var changes []Change
	i := 0
	for ; i < len(l.dirty) && len(changes) < most; i++ {
		r := l.dirty[i]
		rec := l.table.all.at(r)
		if !rec.dirty {
			continue
		}
		rec.dirty = false
		if want := rec.enforced(now); want != rec.told {
			rec.told = want
			change := Change{Ban: want != 0, Enforced: Enforced{Topic: l.table.topicName(r), Target: l.table.target(r)}}
			if change.Ban {
				change.Enforced = l.enforcedAs(r, time.Unix(int64(want), 0))
			}
			changes = append(changes, change)
		}
		if rec.votes == 0 && rec.told == 0 {
			l.table.drop(r)
		}
	}
	l.dirty = l.dirty[i:]
	if len(l.dirty) == 0 {
		l.dirty = nil // let a burst's memory go
	} else {
		l.notify()
	}
	return changes
}

// notify wakes whoever waits for changes. The lock is held.
func (l *book) notify() {
	if len(l.dirty) > 0 {
		select {
		case l.changed <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}

// Watched says whether a target's first offence should ban it: it, or a prefix
// around it, is watched, or it is banned already.
func (l *Ledger) Watched(topic ban.Topic, target ban.Target) bool {
	return l.Action(topic, target) >= policy.Watch
}

// BannedAt says whether a ban of this node's own of a target, or of a prefix
// around it, was in force at a time, as far as it still is or has just ended.
func (l *Ledger) BannedAt(topic ban.Topic, target ban.Target, at time.Time) (banned bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return false
	}
	look := func(r uint32) {
		for v := range l.table.votesOf(r) {
			banned = banned || isOwn(v.feed) && int64(v.since) <= at.Unix() && v.inForce(at)
		}
	}
	if r, ok := l.table.find(t, target); ok {
		look(r)
	}
	l.table.around(t, target, look)
	return banned
}

// Suspected says whether a target's second offence should ban it.
func (l *Ledger) Suspected(topic ban.Topic, target ban.Target) bool {
	return l.Action(topic, target) == policy.Suspect
}

// Action gives what is done about a target in a topic now: the strongest of
// its own verdict and those of the prefixes around it.
func (l *Ledger) Action(topic ban.Topic, target ban.Target) (action policy.Action) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return policy.Ignore
	}
	now := l.now().Unix()
	look := func(r uint32) {
		if rec := l.table.all.at(r); int64(rec.until) > now {
			action = max(action, rec.action)
		}
	}
	if r, ok := l.table.find(t, target); ok {
		look(r)
		// A shield of the target itself stands above what surrounds it.
		if why := l.table.all.at(r).why; why == policy.ReasonNeverBan || why == policy.ReasonExempt {
			return action
		}
	}
	l.table.around(t, target, look)
	return action
}
