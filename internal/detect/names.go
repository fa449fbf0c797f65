package detect

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// A resolver's answer is kept for so long, also that there is none: an
// attacker who chooses the name must not choose how often this node asks.
const (
	namesFor  = 5 * time.Minute
	maxNames  = 1000
	dnsWithin = 2 * time.Second
	// maxAddresses bounds the addresses of one name that are asked for their names.
	maxAddresses = 8
	// maxAsked offences wait for a resolver at a time; more are dropped, so that
	// no log waits for name servers.
	maxAsked = 256
)

type nameCache struct {
	mu    sync.Mutex
	names map[string]resolved
	// asked are offences whose names are being looked up; nil where nobody does that in
	// the background.
	asked chan func(context.Context)
}

type resolved struct {
	addrs []netip.Addr
	until time.Time
}

// named calls blame for each address that a name has and that has the name: at once
// where the answer is known, else when it has come.
func (d *Detector) named(ctx context.Context, name string, blame func(context.Context, netip.Addr)) {
	each := func(ctx context.Context, addrs []netip.Addr) {
		for _, a := range addrs {
			blame(ctx, a)
		}
	}
	d.names.mu.Lock()
	known, ok := d.names.names[name]
	asked := d.names.asked
	d.names.mu.Unlock()
	switch later := func(ctx context.Context) { each(ctx, d.resolve(ctx, name)) }; {
	case ok && d.o.Now().Before(known.until):
		each(ctx, known.addrs)
	case asked == nil:
		later(ctx)
	default:
		select {
		case asked <- later:
		default:
		}
	}
}

// lookUp begins to answer in the background. The result ends that, when all that was
// asked is answered.
func (d *Detector) lookUp(ctx context.Context) (end func()) {
	asked, done := make(chan func(context.Context), maxAsked), make(chan struct{})
	d.names.mu.Lock()
	d.names.asked = asked
	d.names.mu.Unlock()
	go func() {
		defer close(done)
		for later := range asked {
			if ctx.Err() == nil {
				later(ctx)
			}
		}
	}()
	return func() {
		d.names.mu.Lock()
		d.names.asked = nil
		d.names.mu.Unlock()
		close(asked)
		<-done
	}
}

// resolve gives those of a name's addresses whose own name it is. A name's owner
// writes any address beside it; only the address's owner writes the name beside the
// address.
func (d *Detector) resolve(ctx context.Context, name string) (out []netip.Addr) {
	now := d.o.Now()
	d.names.mu.Lock()
	known, ok := d.names.names[name]
	d.names.mu.Unlock()
	if ok && now.Before(known.until) {
		return known.addrs
	}
	look, reverse := d.o.Resolve, d.o.Reverse
	if look == nil {
		look = net.DefaultResolver.LookupHost
	}
	if reverse == nil {
		reverse = net.DefaultResolver.LookupAddr
	}
	ctx, cancel := context.WithTimeout(ctx, dnsWithin)
	defer cancel()
	addresses, err := look(ctx, name)
	for _, text := range addresses[:min(len(addresses), maxAddresses)] {
		a, wrong := netip.ParseAddr(text)
		if err != nil || wrong != nil || a.Zone() != "" {
			continue
		}
		names, err := reverse(ctx, a.Unmap().String())
		if err == nil && slices.ContainsFunc(names, func(n string) bool { return sameName(n, name) }) {
			out = append(out, a.Unmap())
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

func sameName(a, b string) bool {
	return strings.EqualFold(strings.TrimSuffix(a, "."), strings.TrimSuffix(b, "."))
}
