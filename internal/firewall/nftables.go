package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
)

// NFTables is the [Firewall] in nftables: one table of family inet, described
// in docs/enforcement.md. It must be the only writer of its table; a lock that
// the kernel frees with the process sees to it.
type NFTables struct {
	log  *slog.Logger
	now  func() time.Time
	test testingOnly

	mu     sync.Mutex
	closed bool
	off    bool // by [Panic]
	lock   int  // descriptor of the lock, -1 without
	k      *kernel
	config Config
	ready  bool
	can    features
	owned  bool
	scopes map[ban.Topic]Scope

	configured int
	shape      shape // of have

	have    *ruleset // the table as last written or read; nil when unknown
	gen     uint32   // the generation after our last write
	foreign bool     // somebody else may have written since

	state   *state
	adopted bool // the kernel's bans are known to be those of state, but for owed

	// owed are prefixes whose element in the kernel is not what state says, with
	// what it is believed to be.
	owed   map[netip.Prefix]slot
	forced bool // what the kernel has of the owed is not known
	reload reload
	// suspectAt, when set, is since when the maps may hold bans that nobody
	// wants, left by an earlier process.
	suspectAt time.Time

	stampsLost bool // the stamps in the kernel are to be written anew
	// soiled are buckets that changed since their stamps were written; those
	// stamps were taken out by the first change.
	soiled   map[uint32]bool
	verified time.Time // when the table was last looked at whole
	wide     [2]wideMap
	clock    clock

	sockets sockets

	batch []op // reused
}

// reload says that every ban is owed.
type reload uint8

const (
	reloadNone   reload = iota
	reloadEmpty         // to maps that are empty
	reloadForced        // to maps that hold nobody knows what
)

// wideMap is what one interval map holds and ought to hold.
type wideMap struct {
	held    []segment
	want    []segment
	dirty   bool
	unknown bool // held is not known to be right
	// planned says that want is worked out; dirty alone waits for the rest to
	// end, since working it out for many prefixes takes a while.
	planned bool
	rest    time.Time
	lapse   second // when a nested prefix ends before its outer one
	live    bool   // the base chain looks it up
}

// Options are what an enforcer needs from outside. The zero value will do.
type Options struct {
	// Logger hears of drift and of what could not be done. nil means nobody.
	Logger *slog.Logger
	// Now is the clock. nil means [time.Now].
	Now func() time.Time

	testing testingOnly
}

// testing holds seams for tests.
type testingOnly struct {
	without features                 // what to believe that the kernel lacks
	commit  func(batch []byte) error // an error here stands for the kernel's
	stall   func(written, bulk int)  // called after each transaction of a bulk
	mono    func() time.Duration     // the clock of kernel timers
}

