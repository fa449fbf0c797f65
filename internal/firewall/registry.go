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
	// Check gives the faults of the setup. It starts nothing.
	Check() error
	// Tracks says whether it can limit connections and remember peers.
	Tracks() bool
	// Where says to people where its bans are: "in nftables, table inet banmesh".
	Where() string
	// Stays says to people how the bans go on when the agent stops.
	Stays() string
	// Probe says whether this process may enforce here.
	Probe(ctx context.Context) (Capability, error)
	// Open gives the enforcer, which has touched nothing yet.
	Open(o Options) (Firewall, error)
	// Inspect sums up the bans enforced now, or an [ErrUnseen]. topics are those
	// whose counters are wanted.
	Inspect(ctx context.Context, topics []ban.Topic) (Summary, error)
	// Holds says how packets of an address fare now, of a prefix with its first
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
	// Resume undoes Panic.
	Resume(ctx context.Context) error
}

// A Setup is an operator's choice of an enforcer. The zero value has
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

// A Restorer is a program that loads saved rules of the packet filter at boot.
type Restorer struct {
	Name string `json:"name"`
	// Files are those of its saved rules that name objects of ours.
	Files []string `json:"files,omitempty"`
	// Fails says that it would load nothing at the next boot, for our sake.
	Fails bool   `json:"fails"`
	Text  string `json:"text"`          // for people
	Fix   string `json:"fix,omitempty"` // a command
}

// Options are the surroundings of a running enforcer.
type Options struct {
	// Logger hears of drift and of failures. nil means nobody.
	Logger *slog.Logger
	// Now is the clock. nil means [time.Now].
	Now func() time.Time
}

// ErrUnseen says that nobody but the enforcer's own program knows its bans.
var ErrUnseen = errors.New("its bans are not to be seen from here")
