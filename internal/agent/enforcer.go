package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
	"banmesh/internal/procnet"
	"banmesh/internal/settings"
)

// enforcer keeps the firewall and the exported table equal to the ledger's
// verdicts.
type enforcer struct {
	o   enforcerOptions
	fw  firewall.Firewall   // nil when nothing is enforced
	can firewall.Capability // why there is none, and the mend
	leftovers
	forgotten forgotten
	begun     banLog
	ports     servedPorts
	written   written
	// asked carries out the due changes and answers with [enforcer.carried].
	asked chan chan string
	// look makes it compare the firewall with the wanted bans at once.
	look chan chan string

	mu    sync.Mutex
	drift firewall.Drift
	fault error     // of the last write or check
	said  time.Time // when the fault was logged
	// settled is since when the kernel has all bans again after a fault or drift.
	settled time.Time

	observed  map[ban.Topic]bool // as configured last; nil at first
	untracked error              // why no connections are limited and remembered; nil where they may be
	untrapped error              // why honeyports are not watched; nil where they may be
	uncounted error              // why the counters could not be read; nil when they were
}

// enforcerOptions are the inputs of an enforcer.
type enforcerOptions struct {
	settings func() *settings.Settings
	ledger   *ledger.Ledger
	table    *export.Table
	// never gives the prefixes that the kernel checks before any ban.
	never func() []netip.Prefix
	// works says that an address moved so many bytes in a topic that it is a
	// guest: a peer's ban of it is not enforced.
	works func(context.Context, ban.Topic, ban.Target) bool
	// trap watches honeyports, and gives the local port that they lead to.
	trap func(context.Context, []uint16) (uint16, error)
	// noted hears of changes that were carried out, or of the fault; nil: nobody.
	noted func([]ledger.Change, error)
	// began hears of the bans of the start; nil: nobody.
	began func([]ledger.Enforced)
	// inKernel is told of bans that the kernel has taken; nil: nobody.
	inKernel func(ledger.Change)
	firewall firewall.Firewall                // nil: the one that the settings name
	sockets  func() ([]procnet.Socket, error) // nil: this machine's
	state    string                           // the state directory
	now      func() time.Time
	log      *slog.Logger
}

const (
	// checkEvery is how long a ban that somebody else removed can be missing.
	checkEvery = time.Second
	// takeMost is how many changes one write carries: the batch size that was
	// measured best (docs/enforcement.md).
	takeMost = 2000
)

// newEnforcer finds out its rights here, and puts the whole wanted state
// in force before anything else of the node runs.
func newEnforcer(ctx context.Context, o enforcerOptions) (*enforcer, error) {
	if o.sockets == nil {
		o.sockets = func() ([]procnet.Socket, error) { return procnet.TCP("/") }
	}
	e := &enforcer{o: o, fw: o.firewall, asked: make(chan chan string), look: make(chan chan string), begun: banLog{log: o.log, now: o.now}, ports: servedPorts{sockets: o.sockets, now: o.now, stray: map[ban.Topic]strayPort{}}, leftovers: leftovers{file: filepath.Join(o.state, enforcedFile), log: o.log}}
	c := o.settings()
	switch {
	case c.Config().Firewall.Mode == "off":
		e.fw = nil
	case e.fw == nil:
		var err error
		e.fw, e.can, err = openFirewall(ctx, c, SwitchFile(o.state), firewall.Options{Logger: o.log, Now: o.now})
		if err != nil {
			return nil, err
		}
	}
	if o.firewall == nil {
		f := o.settings().Config().Firewall
		e.clear(ctx, e.chosen(), enforced{e.chosen().Name(), cmp.Or(f.Table, firewall.DefaultTable), f.IPTablesLegacy}, e.fw == nil)
	}
	if err := e.configure(ctx); err != nil {
		return nil, errors.Join(err, e.close())
	}
	// Desired marks everything as told, so it is asked once, for both.
	list := o.ledger.Enforcement.Desired()
	if o.began != nil {
		o.began(list)
	}
	for some := range slices.Chunk(list, takeMost) {
		e.toTable(some, nil)
	}
	// The bans of the start are in the kernel from here on.
	defer func() { e.written.floor = e.o.now() }()
	if e.fw == nil {
		return e, nil
	}
	if err := e.fw.Replace(ctx, e.bansOf(list)); err != nil {
		if ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("putting the bans in force: %w", err), e.close())
		}
		// A failed write stays pending: a node that does not start for one ban's
		// sake enforces none.
		e.note(err)
		o.log.ErrorContext(ctx, "bans not written, pending", slog.Any("error", err))
		return e, nil
	}
	// Bans that an earlier process left and that nobody wants any more go as well, before
	// this one answers anybody.
	e.check(ctx)
	return e, nil
}

