package export

import (
	"time"

	"banmesh/internal/ban"
)

// A Step is one change of a [Table], also where a later one undid it.
type Step struct {
	// Entry is the ban as it is after the step; its Until is zero when it was
	// lifted or ended, and its class and origin are then those that it had.
	Entry
	// Before is the end that the ban had, zero when it is new.
	Before time.Time
}

// Lifted says that the step ended a ban.
func (s Step) Lifted() bool { return s.Until.IsZero() }

// Steps gives the steps after serial, the oldest first, at most 512, and the
// serial of the last. It fails with [ErrBehind] when they are no longer kept.
func (t *Table) Steps(serial uint64) (steps []Step, last uint64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if serial > t.serial || t.serial-serial > uint64(len(t.changes)) {
		return nil, serial, ErrBehind
	}
	last = min(t.serial, serial+batchChanges)
	for n := serial + 1; n <= last; n++ {
		c := &t.changes[(n-1)%keptChanges]
		s := Step{Entry: t.names.record(c.ban).entry(c.key.target())}
		if c.ban.until == 0 {
			s.Until = time.Time{}
		}
		if c.before != 0 {
			s.Before = time.Unix(int64(c.before), 0).UTC()
		}
		steps = append(steps, s)
	}
	return steps, last, nil
}

// Changed gives a channel that is closed when something changed after serial.
func (t *Table) Changed(serial uint64) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if serial == t.serial {
		return t.waiting
	}
	closed := make(chan struct{})
	close(closed)
	return closed
}

// Of gives the bans in force of exactly this target, one a topic.
func (t *Table) Of(target ban.Target) []Entry { return t.exact(target, seconds(t.now()), nil) }
