package firewall

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// Peer makes the Fake remember that a peer of a topic finished a handshake, and
// sent so many bytes more.
func (f *Fake) Peer(topic ban.Topic, peer netip.AddrPort, bytes uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := connection{topic, netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())}
	t := f.peers[k]
	f.peers[k] = Trace{Seen: true, Port: peer.Port(), Last: f.now(), Bytes: t.Bytes + bytes}
}

// A connection is one of a topic and a peer.
type connection struct {
	topic ban.Topic
	peer  netip.AddrPort
}

// Connection implements [Memory].
func (f *Fake) Connection(ctx context.Context, topic ban.Topic, peer netip.AddrPort) (Trace, error) {
	all, err := f.Connections(ctx, topic, peer.Addr())
	for _, t := range all {
		if t.Port == peer.Port() {
			return t, err
		}
	}
	return Trace{}, err
}

// Address implements [Memory].
func (f *Fake) Address(ctx context.Context, topic ban.Topic, addr netip.Addr) (sum Trace, err error) {
	all, err := f.Connections(ctx, topic, addr)
	for i, t := range all {
		if i == 0 {
			sum.Seen, sum.Last = true, t.Last
		}
		sum.Bytes += t.Bytes
	}
	return sum, err
}

// Connections implements [Memory].
func (f *Fake) Connections(_ context.Context, topic ban.Topic, addr netip.Addr) (out []Trace, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.scopes[topic]
	if err := f.usable(); err != nil {
		return nil, err
	}
	if !s.Remembers() {
		return nil, ErrNotRemembered
	}
	for k, t := range f.peers {
		if k.topic == topic && k.peer.Addr() == addr.Unmap() && f.now().Sub(t.Last) < s.Remember {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b Trace) int { return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Port, b.Port)) })
	return out, nil
}

// Begin makes the Fake's memory of a topic begin at a time. By itself it is old.
func (f *Fake) Begin(topic ban.Topic, at time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.begun[topic] = at
}

// Since implements [Memory].
func (f *Fake) Since(ctx context.Context, topic ban.Topic) (s Span, err error) {
	if _, err = f.Connections(ctx, topic, netip.Addr{}); err != nil {
		return s, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k := range f.peers {
		s.Any = s.Any || k.topic == topic
	}
	if begun := f.begun[topic]; f.now().Sub(begun) < f.scopes[topic].Remember {
		s.Begun = begun
	}
	return s, nil
}

// Forgotten implements [Memory]: a Fake forgets nothing.
func (f *Fake) Forgotten(ctx context.Context, topic ban.Topic) (uint64, error) {
	_, err := f.Connections(ctx, topic, netip.Addr{})
	return 0, err
}
