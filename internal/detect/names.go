package detect

import (
	"context"
	"net"
	"sync"
	"time"

	"banmesh/internal/ban"
)

// A resolver's answer is kept for so long, also that there is none: an
// attacker who chooses the name must not choose how often this node asks.
const (
	namesFor  = 5 * time.Minute
	maxNames  = 1000
	dnsWithin = 2 * time.Second
)

type nameCache struct {
	mu    sync.Mutex
	names map[string]resolved
}

type resolved struct {
	targets []ban.Target
	until   time.Time
}

// resolve gives a name's addresses.
func (d *Detector) resolve(ctx context.Context, name string) []ban.Target {
	now := d.o.Now()
	d.names.mu.Lock()
	known, ok := d.names.names[name]
	d.names.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.targets
	}
	look := d.o.Resolve
	if look == nil {
		look = net.DefaultResolver.LookupHost
	}
	ctx, cancel := context.WithTimeout(ctx, dnsWithin)
	defer cancel()
	addresses, err := look(ctx, name)
	var out []ban.Target
	for _, a := range addresses {
		if t, _, ok := targetOf(a); ok && err == nil {
			out = append(out, t)
		}
	}
	d.names.mu.Lock()
	defer d.names.mu.Unlock()
	if d.names.names == nil || len(d.names.names) >= maxNames {
		d.names.names = map[string]resolved{}
	}
	d.names.names[name] = resolved{out, now.Add(namesFor)}
	return out
}
