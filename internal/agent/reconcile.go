package agent

import (
	"context"
	"fmt"
	"log/slog"

	"banmesh/internal/history"
	"banmesh/internal/ledger"
)

const (
	// mostReconciled bounds the bans without a beginning that one start adds to the
	// history: of a history that was removed, each ban in force is one.
	mostReconciled = 100_000
	// reconstructed marks an event that was not written when it happened.
	reconstructed = "reconstructed at the start"
)

// startedWith keeps the bans that are put in force at the start, which run compares with
// the history.
func (c *chronicle) startedWith(list []ledger.Enforced) { c.atStart = list }

// reconcile makes the history agree with the bans that the node started with. A kill
// loses the events that queue: bans without a beginning get one from the ledger.
// Nobody sees a ban end while the agent is down: it gets its end at the time it had.
func (c *chronicle) reconcile(ctx context.Context) error {
	list := c.atStart
	c.atStart = nil
	unknown, over, err := c.store.Reconcile(func(yield func(history.Banned) bool) {
		for _, x := range list {
			if !yield(history.Banned{Topic: x.Topic, Target: x.Target}) {
				return
			}
		}
	})
	if err != nil {
		return fmt.Errorf("reconciling the history: %w", err)
	}
	now := c.o.now()
	var events []history.Event
	for i := range over {
		last := &over[i]
		e := history.Event{At: now, Kind: history.End, Topic: last.Topic, Target: last.Target, Until: last.Until, Why: "it is not in the ledger any longer; " + reconstructed}
		if !last.Until.IsZero() && !last.Until.After(now) {
			e.At, e.Why = last.Until, "its time was over; "+reconstructed
		}
		events = append(events, e)
	}
	left := max(len(unknown)-mostReconciled, 0)
	for _, i := range unknown[:len(unknown)-left] {
		x := list[i]
		e := c.began(now, ledger.Change{Enforced: x, Ban: true}, "")
		if s, ok := c.o.standing(x.Topic, x.Target); ok && !s.Since.IsZero() && s.Since.Before(now) {
			e.At = s.Since
		}
		if e.Why != "" {
			e.Why += "; "
		}
		e.Why += reconstructed
		events = append(events, e)
	}
	if left > 0 {
		events = append(events, history.Event{At: now, Kind: history.Lost, By: "this node", Count: left, Why: "bans in force without a beginning, more than one start adds"})
	}
	for len(events) > 0 {
		some := events[:min(len(events), 1000)]
		if err := c.store.Append(some); err != nil {
			return err
		}
		events = events[len(some):]
	}
	if n := len(unknown) + len(over); n > 0 {
		c.o.log.InfoContext(ctx, "history reconciled with the ledger", slog.Int("begun", len(unknown)-left), slog.Int("ended", len(over)))
	}
	return nil
}
