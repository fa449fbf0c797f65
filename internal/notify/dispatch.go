package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// result is how an attempt ended.
type result struct {
	name   string
	kind   Kind
	answer string
	err    error
}

// dispatch sends the due messages, one message at a time to each receiver.
func (n *Notifier) dispatch(ctx context.Context) {
	results := make(chan result)
	flying := 0
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	again := time.NewTimer(0)
	defer again.Stop()
	for ctx.Err() == nil {
		ended := false
		select {
		case <-ctx.Done():
			continue
		case <-n.wake:
		case <-again.C:
		case r := <-results:
			flying--
			n.ended(ctx, r)
			ended = true
		}
		started, next := n.start(sending, results)
		flying += started
		if due := n.save(ended || started > 0); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
		if !next.IsZero() {
			again.Reset(max(next.Sub(n.o.Now()), 10*time.Millisecond))
		}
	}
	// Those under way have a moment to arrive; the rest is sent after the next
	// start.
	grace := time.AfterFunc(stopWithin, cancel)
	defer grace.Stop()
	for ; flying > 0; flying-- {
		n.ended(ctx, <-results)
	}
}

// start begins to send the due messages, and says when others will be due.
func (n *Notifier) start(ctx context.Context, results chan<- result) (started int, next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.o.Now()
	for i := range n.entries {
		e := n.entries[i]
		o := n.s.Outboxes[e.Name]
		kind, again := o.due(&e, now)
		if kind == "" {
			if !again.IsZero() && (next.IsZero() || again.Before(next)) {
				next = again
			}
			continue
		}
		o.begin(kind)
		n.dirty = true
		m := o.Pending[kind].message(kind, &e, n.o.Page, now)
		started++
		go func() {
			answer, err := n.send(ctx, &e, m)
			results <- result{e.Name, kind, answer, err}
		}()
	}
	return started, next
}

// send makes one attempt.
func (n *Notifier) send(ctx context.Context, e *Entry, m Message) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a fault of ours: %v", r)
		}
	}()
	r, err := n.o.receiver(e)
	if err != nil {
		return "", err
	}
	return r.send(ctx, m)
}

// ended notes how an attempt ended.
func (n *Notifier) ended(ctx context.Context, r result) {
	var after time.Duration
	if refused, ok := errors.AsType[*RefusedError](r.err); ok {
		after = refused.After
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.s.Outboxes[r.name]
	if o == nil || o.flying != r.kind {
		return // the entry was taken away meanwhile
	}
	o.done(r.kind, r.answer, r.err, after, n.o.Now())
	n.dirty = true
	if r.err != nil && o.Fails == 1 {
		n.o.Log.WarnContext(ctx, "message not sent", slog.String("receiver", r.name), slog.String("error", o.Error))
	}
	if i := slices.IndexFunc(n.entries, func(e Entry) bool { return e.Name == r.name }); i >= 0 {
		o.forget(&n.entries[i])
	}
}
