package agent

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/firewall"
	"banmesh/internal/ledger"
)

// enforcer keeps the firewall and the exported table equal to the ledger's
// verdicts.
type enforcer struct {
	a   *agent
	fw  firewall.Firewall // nil when nothing is enforced
	why string            // why there is none, in words

	mu    sync.Mutex
	drift firewall.Drift
	fault error     // of the last write or check
	said  time.Time // when the fault was logged

	observed  map[ban.Topic]bool // as configured last; nil at first
	untracked error              // why no connections are limited and remembered; nil where they may be
}

const (
	// checkEvery is how long a ban that somebody else removed can be missing.
	checkEvery = time.Second
	// takeMost is how many changes one write carries: the batch size that was
	// measured best (docs/enforcement.md).
	takeMost = 2000
)

// newEnforcer finds out what may be done here, and puts the whole wanted state
// in force before anything else of the node runs.
func newEnforcer(ctx context.Context, a *agent) (*enforcer, error) {
	e := &enforcer{a: a}
	if e.fw = a.o.testing.firewall; e.fw == nil && a.settings.Config().Firewall.Mode != "off" {
		var err error
		e.fw, e.why, err = openFirewall(ctx, a.settings, SwitchFile(a.o.StateDir), firewall.Options{Logger: a.log, Now: a.now})
		if err != nil {
			return e, err
		}
	}
	if err := e.configure(ctx); err != nil {
		return e, err
	}
	// Desired marks everything as told, so it is asked once, for both.
	list := a.ledger.Desired()
	for some := range slices.Chunk(list, takeMost) {
		e.toTable(some, nil)
	}
	if e.fw == nil {
		return e, nil
	}
	if err := e.fw.Replace(ctx, e.bansOf(list)); err != nil {
		if ctx.Err() != nil {
			return e, fmt.Errorf("putting the bans in force: %w", err)
		}
		// What could not be written is pending: a node that does not start for one
		// ban's sake enforces none.
		e.note(err)
		a.log.ErrorContext(ctx, "some bans could not be put in force and stay pending", slog.Any("error", err))
	}
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

// configure tells the firewall its scopes and what must never be banned.
func (e *enforcer) configure(ctx context.Context) error {
	if e.fw == nil {
		return nil
	}
	c := e.a.current().FirewallConfig()
	c.Never = e.a.guard.kernel()
	err := e.fw.Configure(ctx, c)
	untracked := err
	if err != nil && ctx.Err() == nil && withoutTracking(c.Scopes) {
		// A kernel without connection tracking can enforce bans all the same.
		if err = e.fw.Configure(ctx, c); err == nil {
			e.a.log.ErrorContext(ctx, "connections are neither limited nor remembered", slog.Any("error", untracked))
		}
	}
	if err != nil {
		return fmt.Errorf("setting up the firewall: %w", err)
	}
	e.mu.Lock()
	e.untracked = untracked
	e.mu.Unlock()
	return e.relabel(ctx, c.Scopes)
}

// run carries changes of verdicts to the kernel as they come, and looks every
// second whether it still has them.
func (e *enforcer) run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.a.ledger.Changed():
		case <-tick.C:
			e.a.ledger.Expire(e.a.now())
			e.a.table.Expire()
			e.check(ctx)
		}
		for ctx.Err() == nil {
			changes := e.a.ledger.Take(takeMost)
			if len(changes) == 0 {
				break
			}
			e.apply(ctx, changes)
		}
	}
}

func (e *enforcer) apply(ctx context.Context, changes []ledger.Change) {
	var add []firewall.Ban
	var remove []firewall.Key
	var bans []ledger.Enforced
	var lifted []export.Key
	for _, c := range changes {
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
		e.a.log.ErrorContext(ctx, "some bans could not be written and stay pending", slog.Any("error", err))
	}
	e.note(err)
	mode, _ := e.enforcement()
	for _, b := range bans {
		e.a.log.InfoContext(ctx, "ban", slog.String("target", b.Target.String()), slog.String("topic", string(b.Topic)),
			slog.Time("until", b.Until), slog.String("enforcement", mode))
	}
}

// toTable tells the readers of lists, checks and streams.
func (e *enforcer) toTable(bans []ledger.Enforced, lifted []export.Key) {
	entries := make([]export.Entry, 0, len(bans))
	for _, b := range bans {
		entries = append(entries, export.Entry{Target: b.Target, Topic: b.Topic, Until: b.Until, Class: b.Class, Here: b.Own})
	}
	e.a.table.Apply(entries, lifted)
}

// check lets the firewall look for drift and write what is pending.
func (e *enforcer) check(ctx context.Context) {
	if e.fw == nil {
		return
	}
	drift, err := e.fw.Check(ctx)
	if ctx.Err() != nil {
		return
	}
	e.mu.Lock()
	// A fault that stays is said again once a minute, not with every check.
	again := err != nil && (e.fault == nil || e.fault.Error() != err.Error() || e.a.now().Sub(e.said) >= time.Minute)
	if again {
		e.said = e.a.now()
	}
	e.drift, e.fault = drift, err
	e.mu.Unlock()
	// What was changed is said by the enforcer.
	if again {
		e.a.log.ErrorContext(ctx, "checking the firewall", slog.Any("error", err))
	}
}

func (e *enforcer) note(err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = err
}

// status gives the counters and what is wrong.
func (e *enforcer) status(ctx context.Context) (counters map[ban.Topic]firewall.Counter, warnings []control.Warning) {
	if e.fw == nil {
		if mode, _ := e.enforcement(); mode != "off" {
			warnings = append(warnings, control.Warning{Code: "not-enforcing", Text: "bans are not enforced: " + e.why, Fix: "run the agent as root, or with CAP_NET_ADMIN as its systemd unit does"})
		}
		return nil, warnings
	}
	counters, err := e.fw.Counters(ctx)
	if err != nil {
		warnings = append(warnings, control.Warning{Code: "no-counters", Text: "the kernel's counters cannot be read: " + err.Error()})
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.drift.Off {
		warnings = append(warnings, control.Warning{Code: "firewall-off", Text: "enforcement was switched off by hand: no ban is in force", Fix: "agent firewall resume"})
	}
	if e.untracked != nil {
		warnings = append(warnings, control.Warning{Code: "no-tracking", Text: "connections are neither limited nor remembered: " + e.untracked.Error(), Fix: "modprobe nf_conntrack; then restart the agent"})
	}
	switch {
	case errors.Is(e.fault, firewall.ErrFull):
		warnings = append(warnings, control.Warning{Code: "firewall-full", Text: e.fault.Error(), Fix: "raise max_bans in [firewall], or accept from fewer operators"})
	case e.fault != nil:
		warnings = append(warnings, control.Warning{Code: "firewall", Text: "the firewall refuses writes: " + e.fault.Error(), Fix: "agent firewall check"})
	case e.drift.Pending > 0:
		warnings = append(warnings, control.Warning{Code: "firewall-pending", Text: fmt.Sprintf("%d bans wait to be written", e.drift.Pending)})
	}
	return counters, warnings
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
