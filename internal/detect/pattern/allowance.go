package pattern

import (
	"sync/atomic"
	"time"
)

// The backtracking engine may take allowanceShare of the time, and saves up to
// allowanceSaved of it: twenty lines that run into [MatchTimeout], and two a
// second from then on. A flood of hostile lines so costs a tenth of a core, and
// an honest line between them is still looked at in its turn.
const (
	allowanceShare = 10 // one in so many
	allowanceSaved = time.Second
	// unnoticed is how long a run costs nothing: as long as honest lines take,
	// with room for a scheduler.
	unnoticed = time.Millisecond
)

// An allowance is the time that one expression may take on the backtracking
// engine. The zero value is a full one. It may be used by several goroutines.
type allowance struct {
	// spentUntil is when, in Unix nanoseconds, all that was taken is earned.
	spentUntil atomic.Int64
}

// left says whether a run may begin.
func (a *allowance) left(now time.Time) bool {
	return a.spentUntil.Load() < now.Add(allowanceShare*allowanceSaved).UnixNano()
}

// spend takes the cost of a run that began at now.
func (a *allowance) spend(now time.Time, cost time.Duration) {
	if cost <= unnoticed {
		return
	}
	for {
		was := a.spentUntil.Load()
		until := max(was, now.UnixNano()) + int64(allowanceShare*cost)
		if a.spentUntil.CompareAndSwap(was, until) {
			return
		}
	}
}