func (e *enforcer) bansOf(list []ledger.Enforced) iter.Seq[firewall.Ban] {
	return func(yield func(firewall.Ban) bool) {
		for _, x := range list {
			p, ok := x.Target.Prefix()
			if !ok {
				continue
			}
			b := firewall.Ban{Prefix: p, Topic: x.Topic, Until: x.Until}
			if len(list) <= mostNamed {
				b.By = e.onWhoseWord(x.Topic, x.Target)
			}
			if !yield(b) {
				return
			}
		}
	}
}

// configure tells the firewall its scopes and the never-ban prefixes.
func (e *enforcer) configure(ctx context.Context) error {
	if e.fw == nil {
		return nil
	}
	c := e.o.settings().FirewallConfig()
	c.Never = e.o.never()
	untrapped := e.setTraps(ctx, &c)
	err := e.fw.Configure(ctx, c)
	if err != nil && ctx.Err() == nil && len(c.Honeyports) > 0 {
		// A kernel without translation remembers connections all the same.
		untrapped, c.Honeyports, c.HoneyportTo = err, nil, 0
		err = e.fw.Configure(ctx, c)
	}
	untracked := err
	if err != nil && ctx.Err() == nil && withoutTracking(c.Scopes) {
		// A kernel without connection tracking can enforce bans all the same.
		if err = e.fw.Configure(ctx, c); err == nil {
			e.o.log.ErrorContext(ctx, "connections are neither limited nor remembered", slog.Any("error", untracked))
		}
	}
	if err != nil {
		return fmt.Errorf("setting up the firewall: %w", err)
	}
	e.mu.Lock()
	e.untracked, e.untrapped = untracked, untrapped
	e.mu.Unlock()
	return e.relabel(ctx, c.Scopes)
}

// setTraps opens the listener of honeyports, where there are any and bans are
// enforced: a firewall without them watches none.
func (e *enforcer) setTraps(ctx context.Context, c *firewall.Config) error {
	if e.o.trap == nil {
		c.Honeyports = nil
		return nil
	}
	to, err := e.o.trap(ctx, c.Honeyports)
	if err != nil {
		c.Honeyports = nil
		return err
	}
	if len(c.Honeyports) > 0 {
		c.HoneyportTo = to
	}
	return nil
}

// run carries changes of verdicts to the kernel as they come, and looks every
// second whether it still has them.
func (e *enforcer) run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		var answer chan string
		select {
		case <-ctx.Done():
			mode, _ := e.Enforcement()
			e.begun.flush(ctx, mode)
			return nil
		case answer = <-e.asked:
		case answer = <-e.look:
			e.check(ctx)
		case <-e.o.ledger.Enforcement.Changed():
		case <-tick.C:
			e.o.ledger.Expire(e.o.now())
			e.o.table.Expire()
			e.check(ctx)
			mode, _ := e.Enforcement()
			e.begun.tick(ctx, mode)
		}
		for ctx.Err() == nil {
			changes := e.o.ledger.Enforcement.Take(takeMost)
			if len(changes) == 0 {
				break
			}
			e.apply(ctx, changes)
		}
		if answer != nil {
			if e.carried() != "" {
				e.check(ctx) // writes again, and counts those that still wait
			}
			answer <- e.carried()
		}
	}
}

func (e *enforcer) apply(ctx context.Context, changes []ledger.Change) {
	var add []firewall.Ban
	var remove []firewall.Key
	var bans []ledger.Enforced
	var lifted []export.Key
	done := make([]ledger.Change, 0, len(changes))
	for _, c := range changes {
		if c.Ban && !c.Own && e.o.works(ctx, c.Topic, c.Target) {
			continue // the ledger lifts it, now that it is a guest
		}
		done = append(done, c)
		if p, ok := c.Target.Prefix(); ok {
			if c.Ban {
				add = append(add, firewall.Ban{Prefix: p, Topic: c.Topic, Until: c.Until, By: e.onWhoseWord(c.Topic, c.Target)})
			} else {
				remove = append(remove, firewall.Key{Prefix: p, Topic: c.Topic})
			}
		}
		if c.Ban {
			bans = append(bans, c.Enforced)
		} else {
			lifted = append(lifted, export.Key{Target: c.Target, Topic: c.Topic})
		}
	}
	// Readers of lists and the wallet gate first: an enforcer can be slow.
	e.toTable(bans, lifted)
	var err error
	if e.fw != nil && len(add)+len(remove) > 0 {
		err = e.fw.Apply(ctx, add, remove)
	}
	if err != nil && ctx.Err() == nil {
		e.o.log.ErrorContext(ctx, "bans not written, pending", slog.Any("error", err))
	}
	e.note(err)
	written := make([]export.Key, 0, len(bans))
	for _, b := range bans {
		written = append(written, export.Key{Target: b.Target, Topic: b.Topic})
	}
	e.written.add(e.o.now(), written, lifted)
	mode, _ := e.Enforcement()
	e.begun.add(ctx, bans, mode)
	if e.o.noted != nil {
		e.o.noted(done, err)
	}
	if err == nil && e.fw != nil && e.o.inKernel != nil {
		for _, c := range done {
			if _, ok := c.Target.Prefix(); ok && c.Ban && c.Was.IsZero() {
				e.o.inKernel(c)
			}
		}
	}
}

