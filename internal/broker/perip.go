package broker

import (
	"net/netip"
	"sync"
	"time"
)

// A perIPLimit counts connections and publications of each address, of the
// networks around it, and of each identity.
type perIPLimit struct {
	mu      sync.Mutex
	origins remembered[netip.Prefix]
	keys    remembered[identity]
	hellos  bucket // TLS handshakes of all
}

func newPerIPLimit() perIPLimit {
	return perIPLimit{
		origins: remembered[netip.Prefix]{entries: map[netip.Prefix]*origin{}},
		keys:    remembered[identity]{entries: map[identity]*origin{}},
	}
}

// An origin is an address, network or identity that has connections now, or had
// one until a short while ago, so that its buckets are not refilled by leaving.
type origin struct {
	open  int
	rate  bucket
	fresh bucket    // operators that nobody knew
	hello bucket    // TLS handshakes
	until time.Time // when it may be forgotten; zero while open
}

// forget is for how long an origin without connections is remembered: longer
// than a burst takes to refill.
const forget = 5 * time.Minute

// maxRemembered bounds the origins without connections. Beyond it those that
// left first are forgotten first.
const maxRemembered = 1 << 16

// remembered holds origins. Those without connections stand in a ring, in the
// order in which they are forgotten.
type remembered[K comparable] struct {
	entries map[K]*origin
	ring    []leaving[K]
	first   int // of ring
}

type leaving[K comparable] struct {
	key   K
	until time.Time
}

// get gives an origin, new where there is none. It forgets a few of those that
// are due, so that the cost of a connection does not grow with those before it.
func (r *remembered[K]) get(k K, now time.Time) *origin {
	r.expire(now, 4)
	o := r.entries[k]
	if o == nil {
		o = &origin{}
		r.entries[k] = o
	}
	return o
}

// left ends a connection of an origin.
func (r *remembered[K]) left(k K, now time.Time) {
	o := r.entries[k]
	if o == nil {
		return
	}
	if o.open--; o.open > 0 {
		return
	}
	o.until = now.Add(forget)
	r.ring = append(r.ring, leaving[K]{k, o.until})
	r.expire(now, 4)
}

// expire forgets at most n origins that are due, and those beyond the bound.
func (r *remembered[K]) expire(now time.Time, n int) {
	for ; r.first < len(r.ring) && (n > 0 && !now.Before(r.ring[r.first].until) || len(r.ring)-r.first > maxRemembered); n-- {
		l := r.ring[r.first]
		r.ring[r.first] = leaving[K]{}
		r.first++
		if o := r.entries[l.key]; o != nil && o.open == 0 && o.until.Equal(l.until) {
			delete(r.entries, l.key)
		}
	}
	if r.first > 1024 && r.first > len(r.ring)/2 {
		r.ring = append([]leaving[K](nil), r.ring[r.first:]...)
		r.first = 0
	}
}

// A scope is a network around an address that is counted as one, and how many
// times a single address's connections it may have.
type scope struct{ bits, times int }

// The networks of one party: an IPv4 address and the /24 around it; an IPv6 /64,
// the /56 or /48 of a customer, and the /32 of a provider, in which many honest
// nodes may live.
var (
	scopes4 = []scope{{32, 1}, {24, 4}}
	scopes6 = []scope{{64, 1}, {56, 2}, {48, 4}, {32, 64}}
)

// A counting is a prefix and how many connections it may have.
type counting struct {
	prefix netip.Prefix
	times  int
}

// origins gives the networks under which an address is counted, the smallest
// first. Loopback and unix sockets have none.
func origins(a netip.Addr) (out []counting) {
	if !a.IsValid() || a.IsLoopback() {
		return nil
	}
	list := scopes4
	if a.Is6() {
		list = scopes6
	}
	for _, s := range list {
		if p, err := a.Prefix(s.bits); err == nil {
			out = append(out, counting{p, s.times})
		}
	}
	return out
}

// enter counts a connection from an address, or says that there are too many:
// most of one address, and more of the networks around it.
func (w *perIPLimit) enter(a netip.Addr, most int, now time.Time) (ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := origins(a)
	for _, c := range list {
		if o := w.origins.entries[c.prefix]; o != nil && o.open >= most*c.times {
			return false
		}
	}
	for _, c := range list {
		o := w.origins.get(c.prefix, now)
		o.open++
		o.until = time.Time{}
	}
	return true
}

// leave ends a connection that enter counted.
func (w *perIPLimit) leave(a netip.Addr, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range origins(a) {
		w.origins.left(c.prefix, now)
	}
}

// login counts a connection of an identity.
func (w *perIPLimit) login(who identity, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := w.keys.get(who, now)
	o.open++
	o.until = time.Time{}
}

func (w *perIPLimit) logout(who identity, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys.left(who, now)
}

// wait takes n events of an identity and address, and says how long they have
// to wait for both.
func (w *perIPLimit) wait(who identity, a netip.Addr, n float64, now time.Time, l *Limits) (d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o := w.keys.entries[who]; o != nil && who.method == "key" {
		d = o.rate.take(now, n, l.PublishRate, l.PublishBurst)
	}
	if list := origins(a); len(list) > 0 {
		if o := w.origins.entries[list[0].prefix]; o != nil {
			d = max(d, o.rate.take(now, n, l.AddressRate, l.AddressBurst))
		}
	}
	return d
}

// Operators that nobody knows, of one address: at once, and a second.
const (
	newcomerBurst = 8
	newcomerRate  = 8.0 / 3600
)

// newcomer counts an operator that nobody knows, and says whether the address
// and the networks around it may bring one more.
func (w *perIPLimit) newcomer(a netip.Addr, now time.Time) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := origins(a)
	for _, c := range list {
		if o := w.origins.get(c.prefix, now); !o.fresh.has(now, newcomerRate*float64(c.times), newcomerBurst*c.times) {
			return false
		}
	}
	for _, c := range list {
		w.origins.get(c.prefix, now).fresh.take(now, 1, newcomerRate*float64(c.times), newcomerBurst*c.times)
	}
	return true
}

// helloShare is the part of all TLS handshakes that one address may make: at
// once twice as many as it may have connections, so that all its nodes can
// come back together, and this share of the rate.
const helloShare = 32

// hello counts a TLS handshake of an address, and says how long it has to wait
// and whether that is no longer than a time.
func (w *perIPLimit) hello(a netip.Addr, now time.Time, l *Limits, most time.Duration) (wait time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range origins(a) {
		d, ok := w.origins.get(c.prefix, now).hello.reserve(now, l.HandshakeRate/helloShare*float64(c.times), 2*l.PerAddress*c.times, most)
		if !ok {
			return 0, false
		}
		wait = max(wait, d)
	}
	d, ok := w.hellos.reserve(now, l.HandshakeRate, l.HandshakeBurst, most)
	return max(wait, d), ok
}
