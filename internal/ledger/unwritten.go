package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"banmesh/internal/store"
)

// ErrBehind says that too many bans wait for the disk.
var ErrBehind = errors.New("too many bans are not on disk yet")

// maxUnwritten bounds the bans that wait for the disk: an hour of fifty a second.
const maxUnwritten = 180_000

// writeAgain is how soon a write is tried again that the disk refused.
const writeAgain = time.Second

// unwritten are own claims that are in force and not on disk yet, in the order in
// which they were made. Its lock is taken last, under any other.
type unwritten struct {
	mu    sync.Mutex
	list  []unwrittenClaim
	since time.Time // when the oldest was made
	fault error     // of the last write
	ready chan struct{}
}

type unwrittenClaim struct {
	place place
	bytes []byte
	at    time.Time
}

// add queues a claim. It says whether there was room.
func (u *unwritten) add(c unwrittenClaim) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.list) >= maxUnwritten {
		return false
	}
	if len(u.list) == 0 {
		u.since = c.at
	}
	u.list = append(u.list, c)
	select {
	case u.ready <- struct{}{}:
	default: // a wake-up is pending already
	}
	return true
}

// take gives all that waits. The caller holds journalMu, and gives it back by
// [unwritten.done].
func (u *unwritten) take() []unwrittenClaim {
	u.mu.Lock()
	defer u.mu.Unlock()
	return slices.Clip(u.list)
}

// done ends a write of the first n: they wait no longer, unless it failed.
func (u *unwritten) done(n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.fault = err; err != nil {
		return
	}
	u.list = slices.Clone(u.list[n:])
	if len(u.list) > 0 {
		u.since = u.list[0].at
	}
}

func encodedOf(list []unwrittenClaim) [][]byte {
	out := make([][]byte, len(list))
	for i := range list {
		out[i] = list[i].bytes
	}
	return out
}

// Found is [Own.Ban] for an offender that detection found. It waits for no disk: the
// ban is in force when nil is returned, and on disk after the next [Own.Flush]. It is
// published from then on. Whoever saves how far a log was read flushes before, so that
// after a crash the line is read again whose ban was not written.
func (l *Own) Found(b Local) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	o, err := l.recordOf(b, now)
	if err != nil {
		return fmt.Errorf("%s: %w", b.Claim.Target, err)
	}
	if !l.unwritten.add(unwrittenClaim{o.place(), o.append(nil), now}) {
		return ErrBehind
	}
	_, told := l.ownDirty[o.place()]
	wide := map[int]bool{}
	err = l.put(&o, now, wide)
	if !told {
		delete(l.ownDirty, o.place()) // flushing tells
	}
	for topic := range wide {
		l.evaluateTopic(topic, now)
	}
	l.notify()
	return err
}

// Flush makes durable all that [Own.Found] put in force, in one write.
func (l *Own) Flush() error {
	l.journalMu.Lock()
	batch := l.unwritten.take()
	if len(batch) == 0 {
		l.journalMu.Unlock()
		return nil
	}
	next := l.ownJournal
	err := l.update(func(tx store.Tx) (err error) {
		// Cleaning asks the ledger, whose lock is not held: [Own.clean] does it.
		next, err = l.ownJournal.write(tx, encodedOf(batch), math.MaxInt/4, nil)
		return err
	})
	if err == nil {
		l.ownJournal = next
	}
	l.unwritten.done(len(batch), err)
	l.journalMu.Unlock()
	if err != nil {
		return fmt.Errorf("writing own bans: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell(batch)
	return nil
}

// tell lets claims be published that are on disk now. The lock is held.
func (l *Own) tell(batch []unwrittenClaim) {
	for _, c := range batch {
		if _, told := l.ownDirty[c.place]; !told {
			l.ownDirty[c.place] = 0
		}
	}
	l.notifyOwn()
}

// clean shortens the journal where most of it is no longer true. The lock is held.
func (l *Own) clean(now time.Time) error {
	l.journalMu.Lock()
	due := l.ownJournal.records > 2*l.feeds.own()+slack
	l.journalMu.Unlock()
	if !due {
		return nil
	}
	return l.commit(nil, now, func(store.Tx) error { return nil })
}

// Write flushes as bans are found, until ctx ends: all that came while one write
// lasted is the next one.
func (l *Own) Write(ctx context.Context) error {
	again := time.NewTicker(writeAgain)
	defer again.Stop()
	failed := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.unwritten.ready:
			if failed {
				continue // not before its time
			}
		case <-again.C:
		}
		err := l.Flush()
		if err != nil && !failed {
			l.log.ErrorContext(ctx, "bans are in force and not written, pending", slog.Any("error", err))
		}
		failed = err != nil
	}
}

// Behind tells how many bans are in force and not on disk, since when, and why the
// last write failed.
func (l *Own) Behind() (bans int, since time.Time, fault error) {
	u := &l.unwritten
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.list) == 0 {
		return 0, time.Time{}, nil
	}
	return len(u.list), u.since, u.fault
}
