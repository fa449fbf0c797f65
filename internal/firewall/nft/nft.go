// Package nft enforces bans in nftables, over netlink.
package nft

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// NFTables is the [Firewall] in nftables: one table of family inet, described
// in docs/enforcement.md. It must be the only writer of its table; a lock that
// the kernel frees with the process sees to it.
type Firewall struct {
	log  *slog.Logger
	now  func() time.Time
	test testingOnly

	mu     sync.Mutex
	closed bool
	off    bool // by [Panic]
	lock   int  // descriptor of the lock, -1 without
	k      *kernel
	config firewall.Config
	ready  bool
	can    features
	owned  bool
	scopes map[ban.Topic]firewall.Scope

	configured int
	shape      shape // of have

	have    *ruleset // the table as last written or read; nil when unknown
	gen     uint32   // the generation after our last write
	foreign bool     // somebody else may have written since
	handle  uint64   // of our table, 0 when unknown
	// replaced says that the last read found another table than ours in its
	// place.
	replaced bool

	state   *desired.State
	adopted bool // the kernel's bans are known to be those of state, but for pending

	// pending are prefixes whose element in the kernel differs from state, with
	// the element that is believed to be there.
	pending map[netip.Prefix]desired.Slot
	forced  bool // which of the pending elements the kernel has is not known
	reload  reload
	// suspectAt, when set, is since when the maps may hold bans that nobody
	// wants: an earlier process left them, or another program and a cure.
	suspectAt time.Time
	// inherited says that the maps are as an earlier process left them, and were not
	// compared since.
	inherited bool

	checksumsLost bool // the checksums in the kernel are to be written anew
	// dirty are buckets that changed since their checksums were written; those
	// were taken out by the first change.
	dirty    map[uint32]bool
	verified time.Time                     // when the table was last looked at whole
	walks    [desired.KindNet6 + 1]mapWalk // of the kinds of hosts
	wide     [2]wideMap
	clock    clock

	sockets sockets
	memory  memory

	trapsDue time.Time // when the redirection of honeyports is to be extended

	batch []op // reused
}

// reload says that every ban is pending.
type reload uint8

const (
	reloadNone   reload = iota
	reloadEmpty         // to maps that are empty
	reloadForced        // to maps of unknown contents
)

// Options are the surroundings of an enforcer. The zero value will do.
type Options struct {
	// Logger hears of drift and of failures. nil means nobody.
	Logger *slog.Logger
	// Now is the clock. nil means [time.Now].
	Now func() time.Time

	testing testingOnly
}

// testing holds seams for tests.
type testingOnly struct {
	without features                 // features that the kernel is believed to lack
	commit  func(batch []byte) error // an error here stands for the kernel's
	stall   func(written, bulk int)  // called after each transaction of a bulk
	mono    func() time.Duration     // the clock of kernel timers
}

// NewNFTables gives an enforcer that has not touched the kernel yet.
func New(o Options) *Firewall {
	n := &Firewall{log: o.Logger, now: o.Now, test: o.testing, lock: -1, state: desired.New(), pending: make(map[netip.Prefix]desired.Slot), dirty: make(map[uint32]bool)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.test.mono == nil {
		n.test.mono = monotonic
	}
	if n.now == nil {
		n.now = time.Now
	}
	n.memory.now = n.now
	return n
}

var _ firewall.Firewall = (*Firewall)(nil)

// Configure implements [Firewall].
func (n *Firewall) Configure(ctx context.Context, c firewall.Config) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return firewall.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if n.configured > 0 && n.config.Table != c.Table {
		return fmt.Errorf("the table cannot change from %s to %s in a running agent", n.config.Table, c.Table)
	}
	if err := n.open(c); err != nil {
		return err
	}
	if err := n.serves(c); err != nil {
		return err
	}
	if err := n.take(c); err != nil {
		return err
	}
	off, err := n.k.exists(n.config.Table + offSuffix)
	if err != nil {
		return n.explain("looking for the switch", err)
	}
	if n.off = off; off {
		n.ready = true
		return n.switchOff()
	}
	if !n.adopted {
		// A table that an earlier process left stays in force as it is until the
		// first Replace knows which of its bans to keep.
		_, err = n.k.tableFlags()
		if err == nil || !errors.Is(err, errNoTable) {
			n.ready = err == nil
			return n.explain("looking for the table", err)
		}
	}
	if _, err = n.structure(); err != nil {
		return err
	}
	n.ready = true
	if n.adopted && !n.off {
		return n.flushPending(ctx)
	}
	return nil
}

