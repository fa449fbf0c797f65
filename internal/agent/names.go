package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banmesh/internal/neverban"
)

// names remembers the addresses of host names, so that the never-ban list neither
// asks for them every few seconds nor loses a broker's addresses in the very
// moment in which name servers do not answer.
type names struct {
	lookUp func(context.Context, string) ([]netip.Addr, error)
	now    func() time.Time

	mu    sync.Mutex
	known map[string]resolved
}

type resolved struct {
	addrs []netip.Addr
	err   error // of the last attempt
	next  time.Time
}

// How long an answer is used, and how soon a name without one is asked for
// again.
const (
	nameKept  = 5 * time.Minute
	nameAgain = 30 * time.Second
)

// resolve gives a name's addresses: those of the last answer while it is fresh
// or while there is no newer one.
func (n *names) resolve(ctx context.Context, name string) ([]netip.Addr, error) {
	n.mu.Lock()
	old, ok := n.known[name]
	n.mu.Unlock()
	if ok && n.now().Before(old.next) {
		return old.addrs, old.err
	}
	addrs, err := n.lookUp(ctx, name)
	r := resolved{addrs: addrs, next: n.now().Add(nameKept)}
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return old.addrs, err
		}
		r = resolved{addrs: old.addrs, err: err, next: n.now().Add(nameAgain)}
	}
	slices.SortFunc(r.addrs, netip.Addr.Compare)
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil {
		n.known = map[string]resolved{}
	}
	n.known[name] = r
	return r.addrs, r.err
}

// last gives the addresses of the last answer for a name that something looks up again
// and again. It waits for nobody.
func (n *names) last(name string) []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	addrs := n.known[name].addrs
	return addrs[:min(len(addrs), neverban.MaxNameAddresses)]
}
