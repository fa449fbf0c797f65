package nft

import (
	"cmp"
	"context"
	"net/netip"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// An Enforcer is the [firewall.Enforcer] "nftables".
type Enforcer struct{ table string }

// NewEnforcer gives the enforcer of a setup.
func NewEnforcer(s firewall.Setup) Enforcer {
	return Enforcer{cmp.Or(s.Table, firewall.DefaultTable)}
}

var _ firewall.Enforcer = Enforcer{}

// Name implements [firewall.Enforcer].
func (Enforcer) Name() string { return "nftables" }

// Check implements [firewall.Enforcer].
func (Enforcer) Check() error { return nil }

// Tracks implements [firewall.Enforcer].
func (Enforcer) Tracks() bool { return true }

// Stays implements [firewall.Enforcer].
func (e Enforcer) Stays() string {
	return "The bans " + e.Where() + " stay in force until each of them ends; `agent firewall flush` removes them all now."
}

// Where implements [firewall.Enforcer].
func (e Enforcer) Where() string { return "in nftables, table inet " + e.table }

// Probe implements [firewall.Enforcer].
func (Enforcer) Probe(context.Context) (firewall.Capability, error) { return Probe() }

// Open implements [firewall.Enforcer].
func (Enforcer) Open(o firewall.Options) (firewall.Firewall, error) {
	return New(Options{Logger: o.Logger, Now: o.Now}), nil
}

// Inspect implements [firewall.Enforcer]. It takes milliseconds at a million
// bans, of which it reads none.
func (e Enforcer) Inspect(context.Context, []ban.Topic) (firewall.Summary, error) {
	return Inspect(e.table)
}

// Holds implements [firewall.Enforcer].
func (e Enforcer) Holds(_ context.Context, p netip.Prefix) (firewall.Held, error) {
	return Holds(e.table, p)
}

// Neighbours implements [firewall.Enforcer].
func (e Enforcer) Neighbours() ([]firewall.Neighbour, error) { return Neighbours(e.table) }

// Remove implements [firewall.Enforcer].
func (e Enforcer) Remove(context.Context) error { return Remove(e.table) }

// Panic implements [firewall.Enforcer].
func (e Enforcer) Panic(context.Context) (when string, err error) {
	if err := Panic(e.table); err != nil {
		return "", err
	}
	s, err := Inspect(e.table)
	if s.Present {
		return "the running agent, which owns the table, takes it away within seconds", err
	}
	return "no ban is enforced any more", err
}

// Resume implements [firewall.Enforcer].
func (e Enforcer) Resume(context.Context) error { return Resume(e.table) }
