package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
)

// chronicle notes events for the node's history. To add an event never waits for the
// disk: events queue, and one goroutine writes them.
type chronicle struct {
	o     chronicleOptions
	store *history.Store

	mu      sync.Mutex
	queue   []func() history.Event // to be asked by the writer, outside of every lock
	added   uint64                 // events that ever queued
	written uint64                 // of them, those that are written or lost
	lost    int
	pass    chan struct{} // closed when a write is done
	found   map[heldKey]detect.Decision
	fault   error // of the last write
	said    time.Time

	wake chan struct{} // capacity one
	// atStart are the bans that the node started with, until the history is
	// reconciled with them.
	atStart []ledger.Enforced
	// disputed are the disputes that the history has already: peers' disputes are
	// heard again after a start.
	disputed map[string]bool
}

type chronicleOptions struct {
	// standing gives a ban's verdict, and name an operator's name here.
	standing func(ban.Topic, ban.Target) (ledger.Standing, bool)
	name     func(ban.Operator) string
	now      func() time.Time
	log      *slog.Logger
}

const (
	// maxQueued bounds the events that wait for a slow disk: of a feed that is
	// joined, each ban is one.
	maxQueued = 32_768
	// maxFound bounds the decisions that wait for their ban to be in the kernel.
	maxFound = 4_096
	// syncEvery is how much of the history a power cut may cost.
	syncEvery = 5 * time.Second
	// flushWithin is how long a command waits for the history.
	flushWithin = time.Second
)

func openChronicle(dir string, o chronicleOptions) (*chronicle, error) {
	store, err := history.Open(dir, history.Options{Now: o.now})
	if err != nil {
		return nil, err
	}
	c := &chronicle{o: o, store: store, pass: make(chan struct{}), wake: make(chan struct{}, 1), found: map[heldKey]detect.Decision{}, disputed: map[string]bool{}}
	page, err := store.Find(history.Query{Kinds: []history.Kind{history.Dispute}, Limit: history.MaxLimit})
	if err != nil {
		return nil, err
	}
	for i := range page.Events {
		c.disputed[disputeKey(&page.Events[i])] = true
	}
	return c, nil
}

func disputeKey(e *history.Event) string {
	return fmt.Sprint(e.Topic, " ", e.Target, " ", e.By, " ", e.Until.Unix())
}

// Add implements [api.Chronicle].
func (c *chronicle) Add(e history.Event) {
	if e.At.IsZero() {
		e.At = c.o.now()
	}
	c.later(func() history.Event { return e })
}

// later notes an event that is described by the writer; one without a kind is
// none after all.
func (c *chronicle) later(describe func() history.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) >= maxQueued {
		c.lost++
		return
	}
	c.queue = append(c.queue, describe)
	c.added++
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx ends.
func (c *chronicle) run(ctx context.Context) error {
	// Before the first write: events from the start on queue.
	c.failed(ctx, c.reconcile(ctx))
	tick := time.NewTicker(syncEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.wake:
			c.write(ctx)
		case <-tick.C:
			c.write(ctx)
			c.failed(ctx, c.store.Sync())
			c.store.Expire(c.o.now())
		}
	}
}

// close writes the rest.
func (c *chronicle) close() error {
	c.Add(history.Event{Kind: history.Stop, Why: "the agent ended in order; bans stay in the kernel"})
	c.write(context.Background())
	return c.store.Close()
}

// write describes and writes the events that queue. Events that the disk does not take
// queues again, as far as there is room.
func (c *chronicle) write(ctx context.Context) {
	c.mu.Lock()
	taken, lost := c.queue, c.lost
	c.queue = nil
	c.mu.Unlock()
	events := make([]history.Event, 0, min(len(taken), 1000)+1)
	for len(taken) > 0 {
		part := taken[:min(len(taken), 1000)]
		events = events[:0]
		for _, describe := range part {
			e := describe()
			if e.Kind == history.Dispute && c.repeated(&e) {
				continue
			}
			if e.Kind != "" {
				events = append(events, e)
			}
		}
		err := c.store.Append(events)
		c.failed(ctx, err)
		c.mu.Lock()
		if err != nil {
			rest := taken
			room := max(maxQueued-len(c.queue), 0)
			if over := len(rest) - room; over > 0 {
				c.lost += over
				c.written += uint64(over)
				rest = rest[over:]
			}
			c.queue = append(slices.Clone(rest), c.queue...)
		} else {
			c.written += uint64(len(part))
		}
		close(c.pass)
		c.pass = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
		taken = taken[len(part):]
	}
	if lost > 0 {
		if c.store.Append([]history.Event{{At: c.o.now(), Kind: history.Lost, By: "this node", Count: lost, Why: "events came faster than the disk took them, or it was full"}}) == nil {
			c.mu.Lock()
			c.lost -= lost
			c.mu.Unlock()
			c.o.log.WarnContext(ctx, "events not kept in the history", slog.Int("events", lost))
		}
	}
}

