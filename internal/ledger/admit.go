package ledger

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// upsert stores the feed's claim of a record's target. It reports whether
// anything changed.
func (l *Ledger) upsert(r uint32, f uint16, c ban.Claim, how arrival, now time.Time) bool {
	state := &l.feeds.list[f]
	end := seconds(c.End)
	v := l.table.vote(r, f)
	switch {
	case v == nil:
		v = l.table.addVote(r, f)
		state.live++
		state.changed = true
		l.admit(r, f, v, c.Target, how, now)
	case v.end == end && v.hits == c.Hits && v.class() == c.Class && v.has(flagEstablished) == c.Established:
		v.set(flagGeneration, state.generation)
		return false
	case end > v.end:
		v.since = seconds(now) // renewed: the topic's ttl counts from now
		l.note(r, f)
	}
	v.end, v.hits = end, c.Hits
	v.setClass(c.Class)
	v.set(flagEstablished, c.Established)
	v.set(flagGeneration, state.generation)
	return true
}

// arrival says how a claim came.
type arrival struct {
	known map[ban.Target]knownVote // replayed at start: what was decided then
	join  bool                     // the first that is heard of the operator in the topic
	sweep bool                     // what a Reset does not repeat is withdrawn at its end
}

// admit decides whether a new vote counts at once or has to wait.
func (l *Ledger) admit(r uint32, f uint16, v *vote, target ban.Target, how arrival, now time.Time) {
	state := &l.feeds.list[f]
	b := l.budget(state.feed)
	v.since = seconds(now)
	limits := l.policy.Limits(state.feed.Topic)
	if how.known != nil {
		if k, ok := how.known[target]; ok {
			v.since = k.since
			l.setHold(r, f, v, k.hold, b)
			return
		}
		if state.allowed > 0 {
			state.allowed--
			v.since = state.base
			if !b.Take(limits, target, false, now) {
				l.setHold(r, f, v, queued, nil)
			}
			return
		}
	}
	switch {
	case how.join:
		// Its probation and the budget of live bans are guard enough; it has no
		// usual rate yet. Its arrival is the feed's base, so nothing is noted.
		if b.Take(limits, target, false, now) {
			state.guard.Base++
			return
		}
		l.setHold(r, f, v, queued, nil)
	case !state.guard.Add(limits, state.live-state.held, now):
		if state.held == 0 {
			l.log.Warn("a feed changes more than usual, and waits for approval", "feed", state.feed.String())
		}
		l.setHold(r, f, v, guarded, nil)
		state.changed = true
	case !b.Take(limits, target, true, now):
		l.setHold(r, f, v, queued, nil)
	}
	l.note(r, f)
}

// setHold puts a vote that is not counted yet into a state. With a budget, a
// vote that counts uses it without asking.
func (l *Ledger) setHold(r uint32, f uint16, v *vote, h hold, b *budget) {
	v.setHold(h)
	if h == counted {
		if b != nil {
			b.Use(l.table.target(r))
		}
		return
	}
	l.feeds.list[f].held++
	if h == queued {
		b := l.budget(l.feeds.list[f].feed)
		b.queue = append(b.queue, queuedVote{r, f})
	}
}

// withdraw removes the feed's claim of a record's target.
func (l *Ledger) withdraw(r uint32, f uint16) bool {
	v := l.table.vote(r, f)
	if v == nil {
		return false
	}
	state := &l.feeds.list[f]
	if f != ownFeed {
		if v.hold() == counted {
			l.budget(state.feed).Give(l.table.target(r))
		} else {
			l.waitsNoMore(state)
		}
	}
	state.live--
	state.changed = true
	return l.table.removeVote(r, f)
}

// waitsNoMore counts that one claim of a feed waits no longer. A guard with
// nothing left to ask a person about lets go.
func (l *Ledger) waitsNoMore(state *feedState) {
	state.held--
	if state.held == 0 && state.guard.Holds {
		state.guard.Approve(state.live, l.now())
		state.changed = true
	}
}

// release lets queued votes count, in the order of their arrival, as far as
// their operator's budget has room.
func (l *Ledger) release(key budgetKey, b *budget, now time.Time) {
	limits := l.policy.Limits(key.topic)
	topic, ok := l.table.topics[key.topic]
	if !ok {
		b.queue = nil
		return
	}
	wide := false
	for len(b.queue) > 0 {
		q := b.queue[0]
		v, ok := l.queuedVote(q, topic)
		if ok {
			if !b.Take(limits, l.table.target(q.record), true, now) {
				break
			}
			v.setHold(counted)
			l.waitsNoMore(&l.feeds.list[q.feed])
			l.note(q.record, q.feed)
			wide = wide || l.isWide(q.record)
			l.evaluate(q.record, now)
		}
		b.queue = b.queue[1:]
	}
	if len(b.queue) == 0 {
		b.queue = nil
	}
	if wide {
		l.evaluateTopic(topic, now)
	}
}

// queuedVote finds a vote of a queue that still waits.
func (l *Ledger) queuedVote(q queuedVote, topic int) (*vote, bool) {
	rec := l.table.all.at(q.record)
	if rec.kind == ban.KindNone || int(rec.topic) != topic {
		return nil, false
	}
	v := l.table.vote(q.record, q.feed)
	return v, v != nil && v.hold() == queued
}

// strike notes that an operator claims what must never be banned.
func (l *Ledger) strike(f uint16, target ban.Target, now time.Time) (quarantined bool) {
	state := &l.feeds.list[f]
	if !l.policy.Knows(state.feed.Topic, state.feed.Operator) {
		return false
	}
	why, ok := "", false
	for _, p := range []policy.Protection{l.never, l.peers} {
		if p == nil {
			continue
		}
		if why, ok = p.Protects(target); ok {
			break
		}
	}
	if !ok {
		return false
	}
	p := l.peer(state.feed.Operator)
	if !p.strike(Strike{Target: target, Topic: state.feed.Topic, At: now, Why: why}) {
		return false
	}
	l.log.Warn("a peer claims what must never be banned", "operator", l.nameOf(state.feed.Operator), "target", target.String(), "protected", why)
	if p.Quarantine == nil && p.recent(now) >= l.policy.Limits(state.feed.Topic).Strikes {
		p.Quarantine = &Quarantine{Since: now, Why: "strikes"}
		l.markQuarantine(state.feed.Operator, true)
		return true
	}
	return false
}
