package ledger

import (
	"iter"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// Apply is [Peers.ApplyAll] without something else to write.
func (l *Peers) Apply(changes ...ban.Change) error { return l.ApplyAll(slices.Values(changes), nil) }

// ApplyAll takes verified changes of followed feeds, in order per feed; the
// order of changes of different feeds does not matter. When the claims arrived
// is on disk, in one transaction with the writes of also, before they count: a
// kill at any time changes no verdict. It fails only where the store does; then
// nothing of it counts until a later call, or [Ledger.Expire], has written it,
// and the changes may be given again.
//
// Whatever a peer says is no error: claims beyond a limit wait, are left out, or
// quarantine their operator.
func (l *Peers) ApplyAll(changes iter.Seq[ban.Change], also func(store.Tx) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for c := range changes {
		l.take(&c, now)
	}
	if also != nil || !l.feeds.pending.empty() {
		if err := l.save(now, also); err != nil {
			return err
		}
	}
	l.settle(now)
	return nil
}

// take puts a change into the table. Its verdicts are due when it is saved.
func (l *Peers) take(c *ban.Change, now time.Time) {
	f, known := l.feeds.numbers[c.Feed]
	if !known {
		if len(c.Claims) == 0 {
			return // a feed that is not followed any longer, and was not heard
		}
		var full QuarantineReason
		if f, full = l.feeds.number(c.Feed); full != "" {
			l.quarantineFor(c.Feed, full, now)
			return
		}
	}
	topic := l.table.topic(c.Feed.Topic)
	if topic < 0 {
		l.quarantineFor(c.Feed, QuarantineTopics, now)
		return
	}
	state := &l.feeds.list[f]
	how := l.arrival(f, c.Reset, now)
	if c.Reset {
		state.generation = !state.generation
		state.reset = &how
		state.dropped = 0
	}
	for i := range c.Claims {
		claim := &c.Claims[i]
		if claim.Target.IsZero() || !claim.End.After(now) || !claim.End.Before(endOfTime) {
			continue
		}
		l.takeClaim(topic, f, claim, &how, now)
	}
	for _, w := range c.Withdrawn {
		l.takeWithdrawal(topic, f, w, now)
	}
	if state.reset != nil && !c.More {
		if how.sweep {
			l.sweep(topic, f, now)
		}
		state.reset = nil
		delete(l.feeds.known, c.Feed)
	}
}

// arrival says how the claims of a change came.
type arrival struct {
	replay bool     // the first change of the feed after a start, which repeats its old claims
	known  arrivals // and the decisions of before
	join   bool     // the feed's whole state, heard for the first time
	sweep  bool     // claims that a Reset does not repeat are withdrawn at its end
	again  bool     // the author says a claim again, and not the whole feed
}

// arrival says how a change's claims came, and lets a guard pass those of the time
// in which this node was away.
func (l *Peers) arrival(f uint16, reset bool, now time.Time) (how arrival) {
	state := &l.feeds.list[f]
	if state.reset != nil && !reset {
		return *state.reset // it goes on
	}
	how.sweep = reset && state.live > 0
	how.again = !reset
	if !state.replayed {
		state.replayed = true
		how.replay = reset
		how.known = l.feeds.known[state.feed]
		if !reset {
			delete(l.feeds.known, state.feed)
		}
	}
	b := l.feeds.budget(state.feed)
	if !b.credited {
		b.credited = true
		if l.feeds.away > 0 {
			b.Guard.Credit(l.policy.LimitsOf(state.feed.Topic, state.feed.Operator), l.feeds.away)
		}
	}
	if b.Joined.IsZero() {
		b.Joined = now
		l.feeds.pending.budget(l.feeds.keyOf(state.feed))
	}
	how.join = reset && !how.sweep
	return how
}

// takeClaim stores the feed's claim of a target.
func (l *Peers) takeClaim(topic int, f uint16, c *ban.Claim, how *arrival, now time.Time) {
	state := &l.feeds.list[f]
	r, ok := l.table.find(topic, c.Target)
	if ok {
		if v := l.table.vote(r, f); v != nil {
			l.renew(r, f, v, c, how, now)
			return
		}
	}
	b, limits := l.feeds.budget(state.feed), l.policy.LimitsOf(state.feed.Topic, state.feed.Operator)
	if b.stored >= capacity(limits) {
		state.dropped++
		return
	}
	r, err := l.table.put(topic, c.Target)
	if err != nil {
		l.quarantineFor(state.feed, QuarantineTargets, now)
		return
	}
	v := l.table.addVote(r, f)
	v.setClaim(*c)
	v.set(flagGeneration, state.generation)
	state.live++
	b.stored++
	var k arrived
	seen := false
	if how.replay {
		key := ban.KeyOf(c.Target)
		k, seen = how.known.find(&key)
	}
	if seen {
		v.since = k.since
		l.setHold(r, v, k.hold)
	} else {
		l.strike(f, c.Target, now)
		l.admit(r, f, v, how, now)
		l.keepClaim(now, state.feed, c)
	}
	l.feeds.pending.touch(l.book, r)
}

// keepClaim keeps a peer's claim for a replay of other rules. Imports are left out:
// no rule of a topic counts them, and a list would fill the day.
func (l *Peers) keepClaim(now time.Time, feed ban.Feed, c *ban.Claim) {
	if _, imported := l.policy.Import(feed.Operator); !imported {
		l.history.claim(now, feed, *c)
	}
}

// renewAfter is how soon a claim that its author repeats unchanged counts from
// anew.
const renewAfter = time.Hour

// renew takes a claim that the feed makes already. A claim that is said again, or
// for longer, counts from now: the topic's ttl is from its arrival. That of an import
// has its end alone, and keeps the time since which it is known.
func (l *Peers) renew(r uint32, f uint16, v *vote, c *ban.Claim, how *arrival, now time.Time) {
	state := &l.feeds.list[f]
	v.set(flagGeneration, state.generation)
	longer := seconds(c.End) > v.end
	again := how.again && now.Sub(time.Unix(int64(v.since), 0)) >= renewAfter
	if v.says(*c) && !again {
		return
	}
	if _, imported := l.policy.Import(state.feed.Operator); (longer || again) && !imported {
		v.since = seconds(now)
		l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, voteAt{r, f})
	}
	if !v.says(*c) {
		v.setClaim(*c)
		l.keepClaim(now, state.feed, c)
	}
	l.feeds.pending.touch(l.book, r)
}

