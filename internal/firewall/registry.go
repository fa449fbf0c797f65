package firewall

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// An Enforcer is one way to enforce bans, as an operator's settings choose it.
// But for Open its methods work beside a running agent and without one; but for
// Remove, Panic and Resume they change nothing.
type Enforcer interface {
	// Name is how settings name it.
	Name() string
	// Check says what is wrong with the setup. It starts nothing.
	Check() error
	// Tracks says whether it can limit connections and remember peers.
	Tracks() bool
	// Where says to people where its bans are: "in nftables, table inet banmesh".
	Where() string
	// Stays says to people what becomes of the bans when the agent stops.
	Stays() string
	// Probe says whether this process may enforce here.
	Probe(ctx context.Context) (Capability, error)
	// Open gives the enforcer, which has touched nothing yet.
	Open(o Options) (Firewall, error)
	// Inspect gives what is enforced now, or an [ErrUnseen]. topics are those
	// whose counters are wanted.
	Inspect(ctx context.Context, topics []ban.Topic) (Summary, error)
	// Holds gives what is done with an address now, of a prefix with its first
	// one, or an [ErrUnseen].
	Holds(ctx context.Context, p netip.Prefix) (Held, error)
	// Neighbours gives the base chains of the packet filter that incoming packets
	// can meet, sorted by hook and priority; none where they say nothing about
	// this enforcer.
	Neighbours() ([]Neighbour, error)
	// Remove takes away all that an agent left, and refuses with an [ErrBusy]
	// while one enforces, or with an [ErrUnseen].
	Remove(ctx context.Context) error
	// Panic ends all enforcement until Resume, whatever an agent learns
	// meanwhile, and says when it takes effect.
	Panic(ctx context.Context) (when string, err error)
	// Resume ends what Panic began.
	Resume(ctx context.Context) error
}

// A Setup is what an operator's settings say of an enforcer. The zero value has
// every default.
type Setup struct {
	// Table is [Config.Table].
	Table string
	// Hook is the program and its first arguments that the hook enforcer runs.
	Hook []string
	// IPTablesLegacy makes the ipset enforcer use iptables-legacy.
	IPTablesLegacy bool
	// Switch is a file that switches an enforcer without a switch in the kernel
	// off while it is there; "" is none.
	Switch string
}

// Options are what a running enforcer needs from outside.
type Options struct {
	// Logger hears of drift and of what could not be done. nil means nobody.
	Logger *slog.Logger
	// Now is the clock. nil means [time.Now].
	Now func() time.Time
}

// ErrUnseen says that what an enforcer did is not to be seen from here.
var ErrUnseen = errors.New("its bans are not to be seen from here")
