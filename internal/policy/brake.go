package policy

import "time"

// A Guard brakes a feed that adds more in an hour than its own turnover lets
// expect. It measures what counted, so what had to wait teaches it nothing:
// who floods does not make floods usual. Its zero value has seen nothing.
type Guard struct {
	Start time.Time `json:"start,omitzero"` // of the hour that is being counted
	Added int       `json:"added,omitempty"`
	Over  int       `json:"over,omitempty"`  // additions of the hour that had to wait
	Usual float64   `json:"usual,omitempty"` // additions an hour, decaying average
	// Away is how many additions count beside those of the hour: of the time in
	// which this node heard nothing.
	Away int `json:"away,omitempty"`
	// Open is until when a person lets everything count.
	Open time.Time `json:"open,omitzero"`
	// Since is when the feed began to wait; zero where nothing of it does.
	Since time.Time `json:"held_since,omitzero"`
}

// memory is the share of an hour in the average: about half a day of memory.
const memory = 0.1

// turnoverOf estimates the hourly turnover of a feed from its size: bans
// usually last a day.
const turnoverOf = 24

// Add counts an addition to a feed. It reports whether the addition counts at
// once; otherwise it has to wait for a person.
func (g *Guard) Add(l Limits, now time.Time) bool {
	g.roll(now)
	switch {
	case l.PerHour == 0, now.Before(g.Open):
	case g.Added < g.allowed(l):
	case g.Away > 0:
		g.Away--
		return true
	default:
		if g.Over++; g.Since.IsZero() {
			g.Since = now
		}
		return false
	}
	g.Added++
	return true
}

// Join tells the size of a feed that is heard for the first time: its whole
// state is no flood, and says how much it turns over.
func (g *Guard) Join(live int, now time.Time) {
	g.roll(now)
	g.Usual = max(g.Usual, float64(live)/turnoverOf)
}

// Credit lets the additions of a time in which this node was away count, so
// that what honest peers did meanwhile is not late.
func (g *Guard) Credit(l Limits, away time.Duration) {
	g.Away += int(away.Hours() * float64(g.allowed(l)))
}

// Approve lets everything count until a time, and ends the wait. The ledger
// lets what waits count.
func (g *Guard) Approve(until, now time.Time) {
	g.roll(now)
	g.Over, g.Since = 0, time.Time{}
	if until.After(g.Open) {
		g.Open = until
	}
}

// Settled says that nothing of the feed waits any longer.
func (g *Guard) Settled() { g.Over, g.Since = 0, time.Time{} }

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
	for range min(hours-1, 100) { // quiet hours; after a hundred nothing is left
		g.Usual -= memory * g.Usual
	}
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
	Open    time.Time `json:"open_until,omitzero"`
}

// State gives the numbers of a guard.
func (g *Guard) State(l Limits, now time.Time) Brake {
	c := *g
	c.roll(now)
	b := Brake{Usual: c.Usual, Allowed: c.allowed(l), Added: c.Added, Over: c.Over, Since: c.Since}
	if now.Before(c.Open) {
		b.Open = c.Open
	}
	return b
}
