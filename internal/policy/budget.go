package policy

import (
	"math"
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Budget holds the room that one operator has used in one topic. Its zero value has
// used nothing.
type Budget struct {
	Spent
	Live      int   // claims in force
	Addresses int64 // address space that they cover
}

// Spent counts the decided claims of addresses that were granted, less those
// that grew back over the days since. It is kept over restarts.
type Spent struct {
	Decided float64   `json:"decided,omitempty"`
	At      time.Time `json:"decided_at,omitzero"`
}

// Take asks for room for one more claim of target on a basis. Over any stretch
// of time it grants at most Decided + Decided × days decided claims of
// addresses.
func (b *Budget) Take(l Limits, target ban.Target, basis ban.Basis, now time.Time) bool {
	if !b.Fits(l, target, basis, now) {
		return false
	}
	if Rationed(target, basis) {
		b.Decided++
	}
	b.Use(target)
	return true
}

// Fits says whether there is room for one more claim of target on a basis.
func (b *Budget) Fits(l Limits, target ban.Target, basis ban.Basis, now time.Time) bool {
	if b.Live+1 > l.Live || b.Addresses+Addresses(target) > int64(l.Addresses) {
		return false
	}
	if !Rationed(target, basis) {
		return true
	}
	b.grow(l, now)
	return b.Decided+1 <= float64(l.Decided)
}

// Rationed says whether a claim counts against [Limits.Decided].
func Rationed(target ban.Target, basis ban.Basis) bool {
	return basis == ban.BasisDecided && target.Kind() != ban.KindWallet
}

// Use counts a claim without asking: one that was granted before a restart.
func (b *Budget) Use(target ban.Target) {
	b.Live++
	b.Addresses += Addresses(target)
}

// Give returns the room of a claim that ended. A decided claim stays counted
// for its day.
func (b *Budget) Give(target ban.Target) {
	b.Live--
	b.Addresses -= Addresses(target)
}

func (s *Spent) grow(l Limits, now time.Time) {
	if !s.At.IsZero() && now.After(s.At) {
		s.Decided = max(0, s.Decided-now.Sub(s.At).Hours()/24*float64(l.Decided))
	}
	if s.At.IsZero() || now.After(s.At) {
		s.At = now
	}
}

// A BudgetState is how much of a budget is used, for people and metrics.
type BudgetState struct {
	Live         int   `json:"live"`
	LiveMost     int   `json:"live_most"`
	Addresses    int64 `json:"addresses"`
	AddressMost  int64 `json:"addresses_most"`
	DecidedToday int   `json:"decided_today"`
	DecidedMost  int   `json:"decided_most"`
}

// State gives the numbers of a budget.
func (b *Budget) State(l Limits, now time.Time) BudgetState {
	c := *b
	c.grow(l, now)
	used := int(math.Ceil(c.Decided))
	return BudgetState{Live: b.Live, LiveMost: l.Live, Addresses: b.Addresses, AddressMost: int64(l.Addresses), DecidedToday: used, DecidedMost: l.Decided}
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
