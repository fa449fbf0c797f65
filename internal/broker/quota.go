package broker

import (
	"net/netip"
	"sync"
	"time"
)

// A bucket lets through rate events a second, and burst at once. It may be
// overdrawn: what is taken then has to wait.
type bucket struct {
	level float64
	at    time.Time
}

// take takes n events and says how long they have to wait.
func (k *bucket) take(now time.Time, n, rate float64, burst int) time.Duration {
	if k.at.IsZero() {
		k.level, k.at = float64(burst), now
	}
	if dt := now.Sub(k.at).Seconds(); dt > 0 {
		k.level = min(float64(burst), k.level+dt*rate)
	}
	k.at = now
	k.level -= n
	if k.level >= 0 {
		return 0
	}
	return time.Duration(-k.level / rate * float64(time.Second))
}

// A perIPLimit counts connections and publications from each address and each identity.
type perIPLimit struct {
	mu      sync.Mutex
	origins map[netip.Prefix]*origin
	keys    map[identity]*origin
}

func newPerIPLimit() perIPLimit {
	return perIPLimit{origins: map[netip.Prefix]*origin{}, keys: map[identity]*origin{}}
}

// An origin is an address or identity that has connections now, or had one
// until a short while ago, so that its bucket is not refilled by leaving.
type origin struct {
	open  int
	rate  bucket
	until time.Time // when it may be forgotten; zero while open
}

// forget is for how long an origin without connections is remembered: longer
// than a burst takes to refill.
const forget = 5 * time.Minute

// maxRemembered is when those without connections are looked through.
const maxRemembered = 1 << 16

// originOf gives the part of an address that one party holds: an IPv4 address
// or an IPv6 /64. Loopback and unix sockets have none.
func originOf(a netip.Addr) (netip.Prefix, bool) {
	if !a.IsValid() || a.IsLoopback() {
		return netip.Prefix{}, false
	}
	bits := 32
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	return p, err == nil
}

// enter counts a connection from an address, or says that there are too many.
func (w *perIPLimit) enter(a netip.Addr, most int) (ok bool) {
	p, counts := originOf(a)
	if !counts {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return enter(w.origins, p, most)
}

// login counts a connection of an identity.
func (w *perIPLimit) login(who identity) {
	w.mu.Lock()
	defer w.mu.Unlock()
	enter(w.keys, who, 1<<30)
}

func enter[K comparable](m map[K]*origin, k K, most int) bool {
	o := m[k]
	if o == nil {
		o = &origin{}
		m[k] = o
	}
	if o.open >= most {
		return false
	}
	o.open++
	o.until = time.Time{}
	return true
}

// leave ends what enter counted.
func (w *perIPLimit) leave(a netip.Addr, now time.Time) {
	if p, counts := originOf(a); counts {
		w.mu.Lock()
		defer w.mu.Unlock()
		leave(w.origins, p, now)
	}
}

func (w *perIPLimit) logout(who identity, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	leave(w.keys, who, now)
}

func leave[K comparable](m map[K]*origin, k K, now time.Time) {
	o := m[k]
	if o == nil {
		return
	}
	if o.open--; o.open == 0 {
		o.until = now.Add(forget)
	}
	if len(m) > maxRemembered {
		for k, o := range m {
			if !o.until.IsZero() && now.After(o.until) {
				delete(m, k)
			}
		}
	}
}

// wait takes n events of an identity and address, and says how long they have
// to wait for both.
func (w *perIPLimit) wait(who identity, a netip.Addr, n float64, now time.Time, l *Limits) (d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.keys[who]; o != nil && who.method == "key" {
		d = o.rate.take(now, n, l.PublishRate, l.PublishBurst)
	}
	if p, counts := originOf(a); counts {
		if o := w.origins[p]; o != nil {
			d = max(d, o.rate.take(now, n, l.AddressRate, l.AddressBurst))
		}
	}
	return d
}

// pace holds a client up that is faster than its rate; false means that it is
// too fast even for that. Only its own goroutine waits.
func (b *Broker) pace(c *conn, now time.Time) bool { return b.charge(c, 1, now) }

// searchPrice is how many levels of topics a search may look at for what one
// publication costs: both take some 20 microseconds.
const searchPrice = 256

// charge is pace for what costs as much as n publications.
func (b *Broker) charge(c *conn, n float64, now time.Time) bool {
	if n <= 0 {
		return true
	}
	d := b.perIP.wait(c.who, c.remote.Addr(), n, now, &b.limits)
	if d <= 0 {
		return true
	}
	b.count.paced.Inc()
	t := time.NewTimer(min(d, maxDelay))
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.closed:
		return false
	}
	return d <= maxDelay
}
