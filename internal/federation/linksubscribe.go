package federation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// want sets the subscriptions. base is the topics that the link listens to all the time,
// fetch those that are wanted now; a higher attempt asks for it again.
func (l *link) want(base listening, generation int, fetch map[string]int) {
	l.mu.Lock()
	l.base, l.baseGen, l.fetch = base, generation, fetch
	l.mu.Unlock()
	select {
	case l.subReady <- struct{}{}:
	default:
	}
}

// wantIfNew is want, unless nothing has changed.
func (l *link) wantIfNew(base listening, generation int, fetch map[string]int) {
	l.mu.Lock()
	same := l.baseGen == generation && l.wanted != nil && maps.Equal(l.wanted, fetch)
	l.wanted = fetch
	l.mu.Unlock()
	if !same {
		l.want(base, generation, fetch)
	}
}

// subscriber makes the subscriptions at the broker those of want.
func (l *link) subscriber(ctx context.Context, c mqtt.Client) error {
	have, fetched := map[string]bool{}, map[string]int{}
	caught := map[string]int{} // by live filter, how many of its filters were asked
	generation, first := -1, true
	refused, again := map[string]bool{}, backoffTimer{least: refusedLeast, most: refusedMost}
	defer again.stop()
	var late lingering
	for {
		l.mu.Lock()
		base, gen, fetch := l.base, l.baseGen, l.fetch
		l.mu.Unlock()
		var add, drop []string
		if gen != generation {
			for t := range base {
				if !have[t] {
					add = append(add, t)
				}
			}
			for t := range have {
				if _, ok := base[t]; !ok {
					drop = append(drop, t)
				}
			}
			generation = gen
		}
		for t, attempt := range fetch {
			if was, ok := fetched[t]; !ok && !slices.Contains(add, t) || ok && was != attempt {
				add = append(add, t)
			}
			fetched[t] = attempt
		}
		for t := range fetched {
			if _, ok := fetch[t]; !ok {
				delete(fetched, t)
				if _, ok := base[t]; !ok {
					drop = append(drop, t)
				}
			}
		}
		for t := range refused {
			_, inBase := base[t]
			_, inFetch := fetch[t]
			switch {
			case !inBase && !inFetch:
				delete(refused, t)
			case again.due && !slices.Contains(add, t):
				add = append(add, t)
			}
		}
		slices.Sort(add)
		if err := l.unsubscribe(ctx, c, drop); err != nil {
			return err
		}
		for _, t := range drop {
			delete(have, t)
			delete(caught, t)
		}
		if err := l.subscribe(ctx, c, add, base, refused); err != nil {
			return err
		}
		again.set(len(refused) > 0)
		l.mu.Lock()
		l.refused = maps.Clone(refused)
		l.answered = maps.Clone(fetched)
		for t := range refused {
			delete(l.answered, t)
		}
		l.mu.Unlock()
		for _, t := range add {
			if _, ok := base[t]; ok {
				have[t] = true
			}
		}
		var behind []string // live filters that have filters to ask
		for t, h := range base {
			if have[t] && !refused[t] && caught[t] < len(h.catchUp) {
				behind = append(behind, t)
			}
		}
		if first && gen > 0 {
			first = false
			select {
			case l.up <- l:
			case <-ctx.Done():
				return nil
			}
		}
		if len(behind) > 0 {
			used := func(t string) bool { _, ok := fetched[t]; return ok || have[t] }
			if err := l.catchUp(ctx, c, base, behind, caught, &late, used); err != nil {
				return err
			}
		}
		select {
		case <-l.subReady:
		case <-late.c():
			if err := l.unsubscribe(ctx, c, late.take(0, func(t string) bool { _, ok := fetched[t]; return ok || have[t] })); err != nil {
				return err
			}
		case <-again.c():
			again.due = true
		case <-ctx.Done():
			return nil
		}
	}
}

// A backoffTimer is due after a pause that doubles while it stays set.
type backoffTimer struct {
	least, most time.Duration
	due         bool // the pause is over; set begins the next

	pause time.Duration
	timer *time.Timer
}

// set begins a pause unless one lasts, or ends them.
func (b *backoffTimer) set(on bool) {
	switch {
	case !on:
		b.stop()
		b.pause, b.due, b.timer = 0, false, nil
	case b.timer == nil || b.due:
		b.pause = min(b.most, max(b.least, 2*b.pause))
		b.due, b.timer = false, time.NewTimer(b.pause)
	}
}

func (b *backoffTimer) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *backoffTimer) c() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

func (l *link) unsubscribe(ctx context.Context, c mqtt.Client, topics []string) error {
	for part := range slices.Chunk(topics, 100) {
		if err := wait(ctx, c.Unsubscribe(part...), ackTimeout); err != nil {
			return fmt.Errorf("unsubscribing: %w", err)
		}
	}
	return nil
}

