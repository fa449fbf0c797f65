// Package recent remembers which addresses came to be banned and ceased to be
// in the last hours, for protocols whose readers ask for changes and were told
// an end with each ban.
//
// Such a reader keeps its own clock: it forgets a ban at the end that it was
// told, and one that was extended meanwhile has to be told again from that
// moment on. A ban that ended early has to be told as ended until then.
package recent

import (
	"container/heap"
	"context"
	"iter"
	"log/slog"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
)

const (
	// MaxEvents bounds the changes that are kept: 8 MB. A reader that is
	// further behind gets the whole.
	MaxEvents = 1 << 16
	// MaxGone bounds the early ends that are kept until the end that was told.
	MaxGone = 1 << 16
	// MaxAgain bounds the extended bans that are told again one by one; of more
	// than that the whole is told again, every ten minutes.
	MaxAgain = 1 << 17

	wholeEvery = 10 * time.Minute
)

// An Event says that a target may be banned otherwise than before. The state is
// to be asked of the table; Topic, Class and Here describe the ban that began,
// changed or ended.
type Event struct {
	Target ban.Target
	Topic  ban.Topic
	Class  ban.Class
	Here   bool
	// Told is the latest end that a reader may have been told, zero for none.
	Told time.Time
}

// A Log follows a table. Its methods may be called from several goroutines.
type Log struct {
	table   *export.Table
	now     func() time.Time
	elapsed func() time.Duration
	path    string // of the file that [Open] reads, "" for none
	log     *slog.Logger
	saved   uint64 // the serial when it was written

	mu     sync.Mutex
	serial uint64  // of the table
	first  uint64  // number of events[0], 1 at first
	events []stamp // in order
	again  dueHeap
	// wholes has the ten minutes in which more than MaxAgain come to be due.
	wholes map[time.Duration]bool
	gone   map[ban.Target]Event
	swept  time.Time // when ended entries were last removed from gone
	// lost is the number of the newest event when steps were missed.
	lost uint64
}

type stamp struct {
	Event
	at time.Duration
}

// New makes a log of a table from now on. now tells the time and elapsed how
// long the process runs, which no change of the clock moves; nil means the
// system's.
func New(table *export.Table, now func() time.Time, elapsed func() time.Duration) *Log {
	if now == nil {
		now = time.Now
	}
	if elapsed == nil {
		start := time.Now()
		elapsed = func() time.Duration { return time.Since(start) }
	}
	return &Log{table: table, now: now, elapsed: elapsed, serial: table.Serial(), first: 1, gone: map[ban.Target]Event{}, wholes: map[time.Duration]bool{}}
}

// Run follows the table until ctx ends, so that no change is lost while nobody
// asks, and keeps the file of [Open].
func (l *Log) Run(ctx context.Context) error {
	defer l.save()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		l.mu.Lock()
		l.advance()
		changed := l.table.Changed(l.serial)
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			l.save()
		case <-changed:
		}
	}
}

// Since gives the events after number seq and all of the last window, the
// oldest first, and the number of the newest. whole says that events after seq
// are missing: the reader needs everything.
func (l *Log) Since(seq uint64, window time.Duration) (events []Event, newest uint64, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance()
	newest = l.first + uint64(len(l.events)) - 1
	if seq > newest || seq+1 < l.first || seq < l.lost {
		return nil, newest, true
	}
	from := len(l.events)
	oldest := l.elapsed() - window
	for from > 0 && (l.first+uint64(from)-1 > seq || l.events[from-1].at >= oldest) {
		from--
	}
	for _, s := range l.events[from:] {
		events = append(events, s.Event)
	}
	return events, newest, false
}

// Newest gives the number of the newest event.
func (l *Log) Newest() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance()
	return l.first + uint64(len(l.events)) - 1
}

