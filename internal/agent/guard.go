package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
)

// guard keeps the never-ban set as the machine's surroundings change, and
// gives it to whoever decides: ledger, detection and kernel.
type guard struct {
	a *agent

	mu      sync.RWMutex
	set     neverban.Set // against everyone's bans
	peers   neverban.Set // against the bans of others: private ranges too
	entries []neverban.Entry
	fault   error
}

// documentation prefixes exist nowhere on the Internet, so banning them harms
// nobody, and examples and tests use them (RFC 5737, RFC 3849).
var documentation = []netip.Prefix{
	netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32"),
}

func newGuard(ctx context.Context, a *agent) (*guard, error) {
	g := &guard{a: a}
	g.discover(ctx)
	return g, nil
}

// discover looks around. What cannot be read is a warning: a set that lacks an
// entry is better than none, and a node that does not start protects nobody.
func (g *guard) discover(ctx context.Context) (changed bool) {
	s := g.a.current()
	o := neverban.Options{
		Lab: slices.Clone(documentation), Now: g.a.now(),
		Resolve: func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		},
	}
	for _, p := range s.config.MayBan {
		o.Lab = append(o.Lab, netip.MustParsePrefix(p)) // checked by LoadSettings
	}
	for _, b := range s.config.Brokers {
		if u, err := url.Parse(b.URL); err == nil && u.Hostname() != "" {
			o.Brokers = append(o.Brokers, u.Hostname())
		}
	}
	for _, n := range s.config.NeverBan {
		t, err := ban.ParseTarget(n.Target)
		p, ok := t.Prefix()
		if err != nil || !ok {
			continue
		}
		e := neverban.Entry{Prefix: p, Source: neverban.SourceManual, Reason: n.Comment}
		if n.Until != "" {
			e.Until, _ = time.Parse(time.RFC3339, n.Until) // checked by LoadSettings
		}
		o.Extra = append(o.Extra, e)
	}
	set, entries, err := neverban.Discover(ctx, o)
	g.mu.Lock()
	defer g.mu.Unlock()
	changed = !slices.Equal(g.entries, entries)
	// A neighbour in a private network can attack, and this node can see it;
	// what a peer calls 192.168.1.7 is another machine.
	g.set, g.peers, g.entries, g.fault = neverban.NewSet(neverban.WithoutPrivate(entries)), set, entries, err
	return changed
}

// refresh looks around again and passes on what is new.
func (g *guard) refresh(ctx context.Context) error {
	if !g.discover(ctx) {
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
func (g *guard) caution() policy.Protection { return nil }

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