// repeated says whether the history has a peer's dispute already.
func (c *chronicle) repeated(e *history.Event) bool {
	if len(e.Peers) == 0 {
		return false
	}
	key := disputeKey(e)
	if c.disputed[key] {
		return true
	}
	if len(c.disputed) < 2*history.MaxLimit {
		c.disputed[key] = true
	}
	return false
}

// failed keeps the fault of the last write for status, and says it once a minute.
func (c *chronicle) failed(ctx context.Context, err error) {
	c.mu.Lock()
	c.fault = err
	say := err != nil && c.o.now().Sub(c.said) >= time.Minute
	if say {
		c.said = c.o.now()
	}
	c.mu.Unlock()
	if say {
		c.o.log.ErrorContext(ctx, "history not written", slog.Any("error", err))
	}
}

// Flush implements [api.Chronicle]. A disk that takes nothing is not waited for
// longer than a person waits.
func (c *chronicle) Flush(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, flushWithin)
	defer cancel()
	c.mu.Lock()
	until := c.added
	for c.written < until {
		pass := c.pass
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-pass:
		}
		c.mu.Lock()
	}
	c.mu.Unlock()
}

// Find implements [api.Chronicle].
func (c *chronicle) Find(q history.Query) (history.Page, error) { return c.store.Find(q) }

// Wait implements [api.Chronicle].
func (c *chronicle) Wait(ctx context.Context, q history.Query) (history.Page, error) {
	return c.store.Wait(ctx, q)
}

// Stats implements [api.Chronicle].
func (c *chronicle) Stats() history.Stats { return c.store.Stats() }

// warnings says that the history has holes.
func (c *chronicle) warnings() []control.Warning {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.fault != nil:
		return []control.Warning{api.HistoryFault.Warn(fmt.Sprintf("the history is not written: %v; %d events wait, %d are lost", c.fault, len(c.queue), c.lost), "")}
	case c.lost > 0:
		return []control.Warning{api.HistoryFault.Warn(fmt.Sprintf("%d events are not in the history: they came faster than the disk took them", c.lost), "")}
	}
	return nil
}

// decided keeps a decision of detection until its ban is in the kernel: it is the
// evidence of the event then.
func (c *chronicle) decided(v detect.Decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) >= maxFound {
		clear(c.found) // bans that never came; those that come have less to show
	}
	c.found[heldKey{v.Topic, v.Target}] = v
}

// refused notes an offender who is not banned.
func (c *chronicle) refused(v detect.Decision, why string) {
	c.mu.Lock()
	delete(c.found, heldKey{v.Topic, v.Target})
	c.mu.Unlock()
	e := history.Event{Kind: history.Refuse, Topic: v.Topic, Target: v.Target, By: string(ledger.SourceDetection), Why: why}
	evidence(&e, v)
	c.Add(e)
}

func evidence(e *history.Event, v detect.Decision) {
	e.Count, e.First, e.Source, e.Sample, e.Port = v.Hits, v.First, v.Source, strings.TrimSpace(v.Sample), v.Port
}

// enforced notes changes of bans that enforcers have carried out, or with a fault
// have yet to.
func (c *chronicle) enforced(changes []ledger.Change, fault error) {
	at, yet := c.o.now(), ""
	if fault != nil {
		yet = "; not in the kernel yet: " + fault.Error()
	}
	for _, x := range changes {
		switch {
		case x.Ban && x.Was.IsZero():
			v := c.foundFor(x) // began takes it away
			c.later(func() history.Event { return c.began(at, x, yet) })
			if v.Watched {
				c.later(func() history.Event { return c.hit(at, x, v) })
			}
		case x.Ban:
			c.later(func() history.Event {
				e := c.began(at, x, yet)
				e.Kind = history.Extend
				return e
			})
		default:
			c.Add(history.Event{At: at, Kind: history.End, Topic: x.Topic, Target: x.Target, Why: ended(at, x) + yet, Until: x.Was})
		}
	}
}