// toTable tells the readers of lists, checks and streams.
func (e *enforcer) toTable(bans []ledger.Enforced, lifted []export.Key) {
	entries := make([]export.Entry, 0, len(bans))
	for _, b := range bans {
		entries = append(entries, export.Entry{Target: b.Target, Topic: b.Topic, Until: b.Until, Class: b.Class, Here: b.Own})
	}
	e.o.table.Apply(entries, lifted)
}

// check lets the firewall look for drift and write pending bans.
func (e *enforcer) check(ctx context.Context) {
	if e.fw == nil {
		return
	}
	e.forgotten.look(ctx, e.o.now(), e.fw, e.remembered())
	drift, err := e.fw.Check(ctx)
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	// A fault that stays is said again once a minute, not with every check.
	again := err != nil && (e.fault == nil || e.fault.Error() != err.Error() || e.o.now().Sub(e.said) >= time.Minute)
	if again {
		e.said = e.o.now()
	}
	if drift.Changed || e.drift.Pending > 0 || e.fault != nil {
		e.settled = e.o.now()
	}
	e.drift, e.fault = drift, err
	e.mu.Unlock()
	// The firewall itself logs its repairs.
	if again {
		e.o.log.ErrorContext(ctx, "firewall check failed", slog.Any("error", err))
	}
}

// remembered lists the topics whose connections the kernel is to remember.
func (e *enforcer) remembered() (list []ban.Topic) {
	for _, t := range e.o.settings().Topics() {
		if t.Scope.Remembers() {
			list = append(list, t.Topic)
		}
	}
	return list
}

func (e *enforcer) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil {
		e.settled = e.o.now()
	}
	e.fault = err
}

// Counters implements [api.Firewall].
func (e *enforcer) Counters(ctx context.Context) (map[ban.Topic]firewall.Counter, bool) {
	if e.fw == nil {
		return nil, false
	}
	counters, err := e.fw.Counters(ctx)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.uncounted = err
	return counters, err == nil
}

// Holds implements [api.Firewall].
func (e *enforcer) Holds(ctx context.Context, t ban.Target) (firewall.Held, bool) {
	if e.fw == nil {
		return firewall.Held{}, false
	}
	return kernelHolds(ctx, e.o.settings(), t)
}

// Remembers implements [api.Firewall].
func (e *enforcer) Remembers() bool { return e.fw != nil }

// Warnings implements [api.Firewall].
func (e *enforcer) Warnings(ctx context.Context) (list []control.Warning) {
	list = slices.Concat(e.leftovers.warnings(ctx), e.forgotten.warnings(), e.ports.warnings(e.o.settings()))
	if e.fw == nil {
		if mode, _ := e.Enforcement(); mode != "off" {
			list = append(list, api.NotEnforcing.Warn("bans are not enforced: "+e.can.Reason, e.can.Fix))
		}
		return list
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.uncounted != nil {
		list = append(list, api.NoCounters.Warn("the kernel's counters cannot be read: "+e.uncounted.Error(), ""))
	}
	if e.drift.Off {
		list = append(list, api.FirewallOff.Warn("enforcement was switched off by hand: no ban is in force", ""))
	}
	if e.untracked != nil {
		list = append(list, api.NoTracking.Warn("connections are neither limited nor remembered: "+e.untracked.Error(), ""))
	}
	if e.untrapped != nil {
		list = append(list, api.NoHoneyports.Warn("honeyports are not watched: "+e.untrapped.Error(), ""))
	}
	switch {
	case errors.Is(e.fault, firewall.ErrFull):
		list = append(list, api.FirewallFull.Warn(e.fault.Error(), ""))
	case e.fault != nil:
		list = append(list, api.FirewallRefuses.Warn("the firewall refuses writes: "+e.fault.Error(), ""))
	case e.drift.Pending > 0:
		list = append(list, api.FirewallPending.Warn(fmt.Sprintf("%d bans wait to be written", e.drift.Pending), ""))
	}
	return list
}

func (e *enforcer) close() error {
	if e.fw == nil {
		return nil
	}
	if err := e.fw.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("closing the firewall: %w", err)
	}
	return nil
}
