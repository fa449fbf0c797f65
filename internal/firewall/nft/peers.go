package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// memory asks the kernel about peers. It has a socket and a lock of its own, so
// that a question never waits for a million bans being written.
type memory struct {
	mu       sync.Mutex
	table    string
	remember map[ban.Topic]time.Duration // topics whose peers are remembered
	k        *kernel
	readings map[string]*reading  // by set
	present  map[string]time.Time // when a set was last seen
	spans    map[ban.Topic]knownSpan
	now      func() time.Time
}

// A knownSpan is a span that holds connections, until it is asked for anew.
type knownSpan struct {
	firewall.Span
	until time.Time
}

// A reading is all connections of one set at a time.
type reading struct {
	until time.Time // when the next one is due
	by    map[netip.Addr][]firewall.Trace
}

// readingRest keeps reading sets whole to a twentieth of the time.
const readingRest = 20

// configure says which topics are remembered from now on.
func (m *memory) configure(c firewall.Config) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.table, m.remember = c.Table, make(map[ban.Topic]time.Duration)
	m.readings, m.present, m.spans = make(map[string]*reading), make(map[string]time.Time), make(map[ban.Topic]knownSpan)
	for _, s := range c.Scopes {
		if s.Remembers() {
			m.remember[s.Topic] = s.Remember
		}
	}
}

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.remember = nil
	if m.k == nil {
		return nil
	}
	err := m.k.close()
	m.k = nil
	return err
}

// ask calls f with a socket, if the topic is remembered.
func (m *memory) ask(ctx context.Context, topic ban.Topic, f func(k *kernel, remember time.Duration) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	remember, ok := m.remember[topic]
	if !ok {
		return firewall.ErrNotRemembered
	}
	if m.k == nil {
		var err error
		if m.k, err = openKernel(m.table); err != nil {
			return err
		}
	}
	err := f(m.k, remember)
	switch {
	case errors.Is(err, errLost), errors.Is(err, unix.ENOBUFS):
		_ = m.k.close()
		m.k = nil
	case isGone(err):
		// Somebody took the table away, and the next Check puts it back, empty:
		// nobody knows who was in it.
		return errors.Join(firewall.ErrNotRemembered, err)
	}
	return err
}

// trace looks up one element of a set of peers.
func (m *memory) trace(k *kernel, remember time.Duration, set string, key []byte) (t firewall.Trace, err error) {
	err = k.lookup(set, key, func(e []byte) {
		t = m.traceOf(e, remember)
	})
	if !isGone(err) {
		return t, err
	}
	// The element is not there, or the whole set: then a miss says nothing. That
	// is looked up again only now and then, at the price of a question.
	if now := m.now(); now.Sub(m.present[set]).Abs() >= presentFor {
		if there, errSet := k.hasSet(set); errSet != nil || !there {
			return t, errors.Join(err, errSet)
		}
		m.present[set] = now
	}
	return firewall.Trace{}, nil
}

// presentFor is how long a set is believed to be there after it was seen.
const presentFor = time.Second

// traceOf reads the attributes of an element.
func (m *memory) traceOf(b []byte, remember time.Duration) firewall.Trace {
	t := firewall.Trace{Seen: true, Last: m.now()}
	for a, rest, ok := nextAttr(b); ok; a, rest, ok = nextAttr(rest) {
		switch a.kind {
		case unix.NFTA_SET_ELEM_EXPIRATION:
			t.Last = t.Last.Add(time.Duration(a.u64())*time.Millisecond - remember)
		case unix.NFTA_SET_ELEM_EXPR:
			if consumed := find(find(a.data, unix.NFTA_EXPR_DATA), unix.NFTA_QUOTA_CONSUMED); len(consumed) == 8 {
				t.Bytes = binary.BigEndian.Uint64(consumed)
			}
		}
	}
	return t
}

// all gives an [firewall.ErrNotRemembered] where the source of an address had
// more connections than are told apart.
func (m *memory) all(k *kernel, remember time.Duration, topic ban.Topic, addr netip.Addr) error {
	many, err := m.trace(k, remember, manyHead+string(topic)+suffixOf(addr), maskedTo(addr, families[family(addr)].share))
	if err == nil && many.Seen {
		return fmt.Errorf("%w: %s has too many connections", firewall.ErrNotRemembered, addr)
	}
	return err
}

// maskedTo gives the key that a source makes of an address.
func maskedTo(a netip.Addr, s source) []byte {
	if s.prefix == 0 {
		return a.AsSlice()
	}
	p, err := a.Prefix(s.prefix)
	if err != nil {
		return a.AsSlice() // no address of this family
	}
	return p.Addr().AsSlice()
}

func suffixOf(a netip.Addr) string { return families[family(a)].suffix }

