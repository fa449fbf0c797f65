// Package ledger holds the bans in force, whoever made them: the node's own
// claims, durably, and the claims of the feeds that it follows. It asks policy
// for a verdict whenever something about a target changes, and tells the
// enforcers the result.
//
// Own claims, exemptions, when the claims of peers arrived and the decisions about
// them are on disk before a call returns, but for bans that detection finds ([Own.Found]). Peers' claims themselves are
// not: the federation stores their signed messages and replays them through
// [Peers.ApplyAll] at start.
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
	// ErrNeverBan says that a target overlaps the never-ban list.
	ErrNeverBan = errors.New("this must never be banned")
	// ErrAllowed says that a person allowed the target.
	ErrAllowed = errors.New("this is allowed here")
	// ErrUnbanned says that a person unbanned the target, for a ban that must not
	// undo that.
	ErrUnbanned = errors.New("a person unbanned this")
	// ErrEnded says that a claim's end has passed.
	ErrEnded = errors.New("the ban would have ended already")
	// ErrTooMany says that a fixed limit of the ledger is reached.
	ErrTooMany = fmt.Errorf("%w: the ledger is full", ban.ErrLimit)
	// ErrUnknown says that there is no such entry.
	ErrUnknown = errors.New("not found")
	// ErrCorrupt says that the ledger's records on disk cannot be read.
	ErrCorrupt = errors.New("the ledger's records are damaged")
	// ErrNewer says that a newer program wrote the ledger's records. They are left as they are.
	ErrNewer = errors.New("a newer program wrote the ledger's records: install that program again")
)

// Options are the inputs of [Open].
type Options struct {
	Store    *store.Store      // nil: nothing is kept, for a replay
	Policy   *policy.Policy    // nil: [policy.Nothing]
	NeverBan policy.Protection // targets that no claim can ban; nil: none
	// NeverPeers are the targets that claims of others cannot ban and our own feeds
	// do not carry; nil: the same as NeverBan.
	NeverPeers policy.Protection
	Caution    policy.Protection // addresses that many people share; nil: none
	Guests     policy.Protection // addresses that lately logged in here; nil: none
	Now        func() time.Time  // nil: [time.Now]
	Log        *slog.Logger      // nil: none
	// History hears of every event, for a replay later; nil: nobody.
	History *History
	// Noted hears of notes, with the ledger's lock held: it must neither wait nor call
	// the ledger. nil: nobody.
	Noted func(Note)
	// Loading says that feeds are replayed before anything is asked. Verdicts
	// are computed by [Ledger.Loaded] then, once and not at each claim.
	Loading bool

	testingBounds    *bounds
	testingOnlyStall func() // called within each write
}

// A Ledger answers questions about targets and holds the rules in force; its
// parts take claims and decisions. It is safe for use from several goroutines.
// It starts none: the owner calls [Ledger.Expire] about once a second.
type Ledger struct {
	*book
	Own         *Own
	Peers       *Peers
	Exemptions  *Exemptions
	Enforcement *Enforcement
}

// A book is the state that the parts of a ledger share: the table of claims and
// of the verdicts on them, under one lock.
type book struct {
	store   *store.Store
	now     func() time.Time
	log     *slog.Logger
	history *History
	noted   func(Note)

	mu         sync.RWMutex
	policy     *policy.Policy
	never      policy.Protection
	neverPeers policy.Protection
	caution    policy.Protection
	guests     policy.Protection
	table      table
	feeds      feeds
	sources    sources
	// journalMu guards ownJournal. It is taken under mu or without it, and mu never
	// under it: a write of found bans holds it while the disk works.
	journalMu  sync.Mutex
	ownJournal journal
	unwritten  unwritten
	proof      evidence
	exempt     exemptions
	mistakes   mistakes
	wheel      wheel
	nextAll    time.Time // when every verdict is due again: a probation ends
	loading    bool      // verdicts wait for Loaded

	stall    func()
	scratch  []policy.Vote        // of the last question, to be used again
	dirty    []uint32             // records whose enforcement may have changed
	changed  chan struct{}        // capacity one: there is something to take
	ownDirty map[place]ban.Reason // own claims that changed, and why if they were withdrawn
	ownReady chan struct{}

	disputes disputes
}

// place names a record.
type place struct {
	topic  ban.Topic
	target ban.Target
}

// Open loads the ledger from its store.
func Open(o Options) (*Ledger, error) {
	l := &book{
		store:      o.Store,
		now:        o.Now,
		noted:      o.Noted,
		log:        o.Log,
		policy:     o.Policy,
		never:      o.NeverBan,
		neverPeers: o.NeverPeers,
		loading:    o.Loading,
		caution:    o.Caution,
		guests:     o.Guests,
		changed:    make(chan struct{}, 1),
		ownReady:   make(chan struct{}, 1),
		unwritten:  unwritten{ready: make(chan struct{}, 1)},
		stall:      o.testingOnlyStall,
		ownDirty:   map[place]ban.Reason{},
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
	b := defaultBounds
	if o.testingBounds != nil {
		b = *o.testingBounds
	}
	l.table.init(b)
	l.feeds.init(b)
	l.feeds.self = l.policy.Self()
	l.wheel.init()
	l.sources.init()
	l.disputes.init()
	l.proof.init()
	l.ownJournal.bucket = ownBucket
	now := l.now()
	l.history = o.History
	l.exempt.init()
	own := &Own{l}
	err := l.view(func(tx store.Tx) error {
		if err := l.exempt.load(tx, now); err != nil {
			return err
		}
		if err := l.feeds.load(tx, now); err != nil {
			return err
		}
		return own.load(tx, now)
	})
	if err != nil {
		return nil, fmt.Errorf("loading the ledger: %w", err)
	}
	l.nextAll = l.policy.NextProbation(now)
	l.evaluateAll(now)
	return &Ledger{l, own, &Peers{l}, &Exemptions{l, own}, &Enforcement{l}}, nil
}

// Loaded ends the loading that [Options] began.
func (l *Ledger) Loaded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.loading = false
	l.evaluateAll(l.now())
}

// Close writes the pending changes. The store stays open.
func (l *Ledger) Close() error {
	flushing := l.Own.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(flushing, l.Peers.save(l.now(), nil), l.history.flush())
}

// view and update run f on the store, if there is one.
func (l *book) view(f func(store.Tx) error) error {
	if l.store == nil {
		return nil
	}
	return l.store.View(f)
}

func (l *book) update(f func(store.Tx) error) error {
	if l.store == nil {
		return nil
	}
	if l.stall != nil {
		l.stall()
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
	l.policy, l.feeds.self = p, p.Self()
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
	l.never, l.neverPeers = everyone, peers
	l.evaluateAll(l.now())
}

// SetCaution puts a new list of shared addresses in force.
func (l *Ledger) SetCaution(p policy.Protection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.caution = p
	l.evaluateAll(l.now())
}

// isWide says whether a change of the record can change the verdicts of other
// targets. A prefix that the rules refuse anyway cannot, unless it is our own.
func (l *book) isWide(r uint32) bool {
	t := l.table.target(r)
	switch t.Kind() {
	case ban.KindCIDR4, ban.KindCIDR6:
		if l.policy.Accepts(l.table.topicName(r), t) {
			return true
		}
		for v := range l.table.votesOf(r) {
			if isOwn(v.feed) {
				return true
			}
		}
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
