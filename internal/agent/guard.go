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

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// guard keeps the never-ban set as the machine's surroundings change, and
// gives it to whoever decides: ledger, detection and kernel.
type guard struct {
	a *agent

	mu      sync.RWMutex
	set     neverban.Set // against everyone's bans
	peers   neverban.Set // against the bans of others: private ranges too
	entries []neverban.Entry
	shared  neverban.Set // what many people share: watched only
	sharing []neverban.Entry
	packs   []settings.Pack
	fault   error

	names   names
	network func() (neverban.Network, error) // nil: the kernel's
}

func newGuard(ctx context.Context, a *agent) (*guard, error) {
	g := &guard{a: a, network: a.o.testing.network}
	g.names = names{now: a.now, lookUp: func(ctx context.Context, name string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}}
	g.discover(ctx)
	return g, nil
}

// discover looks around. What cannot be read is a warning: a set that lacks an
// entry is better than none, and a node that does not start protects nobody.
func (g *guard) discover(ctx context.Context) (never, shared bool) {
	s, now := g.a.current(), g.a.now()
	o := s.NeverBanOptions(now)
	o.Resolve, o.Network = g.names.resolve, g.network
	set, entries, err := neverban.Discover(ctx, o)
	sharing := s.Shared(now)
	g.mu.Lock()
	defer g.mu.Unlock()
	never, shared = !slices.Equal(g.entries, entries), !slices.Equal(g.sharing, sharing)
	// A neighbour in a private network can attack, and this node can see it;
	// what a peer calls 192.168.1.7 is another machine.
	g.set, g.peers, g.entries, g.fault = neverban.NewSet(neverban.WithoutPrivate(entries)), set, entries, err
	g.shared, g.sharing, g.packs = neverban.NewSet(sharing), sharing, s.Packs()
	return never, shared
}

// refresh looks around again and passes on what is new.
func (g *guard) refresh(ctx context.Context) error {
	never, shared := g.discover(ctx)
	if shared {
		g.a.ledger.SetCaution(g.caution())
	}
	if !never {
		return nil
	}
	g.a.ledger.SetNeverBan(g.protection(), g.peersProtection())
	if err := g.a.enforcer.configure(ctx); err != nil {
		return fmt.Errorf("never-ban: %w", err)
	}
	g.a.log.InfoContext(ctx, "never-ban list refreshed", slog.Int("entries", len(g.list())))
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
				g.a.log.WarnContext(ctx, "network changes are looked for every few seconds", slog.Any("error", err))
			}
			continue
		case <-due:
		case <-tick.C:
		}
		if err := g.refresh(ctx); err != nil && ctx.Err() == nil {
			g.a.log.ErrorContext(ctx, "refreshing the never-ban list", slog.Any("error", err))
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

// caution gives the addresses that many people share.
func (g *guard) caution() policy.Protection {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.shared
}

// packSoon is how long before its end a pack is worth a word.
const packSoon = 7 * 24 * time.Hour

// warnings says what is wrong with the lists.
func (g *guard) warnings() (list []control.Warning) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.fault != nil {
		list = append(list, control.Warning{Code: "never-ban", Text: "the never-ban list may lack entries: " + g.fault.Error()})
	}
	for _, p := range g.packs {
		if left := p.Expires.Sub(g.a.now()); left <= 0 {
			list = append(list, control.Warning{Code: "pack", Text: fmt.Sprintf("the pack %s has ended and shields nothing", p.Name), Fix: "agent allow pack add FILE, with a newer one; or agent allow pack remove " + p.Name})
		} else if left < packSoon {
			list = append(list, control.Warning{Code: "pack", Text: fmt.Sprintf("the pack %s ends on %s", p.Name, p.Expires.Format(time.DateOnly)), Fix: "agent allow pack add FILE, with a newer one"})
		}
	}
	return list
}

// everything lists what shields here, shared addresses last.
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

// ignored says whether an offender is none for us.
func (g *guard) ignored(t ban.Target) bool {
	_, protected := g.protection().Protects(t)
	return protected
}

func (g *guard) list() []neverban.Entry {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.entries
}