// ByTarget gives the bans in force, all of a target at once. The slice is valid until the
// next one.
func ByTarget(table *export.Table) iter.Seq[[]export.Entry] {
	return func(yield func([]export.Entry) bool) {
		_, entries := table.Snapshot()
		var of []export.Entry // those of one target come together
		for e := range entries {
			if len(of) > 0 && of[0].Target != e.Target {
				if !yield(of) {
					return
				}
				of = of[:0]
			}
			of = append(of, e)
		}
		if len(of) > 0 {
			yield(of)
		}
	}
}

// Touch makes an event of each ban in a topic, whose bans came to be told to
// readers or ceased to be, for another reason than the table's.
func (l *Log) Touch(topic ban.Topic) {
	_, entries := l.table.Snapshot()
	for e := range entries {
		if _, ok := e.Target.Prefix(); !ok || e.Topic != topic {
			continue
		}
		l.mu.Lock()
		x := Event{Target: e.Target, Topic: e.Topic, Class: e.Class, Here: e.Here, Told: e.Until}
		l.remember(x, l.now())
		l.add(x)
		l.mu.Unlock()
	}
}

// Gone gives the targets of which a reader may have been told an end that lies
// ahead and is no longer right.
func (l *Log) Gone() (list []Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance()
	now := l.now()
	for target, e := range l.gone {
		if !e.Told.After(now) {
			delete(l.gone, target)
			continue
		}
		list = append(list, e)
	}
	return list
}

// advance takes the table's new steps and due events; l.mu is held.
func (l *Log) advance() {
	for {
		steps, last, err := l.table.Steps(l.serial)
		if err != nil {
			l.serial = l.table.Serial()
			l.lose()
			continue
		}
		if len(steps) == 0 {
			break
		}
		l.serial = last
		for _, s := range steps {
			l.take(s)
		}
	}
	at := l.elapsed()
	for len(l.again) > 0 && l.again[0].at <= at {
		l.add(heap.Pop(&l.again).(stamp).Event)
	}
	for due := range l.wholes {
		if due <= at {
			delete(l.wholes, due)
			l.lose()
		}
	}
}

// lose makes every reader of before need the whole.
func (l *Log) lose() {
	l.add(Event{})
	l.lost = l.first + uint64(len(l.events)) - 1
}

// take makes events of one step.
func (l *Log) take(s export.Step) {
	if _, ok := s.Target.Prefix(); !ok {
		return // a wallet
	}
	e := Event{Target: s.Target, Topic: s.Topic, Class: s.Class, Here: s.Here, Told: s.Before}
	now := l.now()
	rest := s.Before.Sub(now)
	switch {
	case s.Before.IsZero() || rest <= 0:
	case s.Lifted() || s.Until.Before(s.Before):
		l.remember(e, now)
	case s.Until.After(s.Before):
		// One second more than the rest: readers round up.
		l.tellAgain(stamp{e, l.elapsed() + rest + time.Second})
	}
	l.add(e)
}

func (l *Log) tellAgain(s stamp) {
	if len(l.again) < MaxAgain {
		heap.Push(&l.again, s)
		return
	}
	l.wholes[s.at.Truncate(wholeEvery)+wholeEvery] = true
}

// remember keeps an early end until the end that was told.
func (l *Log) remember(e Event, now time.Time) {
	if had, ok := l.gone[e.Target]; ok && had.Told.After(e.Told) {
		return
	}
	if len(l.gone) >= MaxGone {
		if !l.swept.IsZero() && now.Sub(l.swept).Abs() < time.Minute {
			return // as below, without a search through all for each
		}
		l.swept = now
		for target, x := range l.gone {
			if !x.Told.After(now) {
				delete(l.gone, target)
			}
		}
		if len(l.gone) >= MaxGone {
			return // readers keep such a ban until the end that they were told
		}
	}
	l.gone[e.Target] = e
}

// add appends an event and drops the oldest beyond the bound.
func (l *Log) add(e Event) {
	if len(l.events) >= MaxEvents {
		drop := MaxEvents / 4
		l.events = append(l.events[:0], l.events[drop:]...)
		l.first += uint64(drop)
	}
	l.events = append(l.events, stamp{e, l.elapsed()})
}

// dueHeap has the soonest first.
type dueHeap []stamp

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(stamp)) }
func (h *dueHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}
