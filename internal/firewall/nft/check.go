package nft

import (
	"context"
	"errors"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// clock notices when the wall clock is set: the kernel counts the time that
// bans have left, so it must be told anew.
type clock struct {
	at   time.Time // the present, for timeouts
	last time.Time // at the last Check
	mono time.Duration
}

// jumped says by how much the wall clock moved otherwise than time passed since
// the last call. A suspended machine looks like that, too: its kernel's timers
// stood still.
func (c *clock) jumped(now time.Time, mono time.Duration) time.Duration {
	defer func() { c.last, c.mono = now, mono }()
	if c.last.IsZero() {
		return 0
	}
	return now.Round(0).Sub(c.last.Round(0)) - (mono - c.mono)
}

// monotonic is the clock that kernel timers run by.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

const (
	// clockSlack is how far the wall clock may drift between two checks before
	// timeouts are written anew.
	clockSlack = 5 * time.Second
	// countSlack is how long after its end an element may still be counted, and
	// how exactly the kernel's timers and our clock agree.
	countSlack = 3
	// verifyEvery is how often the table is looked at though nobody seems to have
	// written.
	verifyEvery = 5 * time.Minute
)

func isGone(err error) bool { return errors.Is(err, unix.ENOENT) }

// Check implements [Firewall].
func (n *Firewall) Check(ctx context.Context) (firewall.Drift, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(n.usable(), ctx.Err()); err != nil {
		return firewall.Drift{}, err
	}
	var d firewall.Drift
	err := n.check(ctx, &d)
	d.Changed = d.Changed || len(d.What) > 0
	d.Pending, d.Bans, d.Off = len(n.pending), n.state.Size(), n.off
	if n.reload != reloadNone && !n.off {
		d.Pending = d.Bans
	}
	d.Cured = d.Changed && err == nil && d.Pending == 0 && n.suspectAt.IsZero()
	if d.Changed {
		n.log.Warn("firewall was changed by another program", "what", strings.Join(d.What, "; "), "cured", d.Cured)
	}
	return d, err
}

func (n *Firewall) check(ctx context.Context, d *firewall.Drift) error {
	n.clock.at = n.now()
	now := desired.SecondOf(n.clock.at)
	if j := n.clock.jumped(n.clock.at, n.test.mono()); j.Abs() > clockSlack {
		n.log.Info("the clock was set; bans are written anew", "by", j.Round(time.Second))
		n.reload = reloadForced
		n.wide[0].dirty, n.wide[1].dirty = true, true
		n.wide[0].unknown, n.wide[1].unknown = true, true
	}
	if _, wide := n.state.Sweep(now-countSlack, false); wide {
		n.wide[0].dirty, n.wide[1].dirty = true, true
	}
	gen, err := n.k.generation()
	if err != nil {
		return errors.Join(n.explain("reading the generation", err), n.reopen())
	}
	moved := gen != n.gen || n.foreign || n.clock.at.Sub(n.verified) > verifyEvery
	if moved {
		if err := n.obeySwitch(d); err != nil {
			return err
		}
	}
	if n.off {
		n.gen, n.foreign = gen, false
		return nil
	}
	if !n.adopted {
		return nil
	}
	if moved {
		if err := n.verifyTable(d); err != nil {
			return err
		}
	}
	if moved && n.reload == reloadNone && len(n.pending) == 0 {
		if err := n.verifyBans(now, d); err != nil {
			return err
		}
	}
	if moved {
		n.foreign, n.verified = false, n.clock.at
		if n.gen, err = n.k.generation(); err != nil {
			return n.explain("reading the generation", err)
		}
	}
	n.clock.at = n.now() // to read the maps takes its time
	now = desired.SecondOf(n.clock.at)
	if n.reload == reloadNone {
		if err := n.walkSome(now, d); err != nil {
			return err
		}
	}
	return errors.Join(n.writeAll(ctx, now), n.cut())
}

// writeAll writes all that is pending, and then looks for bans that nobody
// wants where there may be any.
func (n *Firewall) writeAll(ctx context.Context, now desired.Second) error {
	err := n.flushPending(ctx)
	if err == nil && !n.suspectAt.IsZero() && n.reload == reloadNone && len(n.pending) == 0 {
		if err = n.removeStrangers(now); err == nil {
			err = n.flushPending(ctx)
		}
	}
	return errors.Join(err, n.writeDirty(now))
}
