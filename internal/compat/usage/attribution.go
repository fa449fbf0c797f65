package usage

import (
	"iter"
	"math"
	"sync"
	"time"

	"banmesh/internal/ban"
)

// countFor is how long the bans are not counted again: programs report every
// quarter of an hour.
const countFor = 5 * time.Minute

// A Ban is one in force, by the operator on whose word it rests.
type Ban struct {
	Topic    ban.Topic
	Operator string
	Here     bool // on this node's own
}

// An Attribution divides traffic that was refused for the bans of several
// operators together: each is given the share that its bans have of them. That
// is an estimate, because nobody reports which ban met how much. Its methods may
// be called from several goroutines.
type Attribution struct {
	// Bans goes through all in force.
	Bans iter.Seq[Ban]
	// Elapsed is the time of the process.
	Elapsed func() time.Duration

	mu      sync.Mutex
	counted map[Ban]int
	at      time.Duration
	given   map[string]float64
}

// Add divides traffic among the bans that of says it was refused for.
func (a *Attribution) Add(d Dropped, of func(Ban) bool) {
	n := float64(d.Packets + d.Requests)
	if n == 0 {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := a.Elapsed(); a.counted == nil || now-a.at >= countFor {
		a.counted, a.at = map[Ban]int{}, now
		for b := range a.Bans {
			a.counted[b]++
		}
	}
	all := 0
	for b, count := range a.counted {
		if of(b) {
			all += count
		}
	}
	if a.given == nil {
		a.given = map[string]float64{}
	}
	for b, count := range a.counted {
		if !b.Here && of(b) {
			a.given[b.Operator] += n * float64(count) / float64(all)
		}
	}
}

// Of gives an operator's shares so far, in packets and requests.
func (a *Attribution) Of(operator string) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return uint64(math.Round(a.given[operator]))
}