// ended says how a ban ended.
func ended(at time.Time, x ledger.Change) string {
	switch {
	case !x.Was.After(at.Add(time.Second)):
		return "its time was over"
	case x.Why == policy.ReasonNone:
		return "the claim was withdrawn"
	}
	return x.Why.Sentence()
}

// began describes a ban by its verdict of now.
func (c *chronicle) began(at time.Time, x ledger.Change, yet string) history.Event {
	e := history.Event{At: at, Kind: history.Ban, Topic: x.Topic, Target: x.Target, Until: x.Until, By: "peers"}
	s, ok := c.o.standing(x.Topic, x.Target)
	if !ok {
		if x.Own {
			e.By = "this node"
		}
		e.Why = strings.TrimPrefix(yet, "; ")
		return e
	}
	e.Why = s.Why.Sentence()
	if s.Rule != "" && s.Why != policy.ReasonLocal {
		e.Why += ": " + s.Rule
	}
	e.Why += yet
	for _, o := range s.By {
		e.Peers = append(e.Peers, c.o.name(o))
	}
	for _, claim := range s.Claims {
		if !claim.Own {
			continue
		}
		// A person's word comes before a program's.
		if e.By == "peers" || claim.Source == ledger.SourceHand {
			e.By = sourceName(claim.Source)
			e.Source, e.Sample, e.Count = claim.Evidence.Source, strings.TrimSpace(claim.Evidence.Sample), int(claim.Hits)
		}
	}
	c.mu.Lock()
	v, found := c.found[heldKey{x.Topic, x.Target}]
	delete(c.found, heldKey{x.Topic, x.Target})
	c.mu.Unlock()
	if found {
		evidence(&e, v)
	}
	return e
}

// sourceName says a source to people.
func sourceName(s ledger.Source) string {
	if s == ledger.SourceHand {
		return "a person"
	}
	return string(s)
}

// foundFor gives the decision of detection that a ban rests on, zero for none.
func (c *chronicle) foundFor(x ledger.Change) detect.Decision {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found[heldKey{x.Topic, x.Target}]
}

// hit describes that a warning of peers came true by an offence here.
func (c *chronicle) hit(at time.Time, x ledger.Change, v detect.Decision) history.Event {
	e := history.Event{At: at, Kind: history.WatchHit, Topic: x.Topic, Target: x.Target, By: string(ledger.SourceDetection), Why: "peers warned of it, and it offended here"}
	evidence(&e, v)
	s, _ := c.o.standing(x.Topic, x.Target)
	for _, claim := range s.Claims {
		if name := c.o.name(claim.Feed.Operator); !claim.Own && !slices.Contains(e.Peers, name) {
			e.Peers = append(e.Peers, name)
		}
	}
	return e
}

// noted takes the ledger's notes about peers; its lock is held.
func (c *chronicle) noted(n ledger.Note) {
	kinds := map[ledger.NoteKind]history.Kind{
		ledger.NoteHold: history.Hold, ledger.NoteStrike: history.Strike, ledger.NoteQuarantine: history.Quarantine,
		ledger.NoteMistake: history.Withdraw, ledger.NoteDispute: history.Dispute,
	}
	at := c.o.now()
	c.later(func() history.Event {
		name := c.o.name(n.Operator)
		return history.Event{At: at, Kind: kinds[n.Kind], Topic: n.Topic, Target: n.Target, By: name, Peers: []string{name}, Why: n.Why, Until: n.Until}
	})
}

// peersChanged notes whom the rules name now and did not before, and those no longer.
func (c *chronicle) peersChanged(before, after map[string]ban.Operator) {
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if old, ok := before[name]; !ok || old != after[name] {
			c.Add(history.Event{Kind: history.Peer, By: "a person", Peers: []string{name}, Why: "named in the rules from now on: " + after[name].String()})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if now, ok := after[name]; !ok || now != before[name] {
			c.Add(history.Event{Kind: history.Peer, By: "a person", Peers: []string{name}, Why: "no longer named in the rules: " + before[name].String()})
		}
	}
}
