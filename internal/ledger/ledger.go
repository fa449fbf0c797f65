// Package ledger holds the bans in force, whoever made them: the node's own
// claims, durably, and the claims of the feeds that it follows. It asks policy
// for a verdict whenever something about a target changes, and tells the
// enforcers what became of it.
//
// Own claims, exemptions and what was decided about peers are on disk before a
// call returns. Peers' claims are not: the federation stores their signed
// messages and replays them through [Ledger.Apply] at start.
package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// Errors that callers branch on.
var (
	// ErrNeverBan says that a target overlaps what must never be banned.
	ErrNeverBan = errors.New("this must never be banned")
	// ErrAllowed says that a person allowed the target.
	ErrAllowed = errors.New("this is allowed here")
	// ErrEnded says that a claim's end has passed.
	ErrEnded = errors.New("the ban would have ended already")
	// ErrTooMany says that a fixed limit of the ledger is reached.
	ErrTooMany = errors.New("the ledger is full")
	// ErrUnknown says that there is no such entry.
	ErrUnknown = errors.New("not found")
	// ErrCorrupt says that the ledger's records on disk cannot be read.
	ErrCorrupt = errors.New("the ledger's records are damaged")
)

// Options are what [Open] needs.
type Options struct {
	Store    *store.Store      // nil: nothing is kept, for a replay
	Policy   *policy.Policy    // nil: [policy.Nothing]
	NeverBan policy.Protection // what no claim can ban; nil: nothing
	// NeverPeers is what the claims of others cannot ban and our own feeds do
	// not carry; nil: the same as NeverBan.
	NeverPeers policy.Protection
	Caution    policy.Protection // addresses that many people share; nil: none
	Now        func() time.Time  // nil: [time.Now]
	Log        *slog.Logger      // nil: none
	// History hears what happened, for a replay later; nil: nobody.
	History *History
	// Loading says that feeds are replayed before anything is asked. Verdicts
	// are computed by [Ledger.Loaded] then, once and not at each claim.
	Loading bool
}

// A Ledger is safe for use from several goroutines. It starts none: the owner
// calls [Ledger.Expire] about once a second.
type Ledger struct {
	store   *store.Store
	now     func() time.Time
	log     *slog.Logger
	history *History

	mu      sync.RWMutex
	policy  *policy.Policy
	never   policy.Protection
	peers   policy.Protection
	caution policy.Protection
	table   table
	feeds   feeds
	own     journal
	proof   evidence
	exempt  exemptions
	wheel   wheel
	nextAll time.Time // when every verdict is due again: a probation ends
	loading bool      // verdicts wait for Loaded

	scratch  []policy.Vote // of the last question, to be used again
	dirty    []uint32      // records whose enforcement may have changed
	changed  chan struct{} // capacity one: there is something to take
	ownDirty map[place]struct{}
	ownReady chan struct{}

	disputes map[place]map[ban.Feed]time.Time
	disputed map[ban.Feed][]Dispute
}

// place names a record.
type place struct {
	topic  ban.Topic
	target ban.Target
}

// Open loads the ledger from its store.
func Open(o Options) (*Ledger, error) {
	l := &Ledger{
		store:    o.Store,
		now:      o.Now,
		log:      o.Log,
		policy:   o.Policy,
		never:    o.NeverBan,
		peers:    o.NeverPeers,
		loading:  o.Loading,
		caution:  o.Caution,
		changed:  make(chan struct{}, 1),
		ownReady: make(chan struct{}, 1),
		ownDirty: map[place]struct{}{},
		disputes: map[place]map[ban.Feed]time.Time{},
		disputed: map[ban.Feed][]Dispute{},
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.policy == nil {
		l.policy = policy.Nothing()
	}
	l.table.init()
	l.feeds.init()
	l.wheel.init()
	l.proof.init()
	l.own.bucket = ownBucket
	now := l.now()
	l.history = o.History
	l.exempt.init()
	err := l.view(func(tx store.Tx) error {
		if err := l.exempt.load(tx, now); err != nil {
			return err
		}
		if err := l.loadFeeds(tx, now); err != nil {
			return err
		}
		return l.loadOwn(tx, now)
	})
	if err != nil {
		return nil, fmt.Errorf("loading the ledger: %w", err)
	}
	l.nextAll = l.policy.NextProbation(now)
	l.evaluateAll(now)
	return l, nil
}

// Loaded ends the loading that [Options] began.
func (l *Ledger) Loaded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loading = false
	l.evaluateAll(l.now())
}

// Close writes what is still pending about peers. The store stays open.
func (l *Ledger) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.save(l.now()), l.history.flush())
}

// view and update run f on the store, if there is one.
func (l *Ledger) view(f func(store.Tx) error) error {
	if l.store == nil {
		return nil
	}
	return l.store.View(f)
}

func (l *Ledger) update(f func(store.Tx) error) error {
	if l.store == nil {
		return nil
	}
	return l.store.Update(f)
}

