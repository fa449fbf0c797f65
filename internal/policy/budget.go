package policy

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Budget is what one operator has used up in one topic. Its zero value is
// full. Over any stretch of time it grants at most Burst + PerHour × hours new
// claims, plus what [Budget.Credit] added.
type Budget struct {
	spent     float64 // tokens taken and not grown back
	at        time.Time
	Live      int   // claims in force
	Addresses int64 // address space that they cover
}

// Take asks for room for one more claim of target. rated says whether it costs
// a token.
func (b *Budget) Take(l Limits, target ban.Target, rated bool, now time.Time) bool {
	size := Addresses(target)
	if b.Live+1 > l.Live || b.Addresses+size > int64(l.Addresses) {
		return false
	}
	if rated {
		b.grow(l, now)
		if b.spent+1 > float64(l.Burst) {
			return false
		}
		b.spent++
	}
	b.Live++
	b.Addresses += size
	return true
}

// Use counts a claim without asking: one that was granted before a restart.
func (b *Budget) Use(target ban.Target) {
	b.Live++
	b.Addresses += Addresses(target)
}

// Give returns the room of a claim that ended. The token stays spent.
func (b *Budget) Give(target ban.Target) {
	b.Live--
	b.Addresses -= Addresses(target)
}

// Credit adds the tokens of a time in which this node was away and heard
// nothing, so that what honest peers did meanwhile is not late.
func (b *Budget) Credit(l Limits, away time.Duration, now time.Time) {
	b.grow(l, now)
	b.spent -= away.Hours() * float64(l.PerHour)
}

func (b *Budget) grow(l Limits, now time.Time) {
	if !b.at.IsZero() && now.After(b.at) && b.spent > 0 {
		b.spent = max(0, b.spent-now.Sub(b.at).Hours()*float64(l.PerHour))
	}
	if b.at.IsZero() || now.After(b.at) {
		b.at = now
	}
}

// Addresses is how much address space a target covers: IPv4 addresses, or IPv6
// /64s. A wallet, and anything smaller than a /64, is one.
func Addresses(t ban.Target) int64 {
	p, ok := t.Prefix()
	if !ok {
		return 1
	}
	return addresses(p)
}

func addresses(p netip.Prefix) int64 {
	whole := 32
	if p.Addr().Is6() {
		whole = 64
	}
	// More than 2^40 of anything is over every limit.
	return 1 << min(40, max(0, whole-p.Bits()))
}

// A Guard notices when a feed changes more than it usually does. Its zero
// value has seen nothing.
type Guard struct {
	Start time.Time `json:"start,omitzero"` // of the hour that is being counted
	Added int       `json:"added,omitempty"`
	Base  int       `json:"base,omitempty"`  // live claims at its start
	Usual float64   `json:"usual,omitempty"` // additions an hour, decaying average
	Known int       `json:"known,omitempty"` // hours that went into it
	Holds bool      `json:"holds,omitempty"` // more has to wait for a person
	Since time.Time `json:"held_since,omitzero"`
}

// knownHours is how long a feed must have been heard before its usual rate
// says something.
const knownHours = 24

// Add counts an addition to a feed of live claims. It reports whether the
// addition may count at once; otherwise the guard holds from now on.
func (g *Guard) Add(l Limits, live int, now time.Time) bool {
	g.roll(live, now)
	if g.Holds {
		return false
	}
	if g.Added+1 > g.allowed(l) {
		g.Holds, g.Since = true, now
		return false
	}
	g.Added++
	return true
}

// roll closes hours that are over.
func (g *Guard) roll(live int, now time.Time) {
	if g.Start.IsZero() {
		g.Start, g.Base = now, live
		return
	}
	hours := int(now.Sub(g.Start) / time.Hour)
	if hours < 1 {
		return
	}
	const weight = 0.1 // an hour counts a tenth: about half a day of memory
	g.Usual += weight * (float64(g.Added) - g.Usual)
	for range min(hours-1, 100) { // quiet hours; after a hundred nothing is left
		g.Usual -= weight * g.Usual
	}
	g.Known = min(g.Known+hours, 1<<20)
	g.Start, g.Added, g.Base = now, 0, live
}

// allowed is how many additions this hour may have.
func (g *Guard) allowed(l Limits) int {
	const none = 1 << 30
	allowed := none
	if l.HoldChange > 0 {
		allowed = g.Base * l.HoldChange / 100
	}
	if l.HoldRate > 0 && g.Known >= knownHours {
		allowed = min(allowed, int(g.Usual*float64(l.HoldRate)))
	}
	return max(allowed, l.HoldFloor)
}

// Approve ends the hold; the hour is counted anew.
func (g *Guard) Approve(live int, now time.Time) {
	g.Holds, g.Since = false, time.Time{}
	g.Start, g.Added, g.Base = now, 0, live
}