// take makes a configuration the wanted one, and forgets bans of topics that it
// does not know.
func (n *Firewall) take(c firewall.Config) error {
	scopes := make(map[ban.Topic]firewall.Scope, len(c.Scopes))
	for _, s := range c.Scopes {
		scopes[s.Topic] = s
	}
	n.config, n.scopes = c, scopes
	n.memory.configure(c)
	n.trapsDue = time.Time{}
	n.configured++
	gone, err := n.state.Forget(func(t ban.Topic) bool { _, ok := scopes[t]; return ok }, n.second())
	if err != nil {
		return err
	}
	for _, p := range gone {
		n.note(p, desired.Slot{})
	}
	n.forced = n.forced || len(gone) > 0
	n.have = nil
	return nil
}

// open takes the lock, opens the socket and probes the kernel, once.
func (n *Firewall) open(c firewall.Config) (err error) {
	if n.lock < 0 {
		if n.lock, err = firewall.TakeLock(c.Table); err != nil {
			return err
		}
	}
	if n.k == nil {
		if n.k, err = openKernel(c.Table); err != nil {
			return err
		}
		if n.can, err = n.k.probe(); err != nil {
			_ = n.k.close()
			n.k = nil
			return err
		}
		n.can = n.can.less(n.test.without)
		if n.gen, err = n.k.generation(); err != nil {
			return n.explain("reading the generation", err)
		}
		if n.owned, err = owns(c.Owner, n.can); err != nil {
			return err
		}
	}
	return nil
}

// Counters implements [Firewall].
func (n *Firewall) Counters(ctx context.Context) (map[ban.Topic]firewall.Counter, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := errors.Join(n.usable(), ctx.Err()); err != nil {
		return nil, err
	}
	all, err := n.k.counters()
	if err != nil {
		return nil, n.explain("reading counters", err)
	}
	out := make(map[ban.Topic]firewall.Counter, len(n.config.Scopes))
	for _, s := range n.config.Scopes {
		out[s.Topic] = all[counterHead+string(s.Topic)]
	}
	return out, nil
}

// Close implements [Firewall].
func (n *Firewall) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	err := n.memory.close()
	if n.k != nil {
		if n.adopted && !n.off {
			n.clock.at = n.now()
			err = errors.Join(err, n.writeDirty(desired.SecondOf(n.clock.at)))
			if len(n.config.Honeyports) > 0 && n.have != nil {
				err = errors.Join(err, n.writeTraps(nil))
			}
		}
		err = errors.Join(err, n.k.close())
	}
	if n.sockets.conn != nil {
		err = errors.Join(err, n.sockets.conn.close())
	}
	firewall.Unlock(n.lock)
	return err
}

func (n *Firewall) usable() error {
	switch {
	case n.closed:
		return firewall.ErrClosed
	case !n.ready:
		return firewall.ErrNotConfigured
	}
	return nil
}

func (n *Firewall) second() desired.Second { return desired.SecondOf(n.now()) }

// explain gives an error of the kernel the meaning that it has for people.
func (n *Firewall) explain(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EPERM) && n.k != nil && n.have != nil:
		return fmt.Errorf("%s: %w", doing, firewall.ErrBusy)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w", doing, firewall.ErrDenied)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
