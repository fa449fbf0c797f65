package policy

import (
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Budget holds the room that one operator has used in one topic. Its zero value has
// used nothing.
type Budget struct {
	decided   float64 // decided claims of addresses, grown back over a day
	at        time.Time
	Live      int   // claims in force
	Addresses int64 // address space that they cover
}

// Take asks for room for one more claim of target on a basis. Over any stretch
// of time it grants at most Decided + Decided × days decided claims of
// addresses.
func (b *Budget) Take(l Limits, target ban.Target, basis ban.Basis, now time.Time) bool {
	size := Addresses(target)
	if b.Live+1 > l.Live || b.Addresses+size > int64(l.Addresses) {
		return false
	}
	if basis == ban.BasisDecided && target.Kind() != ban.KindWallet {
		b.grow(l, now)
		if b.decided+1 > float64(l.Decided) {
			return false
		}
		b.decided++
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

// Give returns the room of a claim that ended. A decided claim stays counted
// for its day.
func (b *Budget) Give(target ban.Target) {
	b.Live--
	b.Addresses -= Addresses(target)
}

func (b *Budget) grow(l Limits, now time.Time) {
	if !b.at.IsZero() && now.After(b.at) {
		b.decided = max(0, b.decided-now.Sub(b.at).Hours()/24*float64(l.Decided))
	}
	if b.at.IsZero() || now.After(b.at) {
		b.at = now
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
	used := int(c.decided)
	if float64(used) < c.decided {
		used++
	}
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
