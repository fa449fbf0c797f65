package notify

import (
	"cmp"
	"context"
	"log/slog"
)

// watch looks at the warnings, and at the calendar.
func (n *Notifier) watch(ctx context.Context) {
	if !pause(ctx, cmp.Or(n.o.TestingLook, lookLate)) {
		return
	}
	for {
		entries, changed := n.inForce()
		if len(entries) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		n.look(ctx)
		n.weekly(ctx)
		if !pause(ctx, cmp.Or(n.o.TestingLook, lookEvery)) {
			return
		}
	}
}

func (n *Notifier) look(ctx context.Context) {
	list := n.o.Warnings(ctx)
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.s.Standings)
	news := look(n.s.Standings, list, n.o.Mend, n.o.Now())
	n.dirty = n.dirty || len(news) > 0 || len(n.s.Standings) != before
	n.add(news)
}

// weekly makes the receipt where it is due. One that is due while the node is
// off comes at the next start.
func (n *Notifier) weekly(ctx context.Context) {
	n.mu.Lock()
	w := n.s.Week
	n.mu.Unlock()
	now := n.o.Now()
	if now.Before(w.Next) {
		return
	}
	peers := n.o.Peers()
	next := newWeek(peers, now)
	if !w.Next.IsZero() {
		t, err := count(n.o.Find, w.Began, n.o.Guest)
		if err != nil {
			n.o.Log.ErrorContext(ctx, "history not read for the weekly receipt", slog.Any("error", err))
			return
		}
		n.mu.Lock()
		n.add([]Notice{w.receipt(peers, t, now)})
		n.mu.Unlock()
	}
	n.mu.Lock()
	n.s.Week, n.dirty = next, true
	n.mu.Unlock()
	n.poke()
}