// subscribe asks in batches, each after the retained messages of the one
// before have come, and notes which ones the broker refuses.
//
// At QoS 0: a message that is lost shows by its number, at latest with the next
// head, and some brokers keep a queue on disk for each filter of QoS 1.
func (l *link) subscribe(ctx context.Context, c mqtt.Client, topics []string, weights listening, refused map[string]bool) error {
	for len(topics) > 0 {
		batch, weight := map[string]byte{}, 0
		for len(topics) > 0 && len(batch) < filtersBatch {
			// A live filter brings nothing, other topics at least one message.
			w, ok := weights[topics[0]]
			if !ok {
				w.weight = 1
			}
			if len(batch) > 0 && weight+w.weight > subscribeWeight {
				break
			}
			weight += w.weight
			batch[topics[0]] = 0
			topics = topics[1:]
		}
		t := c.SubscribeMultiple(batch, nil)
		if err := wait(ctx, t, ackTimeout); err != nil {
			return fmt.Errorf("subscribing: %w", err)
		}
		if t, ok := t.(*mqtt.SubscribeToken); ok {
			one, more := "", 0
			for topic, code := range t.Result() {
				if code < 0x80 {
					delete(refused, topic)
				} else if !refused[topic] {
					refused[topic] = true
					one, more = topic, more+1
				}
			}
			if more > 0 {
				l.log.Warn("subscriptions_refused", "broker", l.address(), "number", more, "one", one)
			}
		}
		if len(topics) > 0 && weight > 0 {
			l.settle(ctx)
		}
	}
	return nil
}

// filtersBatch is the most filters of one SUBSCRIBE.
const filtersBatch = 256

// catchUp asks once for the retained messages that belong to live filters: for
// all of them, or where the broker has an index for those that it shows to be
// new. Brokers may hand them out some time after they have granted the filter,
// so filters are given up late.
func (l *link) catchUp(ctx context.Context, c mqtt.Client, base listening, behind []string, caught map[string]int, late *lingering, used func(string) bool) error {
	unheard, indexed := map[ban.Operator]bool(nil), false
	if l.compare != nil && (len(behind) >= indexLeast/8 || len(behind) > 0 && base[behind[0]].operator == (ban.Operator{})) {
		var err error
		if unheard, indexed, err = l.askIndex(ctx, c); err != nil {
			return err
		}
	}
	var filters []string
	weights := listening{}
	for _, t := range behind {
		h := base[t]
		from := caught[t]
		caught[t] = len(h.catchUp)
		if indexed && !unheard[h.operator] {
			continue
		}
		for i := from; i < len(h.catchUp); i++ {
			filters = append(filters, h.catchUp[i])
			weights.always(h.catchUp[i], h.weights[i])
		}
	}
	slices.Sort(filters)
	filters = slices.DeleteFunc(slices.Compact(filters), used)
	for len(filters) > 0 {
		n, weight := 0, 0
		for n < len(filters) && n < filtersBatch && (n == 0 || weight+weights[filters[n]].weight <= subscribeWeight) {
			weight += weights[filters[n]].weight
			n++
		}
		if err := l.subscribe(ctx, c, filters[:n], weights, map[string]bool{}); err != nil {
			return err
		}
		l.settle(ctx)
		late.add(filters[:n])
		filters = filters[n:]
		if err := l.unsubscribe(ctx, c, late.take(lingerMost, used)); err != nil {
			return err
		}
	}
	return nil
}

// lingerMost is how many filters linger at most, lingerFor how long the last do.
const (
	lingerMost = 1024
	lingerFor  = 2 * time.Second
)

// lingering are filters that are about to be given up.
type lingering struct {
	filters []string
	timer   <-chan time.Time
}

func (w *lingering) add(filters []string) {
	w.filters = append(w.filters, filters...)
	w.timer = time.After(lingerFor)
}

// take gives the oldest filters but for the last most, without those in use.
func (w *lingering) take(most int, used func(string) bool) (out []string) {
	n := max(0, len(w.filters)-most)
	out = slices.DeleteFunc(slices.Clone(w.filters[:n]), used)
	w.filters = slices.Delete(w.filters, 0, n)
	if len(w.filters) == 0 {
		w.timer = nil
	}
	return out
}

func (w *lingering) c() <-chan time.Time { return w.timer }

// settle waits until nothing has arrived for a moment.
func (l *link) settle(ctx context.Context) {
	most := time.NewTimer(subscribeWait)
	defer most.Stop()
	quiet := time.NewTimer(subscribeQuiet)
	defer quiet.Stop()
	for {
		select {
		case <-l.arrive:
			quiet.Reset(subscribeQuiet)
		case <-quiet.C:
			return
		case <-most.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// askIndex asks the broker which states it retains, and compares. ok is false
// where it has no index: only a broker of ours has.
func (l *link) askIndex(ctx context.Context, c mqtt.Client) (unheard map[ban.Operator]bool, ok bool, err error) {
	here := make(chan struct{})
	l.mu.Lock()
	l.theirs, l.indexHere = &wire.Index{}, here
	l.mu.Unlock()
	filter := l.indexTopic + "+"
	if err := wait(ctx, c.Subscribe(filter, 0, nil), ackTimeout); err != nil {
		return nil, false, fmt.Errorf("asking for the index: %w", err)
	}
	most := time.NewTimer(subscribeWait)
	defer most.Stop()
	select {
	case <-here:
		ok = true
	case <-most.C:
	case <-ctx.Done():
		return nil, false, nil
	}
	l.mu.Lock()
	x := l.theirs
	l.theirs, l.indexHere = nil, nil
	l.mu.Unlock()
	if err := l.unsubscribe(ctx, c, []string{filter}); err != nil || !ok {
		return nil, false, err
	}
	unheard, ok = l.compare(x)
	return unheard, ok, nil
}

// indexed takes a message of the broker's index.
func (l *link) indexed(payload []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.theirs == nil {
		return
	}
	whole, err := l.theirs.Add(payload)
	if err != nil {
		l.log.Warn("index_refused", "broker", l.url.Redacted(), "error", err)
		l.theirs = nil
		return
	}
	if whole && l.indexHere != nil {
		close(l.indexHere)
		l.indexHere = nil
	}
}