// NewNFTables gives an enforcer that has not touched the kernel yet.
func NewNFTables(o Options) *NFTables {
	n := &NFTables{log: o.Logger, now: o.Now, test: o.testing, lock: -1, state: newState(), owed: make(map[netip.Prefix]slot), soiled: make(map[uint32]bool)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.test.mono == nil {
		n.test.mono = monotonic
	}
	if n.now == nil {
		n.now = time.Now
	}
	return n
}

var _ Firewall = (*NFTables)(nil)

// Configure implements [Firewall].
func (n *NFTables) Configure(ctx context.Context, c Config) error {
	c, err := c.normal()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.k != nil && n.config.Table != c.Table {
		return fmt.Errorf("the table cannot change from %s to %s in a running agent", n.config.Table, c.Table)
	}
	if err := n.open(c); err != nil {
		return err
	}
	scopes := make(map[ban.Topic]Scope, len(c.Scopes))
	for _, s := range c.Scopes {
		scopes[s.Topic] = s
	}
	n.config, n.scopes = c, scopes
	n.configured++
	gone, err := n.state.forget(func(t ban.Topic) bool { _, ok := scopes[t]; return ok }, n.second())
	if err != nil {
		return err
	}
	for _, p := range gone {
		n.owe(p, slot{})
	}
	n.forced = n.forced || len(gone) > 0
	n.have = nil
	off, err := n.k.exists(n.config.Table + offSuffix)
	if err != nil {
		return n.explain("looking for the switch", err)
	}
	if n.off = off; off {
		n.ready = true
		return n.switchOff()
	}
	if !n.adopted {
		// A table that an earlier process left stays in force as it is until the
		// first Replace knows what to keep of it.
		_, err = n.k.tableFlags()
		if err == nil || !errors.Is(err, errNoTable) {
			n.ready = err == nil
			return n.explain("looking for the table", err)
		}
	}
	if _, err = n.structure(); err != nil {
		return err
	}
	n.ready = true
	if n.adopted && !n.off {
		return n.pay(ctx)
	}
	return nil
}

// open takes the lock, opens the socket and finds out what the kernel can, once.
func (n *NFTables) open(c Config) (err error) {
	if n.lock < 0 {
		if n.lock, err = takeLock(c.Table); err != nil {
			return err
		}
	}
	if n.k == nil {
		if n.k, err = openKernel(c.Table); err != nil {
			return err
		}
		if n.can, err = n.k.probe(); err != nil {
			_ = n.k.close()
			n.k = nil
			return err
		}
		n.can = n.can.less(n.test.without)
		if n.gen, err = n.k.generation(); err != nil {
			return n.explain("reading the generation", err)
		}
		if n.owned, err = c.Owner.decide(n.can); err != nil {
			return err
		}
	}
	return nil
}

// Replace implements [Firewall].
func (n *NFTables) Replace(ctx context.Context, bans iter.Seq[Ban]) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return err
	}
	now := n.second()
	fresh := newState()
	fresh.classes, fresh.byTopics, fresh.byID = n.state.classes, n.state.byTopics, n.state.byID
	refused := refusals{}
	chunk := make([]Ban, 0, 8) // more at a time gains nothing
	take := func() {
		for i := range chunk {
			fresh.touch(chunk[i].Prefix)
		}
		for i := range chunk {
			refused.note(chunk[i], n.addTo(fresh, chunk[i], now))
		}
		chunk = chunk[:0]
	}
	for b := range bans {
		if chunk = append(chunk, b); len(chunk) == cap(chunk) {
			take()
		}
	}
	take()
	old := n.state
	n.state = fresh
	n.wide[0].dirty, n.wide[1].dirty = true, true
	if n.adopted && n.reload == reloadNone {
		old.each(func(p netip.Prefix, was slot) bool {
			if kindOf(p) != kindWide && fresh.get(p) != was {
				n.owe(p, was)
			}
			return true
		})
		fresh.each(func(p netip.Prefix, v slot) bool {
			if kindOf(p) != kindWide && old.get(p).class == 0 {
				n.owe(p, slot{})
			}
			return true
		})
	} else if n.reload == reloadNone && !n.off {
		if err := n.adopt(); err != nil {
			return err
		}
	}
	// With a reload due the kernel's maps are empty, or are written whole.
	n.adopted = true
	if n.off {
		return refused.err(n.config.Cap)
	}
	n.sockets.due = n.state.size() > 0
	return errors.Join(refused.err(n.config.Cap), n.pay(ctx), n.writeSoiled(now), n.cut())
}

// Apply implements [Firewall].
func (n *NFTables) Apply(ctx context.Context, add []Ban, remove []Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return err
	}
	if !n.adopted {
		return ErrNoState
	}
	now := n.second()
	refused := refusals{}
	for _, key := range remove {
		p := key.Prefix
		if !canonical(p) {
			refused.note(Ban{Prefix: p, Topic: key.Topic}, ErrPrefix)
			continue
		}
		old := n.state.get(p)
		changed, err := n.state.remove(p, key.Topic, now)
		refused.note(Ban{Prefix: p, Topic: key.Topic}, err)
		if changed {
			n.owe(p, old)
		}
	}
	for _, b := range add {
		var old slot
		if canonical(b.Prefix) {
			old = n.state.get(b.Prefix)
		}
		err := n.addTo(n.state, b, now)
		refused.note(b, err)
		if err == nil && n.state.get(b.Prefix) != old {
			n.owe(b.Prefix, old)
		}
	}
	if n.off {
		return refused.err(n.config.Cap)
	}
	n.sockets.due = n.sockets.due || len(add) > 0
	return errors.Join(refused.err(n.config.Cap), n.pay(ctx), n.cut())
}

