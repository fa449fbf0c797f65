package notify

import (
	"context"
	"log/slog"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/history"
)

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow reads the history behind the cursor.
func (n *Notifier) follow(ctx context.Context) {
	for ctx.Err() == nil {
		entries, changed := n.inForce()
		if len(entries) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		n.read(ctx, entries, changed)
		if !pause(ctx, pace) {
			return
		}
	}
}

// read takes one page of events, waiting for it. Without a cursor they are those since
// the entries that want events were taken over.
func (n *Notifier) read(ctx context.Context, entries []Entry, changed <-chan struct{}) {
	q := history.Query{Kinds: wanted(entries), Follow: true, Limit: eventsAtOnce}
	n.mu.Lock()
	if q.Kinds == nil {
		n.s.Cursor = 0
	}
	if q.After = n.s.Cursor; q.After == 0 {
		q.Since = n.since
	}
	n.mu.Unlock()
	waiting, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-changed: // other kinds may be wanted
			stop()
		case <-waiting.Done():
		}
	}()
	defer func() { stop(); <-done }()
	if q.Kinds == nil {
		<-waiting.Done()
		return
	}
	page, err := n.o.Wait(waiting, q)
	if err != nil {
		n.o.Log.ErrorContext(ctx, "history not read for messages", slog.Any("error", err))
		pause(ctx, lookEvery)
		return
	}
	n.take(page)
}

// take makes notices of a page of events and moves the cursor.
func (n *Notifier) take(page history.Page) {
	var list []Notice
	for i := range page.Events {
		if x, ok := ofEvent(&page.Events[i], n.concerns); ok {
			list = append(list, x)
		}
	}
	if page.Missed {
		list = append(list, Notice{Kind: Fault, At: n.o.Now(), Text: "Events of a time in which no messages were made are no longer in the history, and are not told.", Mend: "agent history"})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.s.Cursor, n.dirty = page.Next, true
	n.add(list)
}

// add puts notices into the outboxes of those who want them. n.mu is held.
func (n *Notifier) add(list []Notice) {
	now := n.o.Now()
	for _, x := range list {
		for i := range n.entries {
			e := &n.entries[i]
			o := n.s.Outboxes[e.Name]
			kind := forEntry(e, x)
			if kind == "" || x.At.Before(o.Born.Truncate(time.Second)) {
				continue
			}
			y := x
			y.Kind = kind
			if !e.Details {
				y.Detail = ""
			}
			o.add(y, now)
			n.dirty = true
		}
	}
	n.poke()
}

// concerns says whether a mistake of a peer is this node's business: it claims the
// target too, or has banned it.
func (n *Notifier) concerns(topic ban.Topic, target ban.Target) bool {
	if n.o.Claims(topic, target) {
		return true
	}
	page, err := n.o.Find(history.Query{Target: target, Topic: topic, Kinds: []history.Kind{history.Ban}, Limit: 1})
	return err == nil && len(page.Events) > 0
}