// Connection implements [firewall.Memory].
func (n *Firewall) Connection(ctx context.Context, topic ban.Topic, peer netip.AddrPort) (t firewall.Trace, err error) {
	addr, port := peer.Addr().Unmap().WithZone(""), peer.Port()
	err = n.memory.ask(ctx, topic, func(k *kernel, remember time.Duration) (err error) {
		t, err = n.memory.trace(k, remember, connsHead+string(topic)+suffixOf(addr), append(addr.AsSlice(), byte(port>>8), byte(port), 0, 0))
		if err == nil && !t.Seen {
			err = n.memory.all(k, remember, topic, addr)
		}
		return err
	})
	if t.Seen {
		t.Port = port
	}
	return t, n.explainMemory(err)
}

// Address implements [firewall.Memory].
func (n *Firewall) Address(ctx context.Context, topic ban.Topic, addr netip.Addr) (t firewall.Trace, err error) {
	addr = addr.Unmap().WithZone("")
	err = n.memory.ask(ctx, topic, func(k *kernel, remember time.Duration) (err error) {
		t, err = n.memory.trace(k, remember, peersHead+string(topic)+suffixOf(addr), maskedTo(addr, families[family(addr)].peer))
		return err
	})
	return t, n.explainMemory(err)
}

// Connections implements [firewall.Memory].
func (n *Firewall) Connections(ctx context.Context, topic ban.Topic, addr netip.Addr) (out []firewall.Trace, err error) {
	addr = addr.Unmap().WithZone("")
	m := &n.memory
	err = m.ask(ctx, topic, func(k *kernel, remember time.Duration) error {
		r, err := m.read(k, remember, connsHead+string(topic)+suffixOf(addr))
		if err == nil {
			out = slices.Clone(r.by[addr])
			err = m.all(k, remember, topic, addr)
		}
		return err
	})
	slices.SortFunc(out, func(a, b firewall.Trace) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Port, b.Port))
	})
	return out, n.explainMemory(err)
}

// read gives all connections of a set, read now unless that was done a moment
// ago.
func (m *memory) read(k *kernel, remember time.Duration, set string) (*reading, error) {
	began := m.now()
	if r := m.readings[set]; r != nil && began.Before(r.until) {
		return r, nil
	}
	cpu := time.Now()
	maps.DeleteFunc(m.readings, func(_ string, r *reading) bool { return !began.Before(r.until) })
	r := &reading{by: make(map[netip.Addr][]firewall.Trace)}
	err := k.eachElement(set, func(e []byte) {
		key := find(find(e, unix.NFTA_SET_ELEM_KEY), unix.NFTA_DATA_VALUE)
		if len(key) < 8 {
			return
		}
		addr, ok := netip.AddrFromSlice(key[:len(key)-4])
		if !ok {
			return
		}
		t := m.traceOf(e, remember)
		t.Port = binary.BigEndian.Uint16(key[len(key)-4:])
		r.by[addr] = append(r.by[addr], t)
	})
	if err != nil {
		return nil, err
	}
	r.until = began.Add(readingRest * time.Since(cpu))
	m.readings[set] = r
	return r, nil
}

// holds says whether a set of connections has any. Only newer kernels say how
// many, so elsewhere it is read.
func (m *memory) holds(k *kernel, remember time.Duration, set string) (bool, error) {
	n, known, err := k.count(set)
	if err != nil || known {
		return n > 0, err
	}
	r, err := m.read(k, remember, set)
	if err != nil {
		return false, err
	}
	return len(r.by) > 0, nil
}

// Since implements [firewall.Memory].
func (n *Firewall) Since(ctx context.Context, topic ban.Topic) (s firewall.Span, err error) {
	err = n.memory.ask(ctx, topic, func(k *kernel, remember time.Duration) error {
		now := n.memory.now()
		if known, ok := n.memory.spans[topic]; ok && now.Before(known.until) && known.until.Sub(now) <= presentFor {
			s = known.Span
			return nil
		}
		defer func() {
			if s.Any {
				n.memory.spans[topic] = knownSpan{s, now.Add(presentFor)}
			}
		}()
		for _, f := range families {
			mark, err := n.memory.trace(k, remember, peersHead+string(topic)+f.suffix, make([]byte, f.addr.size))
			if err != nil {
				return err
			}
			if mark.Seen {
				s.Begun = mark.Last
			}
			any, err := n.memory.holds(k, remember, connsHead+string(topic)+f.suffix)
			if err != nil {
				return err
			}
			s.Any = s.Any || any
		}
		return nil
	})
	return s, n.explainMemory(err)
}

// Forgotten implements [firewall.Memory].
func (n *Firewall) Forgotten(ctx context.Context, topic ban.Topic) (packets uint64, err error) {
	err = n.memory.ask(ctx, topic, func(k *kernel, _ time.Duration) error {
		all, err := k.counters()
		packets = all[forgotHead+string(topic)].Packets
		return err
	})
	return packets, n.explainMemory(err)
}

// explainMemory gives an error of a question its meaning for people.
func (n *Firewall) explainMemory(err error) error {
	switch {
	case err == nil, errors.Is(err, firewall.ErrNotRemembered), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	return errors.Join(errors.New("asking the kernel about a peer"), err)
}