// addTo makes a ban wanted in s, or says why not.
func (n *NFTables) addTo(s *state, b Ban, now second) error {
	if !canonical(b.Prefix) {
		return ErrPrefix
	}
	scope, ok := n.scopes[b.Topic]
	if !ok {
		return ErrNoScope
	}
	by := ""
	if scope.Observe {
		by = label(b.By)
	}
	until := secondOf(b.Until)
	if until <= now {
		return nil
	}
	if s.size() >= n.config.Cap && s.get(b.Prefix).class == 0 {
		if gone, _ := s.sweep(now, true); gone == 0 {
			return ErrFull
		}
	}
	_, err := s.add(b.Prefix, b.Topic, by, until, now)
	return err
}

func canonical(p netip.Prefix) bool {
	return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() && p.Addr().Zone() == ""
}

// owe notes that the kernel has to be told about p, where it holds was.
func (n *NFTables) owe(p netip.Prefix, was slot) {
	if kindOf(p) == kindWide {
		n.wide[family(p.Addr())].dirty = true
		return
	}
	if _, ok := n.owed[p]; !ok {
		n.owed[p] = was
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// Counters implements [Firewall].
func (n *NFTables) Counters(ctx context.Context) (map[ban.Topic]Counter, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(n.usable(), ctx.Err()); err != nil {
		return nil, err
	}
	all, err := n.k.counters()
	if err != nil {
		return nil, n.explain("reading counters", err)
	}
	out := make(map[ban.Topic]Counter, len(n.config.Scopes))
	for _, s := range n.config.Scopes {
		out[s.Topic] = all[counterHead+string(s.Topic)]
	}
	return out, nil
}

// Close implements [Firewall].
func (n *NFTables) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	var err error
	if n.k != nil {
		if n.adopted && !n.off {
			n.clock.at = n.now()
			err = n.writeSoiled(secondOf(n.clock.at))
		}
		err = errors.Join(err, n.k.close())
	}
	if n.sockets.conn != nil {
		err = errors.Join(err, n.sockets.conn.close())
	}
	unlock(n.lock)
	return err
}

func (n *NFTables) usable() error {
	switch {
	case n.closed:
		return ErrClosed
	case !n.ready:
		return ErrNotConfigured
	}
	return nil
}

func (n *NFTables) second() second { return secondOf(n.now()) }

// explain gives an error of the kernel the meaning that it has for people.
func (n *NFTables) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM) && n.k != nil && n.have != nil:
		return fmt.Errorf("%s: %w", doing, ErrBusy)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w", doing, ErrDenied)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// refusals collects what is wrong with bans, without repeating a million times
// what one sentence says.
type refusals struct {
	full  int
	other []error
}

const maxRefusals = 20

func (r *refusals) note(b Ban, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrFull):
		r.full++
	case len(r.other) < maxRefusals:
		r.other = append(r.other, fmt.Errorf("ban of %s in %s: %w", b.Prefix, b.Topic, err))
	case len(r.other) == maxRefusals:
		r.other = append(r.other, errors.New("and more such bans"))
	}
}

func (r *refusals) err(limit int) error {
	errs := slices.Clone(r.other)
	if r.full > 0 {
		errs = append(errs, fmt.Errorf("%d bans refused: %w (%d)", r.full, ErrFull, limit))
	}
	return errors.Join(errs...)
}