// takeWithdrawal removes a feed's claim of a target, and counts for its operator
// why it was withdrawn.
func (l *Peers) takeWithdrawal(topic int, f uint16, w ban.Withdrawal, now time.Time) {
	r, ok := l.table.find(topic, w.Target)
	if !ok {
		return
	}
	v := l.table.vote(r, f)
	if v == nil {
		return
	}
	state := &l.feeds.list[f]
	if v.inForce(now) {
		l.history.withdrawal(now, state.feed, w.Target)
		o := l.feeds.operator(state.feed.Operator)
		o.withdrew(w.Reason)
		if w.Reason == ban.ReasonMistake {
			l.tell(Note{Kind: NoteMistake, Operator: state.feed.Operator, Topic: state.feed.Topic, Target: w.Target, Why: "its author withdrew the claim as a mistake"})
			l.mistakes.note(mistake{v.claim(w.Target), state.feed, time.Unix(int64(v.since), 0)})
		}
		l.feeds.pending.operator(state.feed.Operator)
	}
	l.feeds.pending.touch(l.book, r)
	l.withdraw(r, f)
}

// sweep withdraws the claims that a Reset did not repeat.
func (l *Peers) sweep(topic int, f uint16, now time.Time) {
	generation := l.feeds.list[f].generation
	var stale []uint32
	for r := range l.table.records(topic) {
		if v := l.table.vote(r, f); v != nil && v.has(flagGeneration) != generation {
			stale = append(stale, r)
		}
	}
	_, imported := l.policy.Import(l.feeds.list[f].feed.Operator)
	for _, r := range stale {
		if !imported {
			l.history.withdrawal(now, l.feeds.list[f].feed, l.table.target(r))
		}
		l.feeds.pending.touch(l.book, r)
		l.withdraw(r, f)
	}
}

// strike notes that an operator claims a target that must never be banned.
func (l *Peers) strike(f uint16, target ban.Target, now time.Time) {
	feed := l.feeds.list[f].feed
	if !l.policy.Knows(feed.Topic, feed.Operator) {
		return
	}
	why, ok := "", false
	for _, p := range []policy.Protection{l.never, l.neverPeers} {
		if p == nil {
			continue
		}
		if why, ok = p.Protects(target); ok {
			break
		}
	}
	if !ok {
		return
	}
	o := l.feeds.operator(feed.Operator)
	if !o.strike(Strike{Target: target, Topic: feed.Topic, At: now, Why: why}) {
		return
	}
	l.feeds.pending.operator(feed.Operator)
	l.tell(Note{Kind: NoteStrike, Operator: feed.Operator, Topic: feed.Topic, Target: target, Why: why})
	l.log.Warn("a peer claims what must never be banned", "operator", l.nameOf(feed.Operator), "target", target.String(), "protected", why)
	if o.recent(now) >= l.policy.LimitsOf(feed.Topic, feed.Operator).Strikes {
		l.quarantineFor(feed, QuarantineStrikes, now)
	}
}
