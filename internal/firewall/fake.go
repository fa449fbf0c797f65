package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
)

// Fake is a [Firewall] in memory, for tests and for a node that may not touch
// the kernel. It decides about packets as the kernel does ([Fake.Packet]), and
// its [Fake.Dump] says all that is wanted.
type Fake struct {
	now func() time.Time

	mu        sync.Mutex
	config    Config
	ready     bool
	replaced  bool
	closed    bool
	scopes    map[ban.Topic]Scope
	state     *state
	counters  map[ban.Topic]Counter
	operators map[ban.Topic]map[string]Counter
	peers     map[netip.AddrPort]time.Time
	fail      error
}

// NewFake gives a Fake with a clock; nil means [time.Now].
func NewFake(now func() time.Time) *Fake {
	if now == nil {
		now = time.Now
	}
	return &Fake{now: now, state: newState(), counters: make(map[ban.Topic]Counter), operators: make(map[ban.Topic]map[string]Counter), peers: make(map[netip.AddrPort]time.Time)}
}

var _ Firewall = (*Fake)(nil)

// Fail makes every later Apply, Replace and Check fail with err, until it is
// called with nil. What is asked meanwhile is kept, as the interface has it.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Configure implements [Firewall].
func (f *Fake) Configure(_ context.Context, c Config) error {
	c, err := c.normal()
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return ErrClosed
	}
	f.config, f.ready, f.scopes = c, true, make(map[ban.Topic]Scope, len(c.Scopes))
	for _, s := range c.Scopes {
		f.scopes[s.Topic] = s
	}
	_, err = f.state.forget(func(t ban.Topic) bool { _, ok := f.scopes[t]; return ok }, secondOf(f.now()))
	return err
}

// Replace implements [Firewall].
func (f *Fake) Replace(_ context.Context, bans iter.Seq[Ban]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	f.state, f.replaced = newState(), true
	var refused refusals
	for b := range bans {
		refused.note(b, f.add(b))
	}
	return errors.Join(refused.err(f.config.Cap), f.fail)
}

// Apply implements [Firewall].
func (f *Fake) Apply(_ context.Context, add []Ban, remove []Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	if !f.replaced {
		return ErrNoState
	}
	var refused refusals
	for _, k := range remove {
		if !canonical(k.Prefix) {
			refused.note(Ban{Prefix: k.Prefix, Topic: k.Topic}, ErrPrefix)
			continue
		}
		_, err := f.state.remove(k.Prefix, k.Topic, secondOf(f.now()))
		refused.note(Ban{Prefix: k.Prefix, Topic: k.Topic}, err)
	}
	for _, b := range add {
		refused.note(b, f.add(b))
	}
	return errors.Join(refused.err(f.config.Cap), f.fail)
}

func (f *Fake) add(b Ban) error {
	now := secondOf(f.now())
	until := secondOf(b.Until)
	scope, known := f.scopes[b.Topic]
	by := ""
	if scope.Observe {
		by = label(b.By)
	}
	switch {
	case !canonical(b.Prefix):
		return ErrPrefix
	case !known:
		return ErrNoScope
	case until <= now:
		return nil
	case f.state.size() >= f.config.Cap && f.state.get(b.Prefix).class == 0:
		if gone, _ := f.state.sweep(now, true); gone == 0 {
			return ErrFull
		}
	}
	_, err := f.state.add(b.Prefix, b.Topic, by, until, now)
	return err
}

// Check implements [Firewall].
func (f *Fake) Check(context.Context) (Drift, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return Drift{}, err
	}
	now := secondOf(f.now())
	_, err := f.state.lapse(now)
	f.state.sweep(now, true)
	d := Drift{Bans: f.state.size()}
	if f.fail != nil {
		d.Owed = d.Bans
	}
	return d, errors.Join(err, f.fail)
}

// Counters implements [Firewall]. It counts what [Fake.Packet] saw.
func (f *Fake) Counters(context.Context) (map[ban.Topic]Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return nil, err
	}
	out := make(map[ban.Topic]Counter, len(f.scopes))
	for t := range f.scopes {
		out[t] = f.counters[t]
	}
	return out, nil
}

// Peer makes the Fake remember that addr finished a handshake with port.
func (f *Fake) Peer(addr netip.Addr, port uint16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers[netip.AddrPortFrom(addr.Unmap(), port)] = f.now()
}

// Established implements [Firewall].
func (f *Fake) Established(_ context.Context, addr netip.Addr, port uint16) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return false, err
	}
	err := ErrNotRemembered
	for _, s := range f.scopes {
		if s.Remember == 0 || !slices.Contains(s.Ports, port) {
			continue
		}
		err = nil
		if at, ok := f.peers[netip.AddrPortFrom(addr.Unmap(), port)]; ok && f.now().Sub(at) < s.Remember {
			return true, nil
		}
	}
	return false, err
}

// Close implements [Firewall].
func (f *Fake) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

func (f *Fake) usable() error {
	switch {
	case f.closed:
		return ErrClosed
	case !f.ready:
		return ErrNotConfigured
	}
	return nil
}

// Bans gives what is in force, sorted by prefix and topic.
func (f *Fake) Bans() []Ban {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Ban
	now := secondOf(f.now())
	f.state.each(func(p netip.Prefix, v slot) bool {
		for _, q := range f.state.partsOf(p, v) {
			if q.until <= now {
				continue
			}
			b := Ban{Prefix: p, Topic: q.topic}
			if q.until != never {
				b.Until = q.until.time()
			}
			// A prefix in one topic has its end in the slot, in more in its parts.
			out = append(out, b)
		}
		return true
	})
	slices.SortFunc(out, func(a, b Ban) int {
		if c := a.Prefix.Addr().Compare(b.Prefix.Addr()); c != 0 {
			return c
		}
		if a.Prefix.Bits() != b.Prefix.Bits() {
			return a.Prefix.Bits() - b.Prefix.Bits()
		}
		return strings.Compare(string(a.Topic), string(b.Topic))
	})
	return out
}

// Packet says whether a packet of the given size from addr to port would be
// dropped, and counts it.
func (f *Fake) Packet(addr netip.Addr, protocol string, port uint16, size int) (dropped bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr = addr.Unmap()
	if slices.ContainsFunc(f.config.Never, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		return false
	}
	now := secondOf(f.now())
	wide, _, _ := f.state.segments(addr.Is4(), now)
	for _, v := range f.state.covering(addr, wide) {
		if v.class == 0 || v.until <= now {
			continue
		}
		for _, t := range f.state.classes[v.class].topics {
			s := f.scopes[t]
			if !s.meets(protocol, port) {
				continue
			}
			c := f.counters[t]
			f.counters[t] = Counter{c.Packets + 1, c.Bytes + uint64(size)}
			if !s.Observe {
				return true
			}
			for _, name := range f.state.classes[v.class].names(t) {
				if f.operators[t] == nil {
					f.operators[t] = make(map[string]Counter)
				}
				o := f.operators[t][name]
				f.operators[t][name] = Counter{o.Packets + 1, o.Bytes + uint64(size)}
			}
		}
	}
	return false
}

// Dump gives the wanted state as text, one fact a line, sorted.
func (f *Fake) Dump() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, s := range f.config.Scopes {
		fmt.Fprintf(&b, "scope %s ports %v protocols %v all %v observe %v limit %d remember %v\n", s.Topic, s.Ports, s.Protocols, s.All, s.Observe, s.MaxConnections, s.Remember)
	}
	for _, p := range f.config.Never {
		fmt.Fprintf(&b, "never %s\n", p)
	}
	return b.String() + f.state.text()
}
