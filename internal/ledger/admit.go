package ledger

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// admit decides whether a new vote counts at once or has to wait, and notes to
// write down when it arrived.
func (l *Peers) admit(r uint32, f uint16, v *vote, how *arrival, now time.Time) {
	state := &l.feeds.list[f]
	key := l.feeds.keyOf(state.feed)
	b, limits := l.feeds.budget(state.feed), l.policy.LimitsOf(state.feed.Topic, state.feed.Operator)
	v.since = seconds(now)
	l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, voteAt{r, f})
	l.feeds.pending.feed(f, &l.feeds)
	l.feeds.pending.budget(key)
	switch approved := b.Approved.After(now); {
	case l.alsoCounts(r, v):
		// Another of the operator's nodes said so before.
	case how.join && b.mayJoin(limits, now):
		// Its probation and the budget of live bans are guard enough; it has no
		// usual rate yet.
		b.Free++
		b.Guard.Join(now)
		if !l.room(b, r, v, now) {
			l.setHold(r, v, queued)
		}
	case !approved && !b.Guard.Add(limits, now):
		if state.waiting == 0 {
			l.log.Warn("a peer adds more than usual, and waits for approval", "feed", state.feed.String())
		}
		l.setHold(r, v, guarded)
	case !l.room(b, r, v, now):
		l.setHold(r, v, queued)
	}
}

// room asks an operator's budget for a vote's claim.
func (l *Peers) room(b *budget, r uint32, v *vote, now time.Time) bool {
	return b.Take(l.policy.LimitsOf(l.table.topicName(r), l.feeds.list[v.feed].feed.Operator), l.table.target(r), l.basisFor(b, v, now), now)
}

// basisFor is the basis on which a budget takes a vote's claim: one that a
// person approved is no longer its author's decision alone.
func (l *Peers) basisFor(b *budget, v *vote, now time.Time) ban.Basis {
	if b.Approved.After(now) {
		return ban.BasisStrong
	}
	return ban.Basis(v.flags & basisMask)
}

// enqueue lets a vote wait for room. Decisions, of which few are let in a day,
// have a queue of their own, so that nothing else waits behind them.
func (l *book) enqueue(r uint32, v *vote) {
	b := l.feeds.budget(l.feeds.list[v.feed].feed)
	if policy.Rationed(l.table.target(r), ban.Basis(v.flags&basisMask)) {
		b.decisions = append(b.decisions, voteAt{r, v.feed})
	} else {
		b.queue = append(b.queue, voteAt{r, v.feed})
	}
}

// alsoCounts says whether another counted vote on the record uses the same
// budget. A target that several nodes of a peer claim uses it once.
func (l *book) alsoCounts(r uint32, v *vote) bool {
	key := l.feeds.keyOf(l.feeds.list[v.feed].feed)
	for w := range l.table.votesOf(r) {
		if w != v && !isOwn(w.feed) && w.hold() == counted && l.feeds.keyOf(l.feeds.list[w.feed].feed) == key {
			return true
		}
	}
	return false
}

// holdTexts say for a note why claims begin to wait.
var holdTexts = map[hold]string{
	guarded: "claims wait for approval: the peer adds more than usual",
	queued:  "claims wait for room in the peer's budget",
}

// setHold puts a vote that was counted or is new into a state: one that counts
// uses the budget without asking.
func (l *Peers) setHold(r uint32, v *vote, h hold) {
	state := &l.feeds.list[v.feed]
	b := l.feeds.budget(state.feed)
	if h == counted {
		if !l.alsoCounts(r, v) {
			b.Use(l.table.target(r))
		}
		return
	}
	if state.turn(v, h); h != rejected && state.waiting == 1 {
		l.tell(Note{Kind: NoteHold, Operator: state.feed.Operator, Topic: state.feed.Topic, Target: l.table.target(r), Why: holdTexts[h]})
	}
	if h == queued {
		l.enqueue(r, v)
	}
}

// withdraw removes the feed's claim of a record's target, if it makes one.
func (l *book) withdraw(r uint32, f uint16) bool {
	v := l.table.vote(r, f)
	if v == nil {
		return false
	}
	state := &l.feeds.list[f]
	state.live--
	if !isOwn(f) {
		b := l.feeds.budget(state.feed)
		b.stored--
		if v.hold() != counted {
			state.count(v.hold(), -1)
		} else if !l.alsoCounts(r, v) {
			b.Give(l.table.target(r))
		}
	}
	return l.table.removeVote(r, f)
}

// release lets queued votes count, in the order of their arrival, as far as
// their operator's budget has room.
func (l *Peers) release(key budgetKey, b *budget, now time.Time) {
	topic, ok := l.table.topics[key.topic]
	if !ok {
		b.queue, b.decisions = nil, nil
		return
	}
	b.queue = l.releaseFrom(b.queue, key, topic, b, now)
	b.decisions = l.releaseFrom(b.decisions, key, topic, b, now)
}

// releaseFrom gives the rest of a queue.
func (l *Peers) releaseFrom(queue []voteAt, key budgetKey, topic int, b *budget, now time.Time) []voteAt {
	limits := l.policy.LimitsOf(key.topic, key.operator)
	for ; len(queue) > 0; queue = queue[1:] {
		q := queue[0]
		v, ok := l.queuedVote(q, topic)
		if !ok {
			continue
		}
		also := l.alsoCounts(q.record, v)
		if !also && !b.Fits(limits, l.table.target(q.record), l.basisFor(b, v, now), now) {
			return queue
		}
		// The rate is used only for a claim that has room.
		if !b.Approved.After(now) && !b.Guard.Room(limits, now) {
			return queue
		}
		if !also {
			l.room(b, q.record, v, now)
		}
		l.countsNow(q, v)
		l.feeds.pending.budget(key)
	}
	return nil
}

// countsNow lets a vote count that waited and for which the budget has room.
func (l *Peers) countsNow(at voteAt, v *vote) {
	l.feeds.list[at.feed].turn(v, counted)
	l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, at)
	l.feeds.pending.touch(l.book, at.record)
}

// queuedVote finds a vote of a queue that still waits.
func (l *Peers) queuedVote(q voteAt, topic int) (*vote, bool) {
	rec := l.table.all.at(q.record)
	if rec.kind == ban.KindNone || int(rec.topic) != topic {
		return nil, false
	}
	v := l.table.vote(q.record, q.feed)
	return v, v != nil && v.hold() == queued
}

// guardOpens is how long a guard holds without a person. Then the claims that
// wait for it come in at their operator's hourly rate.
const guardOpens = 24 * time.Hour

// openGuards lets those guards go that have held for long enough.
func (l *Peers) openGuards(now time.Time) {
	var due map[budgetKey]bool
	for key, b := range l.feeds.budgets {
		if b.Guard.Holds && now.Sub(b.Guard.Since) >= guardOpens {
			if due == nil {
				due = map[budgetKey]bool{}
			}
			due[key] = true
		}
	}
	if due == nil {
		return
	}
	for r := range l.table.all.len() {
		for v := range l.table.votesOf(r) {
			feed := l.feeds.list[v.feed].feed
			if v.hold() != guarded || !due[l.feeds.keyOf(feed)] {
				continue
			}
			l.feeds.list[v.feed].turn(v, queued)
			l.enqueue(r, v)
			l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, voteAt{r, v.feed})
		}
	}
	for key := range due {
		l.feeds.budgets[key].Guard.Approve(now)
		l.feeds.pending.budget(key)
		l.log.Info("a peer that waited for approval comes in at its hourly rate", "operator", l.nameOf(key.operator), "topic", string(key.topic))
	}
}