// SetPolicy puts new rules in force for every target.
func (l *Ledger) SetPolicy(p *policy.Policy) {
	if p == nil {
		p = policy.Nothing()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	l.policy = p
	l.nextAll = p.NextProbation(now)
	l.evaluateAll(now)
}

// Policy gives the rules in force.
func (l *Ledger) Policy() *policy.Policy {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.policy
}

// SetNeverBan puts new never-ban sets in force, for claims that are already
// here too: one against every claim, and one against the claims of others (nil:
// the same), see [Options].
func (l *Ledger) SetNeverBan(everyone, peers policy.Protection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.never, l.peers = everyone, peers
	l.evaluateAll(l.now())
}

// SetCaution puts a new list of shared addresses in force.
func (l *Ledger) SetCaution(p policy.Protection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.caution = p
	l.evaluateAll(l.now())
}

// Apply takes a verified change of a followed feed. The order of changes of
// different feeds does not matter.
func (l *Ledger) Apply(c ban.Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	f, err := l.number(c.Feed, now)
	if err != nil {
		return err
	}
	state := &l.feeds.list[f]
	how := l.arrival(f, c.Reset, now)
	if c.Reset {
		state.generation = !state.generation
		state.reset = &how
	}
	topic := l.table.topic(c.Feed.Topic)
	if topic < 0 {
		return fmt.Errorf("%w: more than %d topics", ErrTooMany, maxTopics)
	}
	wide, quarantined, held := false, false, state.held
	touch := func(r uint32) {
		if l.isWide(r) {
			wide = true
		}
		l.evaluate(r, now)
	}
	for _, claim := range c.Claims {
		if claim.Target.IsZero() || !claim.End.After(now) || !claim.End.Before(endOfTime) {
			continue
		}
		r, err := l.table.put(topic, claim.Target)
		if err != nil {
			return err
		}
		if how.known == nil {
			quarantined = l.strike(f, claim.Target, now) || quarantined
		}
		if l.upsert(r, f, claim, how, now) {
			if how.known == nil {
				l.history.claim(now, c.Feed, claim)
			}
			touch(r)
		}
	}
	for _, w := range c.Withdrawn {
		target := w.Target
		if r, ok := l.table.find(topic, target); ok && l.withdraw(r, f) {
			l.history.withdrawal(now, c.Feed, target)
			touch(r)
		}
	}
	if state.reset != nil && !c.More {
		if how.sweep {
			l.sweep(topic, f, touch)
		}
		state.reset = nil
		delete(l.feeds.known, c.Feed)
	}
	switch {
	case quarantined:
		l.evaluateAll(now)
	case wide:
		l.evaluateTopic(topic, now)
	}
	l.notify()
	// What was decided against a peer must not be forgotten in a crash. A flood
	// is written about once a second: what a crash in between forgets is less
	// than a guard lets pass, and is counted so at the replay.
	l.feeds.urgent = l.feeds.urgent || l.feeds.list[f].held > held
	if quarantined || len(l.feeds.pending) >= flushAt || l.feeds.urgent && (held == 0 || now.Sub(l.feeds.saved) >= time.Second) {
		return l.save(now)
	}
	return nil
}

// arrival says how a change's claims came, and lets a budget grow for the time
// that this node was away.
func (l *Ledger) arrival(f uint16, reset bool, now time.Time) (how arrival) {
	state := &l.feeds.list[f]
	if state.reset != nil && !reset {
		return *state.reset // it goes on
	}
	how.sweep = reset && state.live > 0
	if !state.replayed {
		// The first that a feed says after a start is what it said before.
		state.replayed = true
		if reset {
			if how.known = l.feeds.known[state.feed]; how.known == nil {
				how.known = map[ban.Target]knownVote{}
			}
		} else {
			delete(l.feeds.known, state.feed)
		}
	}
	b := l.feeds.budgets[budgetKey{state.feed.Topic, state.feed.Operator}]
	if b == nil {
		b = l.budget(state.feed)
		if l.feeds.away > 0 {
			b.Credit(l.policy.Limits(state.feed.Topic), l.feeds.away, now)
		}
	}
	how.join = how.known == nil && reset && b.Live == 0 && len(b.queue) == 0
	return how
}

// sweep withdraws what a reset did not repeat.
func (l *Ledger) sweep(topic int, f uint16, touch func(uint32)) {
	generation := l.feeds.list[f].generation
	var stale []uint32
	for r := range l.table.records(topic) {
		if v := l.table.vote(r, f); v != nil && v.has(flagGeneration) != generation {
			stale = append(stale, r)
		}
	}
	for _, r := range stale {
		l.history.withdrawal(l.now(), l.feeds.list[f].feed, l.table.target(r))
		l.withdraw(r, f)
		touch(r)
	}
}

// isWide says whether a change of the record can change the verdicts of other
// targets. A prefix that the rules refuse anyway cannot, unless it is our own.
func (l *Ledger) isWide(r uint32) bool {
	t := l.table.target(r)
	switch t.Kind() {
	case ban.KindCIDR4, ban.KindCIDR6:
		return l.policy.Accepts(l.table.topicName(r), t) || l.table.vote(r, ownFeed) != nil
	}
	return false
}

// endOfTime is the last moment that the ledger's 32-bit seconds hold.
var endOfTime = time.Unix(math.MaxUint32-1, 0)

func seconds(t time.Time) uint32 {
	switch s := t.Unix(); {
	case s < 0:
		return 0
	case s >= math.MaxUint32:
		return math.MaxUint32 - 1
	default:
		return uint32(s)
	}
}
