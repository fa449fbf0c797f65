package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// guard keeps the never-ban set as the machine's surroundings change, and
// gives it to whoever decides: ledger, detection and kernel.
type guard struct {
	o guardOptions

	mu      sync.RWMutex
	set     neverban.Set // against everyone's bans
	peers   neverban.Set // against the bans of others: private ranges too
	entries []neverban.Entry
	shared  neverban.Set // addresses that many people share: watched only
	sharing []neverban.Entry
	packs   []settings.Pack
	fault   error

	names names
}

// guardOptions are the inputs of a guard.
type guardOptions struct {
	settings func() *settings.Settings
	network  func() (neverban.Network, error) // nil: the kernel's
	now      func() time.Time
	log      *slog.Logger
	// changed is told that entries changed, shared that addresses that many
	// people share did. Neither is called before refresh is.
	changed func(context.Context) error
	shared  func()
}

func newGuard(ctx context.Context, o guardOptions) *guard {
	g := &guard{o: o}
	g.names = names{now: o.now, lookUp: func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}}
	g.discover(ctx)
	return g
}

// discover looks around. A failure is a warning: a set that lacks an
// entry is better than none, and a node that does not start protects nobody.
func (g *guard) discover(ctx context.Context) (never, shared bool) {
	s, now := g.o.settings(), g.o.now()
	o := s.NeverBanOptions(now)
	o.Resolve, o.Network = g.names.resolve, g.o.network
	set, entries, err := neverban.Discover(ctx, o)
	sharing := s.Shared(now)
	g.mu.Lock()
	defer g.mu.Unlock()
	never, shared = !slices.Equal(g.entries, entries), !slices.Equal(g.sharing, sharing)
	// A neighbour in a private network can attack, and this node can see it;
	// a peer's 192.168.1.7 is another machine.
	g.set, g.peers, g.entries, g.fault = neverban.NewSet(neverban.WithoutPrivate(entries)), set, entries, err
	g.shared, g.sharing, g.packs = neverban.NewSet(sharing), sharing, s.Packs()
	return never, shared
}

// refresh looks around again and passes changes on.
func (g *guard) refresh(ctx context.Context) error {
	never, shared := g.discover(ctx)
	if shared {
		g.o.shared()
	}
	if !never {
		return nil
	}
	if err := g.o.changed(ctx); err != nil {
		return fmt.Errorf("never-ban: %w", err)
	}
	g.o.log.InfoContext(ctx, "never-ban list refreshed", slog.Int("entries", len(g.list())))
	return nil
}

// run refreshes the set whenever addresses, routes or logins change.
func (g *guard) run(ctx context.Context) error {
	due := make(chan struct{}, 1)
	watching := make(chan error, 1)
	go func() {
		watching <- neverban.Watch(ctx, func() {
			select {
			case due <- struct{}{}:
			default: // a refresh is due already
			}
		})
	}()
	// Where the kernel cannot be watched, a look every few seconds does.
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			if watching != nil {
				<-watching
			}
			return nil
		case err := <-watching:
			watching = nil
			if ctx.Err() == nil {
				g.o.log.WarnContext(ctx, "network changes not watched, polled instead", slog.Any("error", err))
			}
			continue
		case <-due:
		case <-tick.C:
		}
		if err := g.refresh(ctx); err != nil && ctx.Err() == nil {
			g.o.log.ErrorContext(ctx, "never-ban list not refreshed", slog.Any("error", err))
		}
	}
}

func (g *guard) protection() policy.Protection {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.set
}

func (g *guard) peersProtection() policy.Protection {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.peers
}

// refusesPeers says why a target is banned by nobody's word but perhaps this node's.
func (g *guard) refusesPeers(t ban.Target) (why string, ok bool) {
	for _, p := range []policy.Protection{g.protection(), g.peersProtection()} {
		if why, ok = p.Protects(t); ok {
			return why, ok
		}
	}
	return "", false
}

// inside gives the shared network that a prefix is in.
func (g *guard) inside(p netip.Prefix) (neverban.Entry, bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shared.Inside(p)
}

// caution gives the addresses that many people share.
func (g *guard) caution() policy.Protection {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shared
}

// packSoon is how long before its end a pack is worth a word.
const packSoon = 7 * 24 * time.Hour

// warnings gives the conditions of the lists.
func (g *guard) warnings() (list []control.Warning) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.fault != nil {
		list = append(list, api.NeverBanFault.Warn("the never-ban list may lack entries: "+g.fault.Error(), ""))
	}
	for _, p := range g.packs {
		if left := p.Expires.Sub(g.o.now()); left <= 0 {
			list = append(list, api.Pack.Warn(fmt.Sprintf("the pack %s has ended and shields nothing", p.Name), "agent allow pack add FILE, with a newer one; or agent allow pack remove "+p.Name))
		} else if left < packSoon {
			list = append(list, api.Pack.Warn(fmt.Sprintf("the pack %s ends on %s", p.Name, p.Expires.Format(time.DateOnly)), ""))
		}
	}
	return list
}

// everything lists the entries that shield here, shared addresses last.
func (g *guard) everything() []neverban.Entry {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Concat(g.entries, g.sharing)
}

// kernel gives the prefixes that the kernel checks before any ban.
func (g *guard) kernel() []netip.Prefix {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.set.Prefixes()
}

// shield gives the entry that keeps this node from banning a target.
func (g *guard) shield(t ban.Target) (neverban.Entry, bool) {
	p, ip := t.Prefix()
	if !ip {
		return neverban.Entry{}, false
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.set.Overlaps(p)
}

// ignored says whether an offender is none for us.
func (g *guard) ignored(t ban.Target) bool {
	_, protected := g.protection().Protects(t)
	return protected
}

func (g *guard) list() []neverban.Entry {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return slices.Clone(g.entries)
}
