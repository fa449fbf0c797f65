package firewall

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall/desired"
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
	state     *desired.State
	counters  map[ban.Topic]Counter
	operators map[ban.Topic]map[string]Counter
	peers     map[connection]Trace
	begun     map[ban.Topic]time.Time // as [Fake.Begin] has it
	fail      error
}

// NewFake gives a Fake with a clock; nil means [time.Now].
func NewFake(now func() time.Time) *Fake {
	if now == nil {
		now = time.Now
	}
	return &Fake{now: now, state: desired.New(), counters: make(map[ban.Topic]Counter), operators: make(map[ban.Topic]map[string]Counter), peers: make(map[connection]Trace), begun: make(map[ban.Topic]time.Time)}
}

var _ Firewall = (*Fake)(nil)

// Fail makes every later Apply, Replace and Check fail with err, until it is
// called with nil. Changes asked meanwhile are kept, as the interface has it.
func (f *Fake) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Configure implements [Firewall].
func (f *Fake) Configure(_ context.Context, c Config) error {
	c, err := c.Normal()
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
	_, err = f.state.Forget(func(t ban.Topic) bool { _, ok := f.scopes[t]; return ok }, desired.SecondOf(f.now()))
	return err
}

// Replace implements [Firewall].
func (f *Fake) Replace(_ context.Context, bans iter.Seq[Ban]) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return err
	}
	f.state, f.replaced = desired.New(), true
	var refused Refusals
	for b := range bans {
		refused.Note(b, f.add(b))
	}
	return errors.Join(refused.Err(f.config.Cap), f.fail)
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
	var refused Refusals
	for _, k := range remove {
		if !desired.Canonical(k.Prefix) {
			refused.Note(Ban{Prefix: k.Prefix, Topic: k.Topic}, ErrPrefix)
			continue
		}
		_, err := f.state.Remove(k.Prefix, k.Topic, desired.SecondOf(f.now()))
		refused.Note(Ban{Prefix: k.Prefix, Topic: k.Topic}, err)
	}
	for _, b := range add {
		refused.Note(b, f.add(b))
	}
	return errors.Join(refused.Err(f.config.Cap), f.fail)
}

func (f *Fake) add(b Ban) error {
	now := desired.SecondOf(f.now())
	until := desired.SecondOf(b.Until)
	scope, known := f.scopes[b.Topic]
	by := ""
	if scope.Observe {
		by = desired.Label(b.By)
	}
	switch {
	case !desired.Canonical(b.Prefix):
		return ErrPrefix
	case !known:
		return ErrNoScope
	case until <= now:
		return nil
	case f.state.Size() >= f.config.Cap && f.state.Get(b.Prefix).Class == 0:
		if gone, _ := f.state.Sweep(now, true); gone == 0 {
			return ErrFull
		}
	}
	_, err := f.state.Add(b.Prefix, b.Topic, by, until, now)
	return err
}

// Check implements [Firewall].
func (f *Fake) Check(context.Context) (Drift, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return Drift{}, err
	}
	now := desired.SecondOf(f.now())
	_, err := f.state.Lapse(now)
	f.state.Sweep(now, true)
	d := Drift{Bans: f.state.Size()}
	if f.fail != nil {
		d.Pending = d.Bans
	}
	return d, errors.Join(err, f.fail)
}

// Counters implements [Firewall]. It counts the packets of [Fake.Packet].
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

// Bans gives those in force, sorted by prefix and topic.
func (f *Fake) Bans() []Ban {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Ban
	now := desired.SecondOf(f.now())
	f.state.Each(func(p netip.Prefix, v desired.Slot) bool {
		for _, q := range f.state.PartsOf(p, v) {
			if q.Until <= now {
				continue
			}
			b := Ban{Prefix: p, Topic: q.Topic}
			if q.Until != desired.Never {
				b.Until = q.Until.Time()
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
	now := desired.SecondOf(f.now())
	wide, _, _ := f.state.Segments(addr.Is4(), now)
	for _, v := range f.state.Covering(addr, wide) {
		if v.Class == 0 || v.Until <= now {
			continue
		}
		for _, t := range f.state.Classes[v.Class].Topics {
			s := f.scopes[t]
			if !s.Meets(protocol, port) {
				continue
			}
			c := f.counters[t]
			f.counters[t] = Counter{c.Packets + 1, c.Bytes + uint64(size)}
			if !s.Observe {
				return true
			}
			for _, name := range f.state.Classes[v.Class].Names(t) {
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
	return b.String() + f.state.Text()
}

// Operators implements [ByOperator].
func (f *Fake) Operators(context.Context) (map[ban.Topic]map[string]Counter, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[ban.Topic]map[string]Counter, len(f.operators))
	for t, by := range f.operators {
		out[t] = maps.Clone(by)
	}
	return out, f.usable()
}
