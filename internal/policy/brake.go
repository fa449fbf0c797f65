package policy

import (
	"math"
	"time"
)

// A Guard brakes a feed that adds more in an hour than its own turnover lets
// expect. It measures the additions that counted; those that had to wait teach
// it nothing, so that floods do not become usual. Its zero value has seen nothing.
type Guard struct {
	Start time.Time `json:"start,omitzero"` // of the hour that is being counted
	Added int       `json:"added,omitempty"`
	Over  int       `json:"over,omitempty"`  // additions of the hour that had to wait
	Usual float64   `json:"usual,omitempty"` // additions an hour, decaying average
	// Away is how many additions count beside those of the hour: of the time in
	// which this node heard nothing.
	Away int `json:"away,omitempty"`
	// Holds says that additions wait for a person, Since from when on.
	Holds bool      `json:"holds,omitempty"`
	Since time.Time `json:"held_since,omitzero"`
}

// memory is the share of an hour in the average: a week of memory, so that who
// always takes all that is allowed gets no more than some three times as much a
// day later.
const memory = 1. / (7 * 24)

// turnoverOf estimates the hourly turnover of a feed from its size: bans
// usually last a day.
const turnoverOf = 24

// Add counts an addition to a feed. It reports whether the addition counts at
// once; otherwise it has to wait for a person.
func (g *Guard) Add(l Limits, now time.Time) bool {
	g.roll(now)
	if g.room(l) {
		return true
	}
	if g.Over++; !g.Holds {
		g.Holds, g.Since = true, now
	}
	return false
}

// Room counts one addition that waited, if the hour has room for it.
func (g *Guard) Room(l Limits, now time.Time) bool {
	g.roll(now)
	return g.room(l)
}

func (g *Guard) room(l Limits) bool {
	switch {
	case g.Added < g.allowed(l):
		g.Added++
	case g.Away > 0:
		g.Away--
	default:
		return false
	}
	return true
}

// Join counts a claim of a feed that is heard for the first time: its whole
// state is no flood, and says how much it turns over.
func (g *Guard) Join(now time.Time) {
	g.roll(now)
	g.Usual += 1. / turnoverOf
}

// Credit lets the additions of a time in which this node was away count, so
// that claims of honest peers are not late.
func (g *Guard) Credit(l Limits, away time.Duration) {
	g.Away += int(away.Hours() * float64(g.allowed(l)))
}

// Approve ends the wait and counts the hour anew.
func (g *Guard) Approve(now time.Time) {
	g.roll(now)
	g.Holds, g.Since = false, time.Time{}
	g.Added, g.Over = 0, 0
}

// roll closes hours that are over.
func (g *Guard) roll(now time.Time) {
	if g.Start.IsZero() {
		g.Start = now
		return
	}
	hours := int(now.Sub(g.Start) / time.Hour)
	if hours < 1 {
		return
	}
	g.Usual += memory * (float64(g.Added) - g.Usual)
	g.Usual *= math.Pow(1-memory, float64(hours-1)) // quiet hours
	g.Start, g.Added, g.Over = g.Start.Add(time.Duration(hours)*time.Hour), 0, 0
}

// allowed is how many additions an hour may have.
func (g *Guard) allowed(l Limits) int {
	return max(l.PerHour, int(g.Usual*float64(l.Turnover)))
}

// A Brake is how a feed stands to its own turnover, for people and metrics.
type Brake struct {
	Usual   float64   `json:"usual_per_hour"`
	Allowed int       `json:"allowed_per_hour"`
	Added   int       `json:"added_this_hour"`
	Over    int       `json:"waiting_of_this_hour"`
	Since   time.Time `json:"since,omitzero"` // since when something waits
}

// State gives the numbers of a guard.
func (g *Guard) State(l Limits, now time.Time) Brake {
	c := *g
	c.roll(now)
	return Brake{Usual: c.Usual, Allowed: c.allowed(l), Added: c.Added, Over: c.Over, Since: c.Since}
}
