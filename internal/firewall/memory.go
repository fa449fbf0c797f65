package firewall

import (
	"context"
	"net/netip"
	"time"

	"banmesh/internal/ban"
)

// A Memory says which peers had TCP connections with the ports of a topic within
// the last [Scope.Remember], so that a log line can be held against the
// connection that it is about. Only a finished handshake is remembered: its
// source address is not forged.
//
// Each question is answered with an [ErrNotRemembered] where nothing can be
// known: the topic has no ports, speaks no TCP or does not ask for it, the
// enforcer cannot, or the source has more connections than its [Share]. That is no evidence either way; a zero [Trace] is.
type Memory interface {
	// Connection gives the trace of one connection, by the peer's address and
	// source port. It costs a few microseconds.
	Connection(ctx context.Context, topic ban.Topic, peer netip.AddrPort) (Trace, error)
	// Address gives the trace of all connections of an address together, of IPv6
	// those of its /64. It costs a few microseconds.
	Address(ctx context.Context, topic ban.Topic, addr netip.Addr) (Trace, error)
	// Connections gives the traces of an address's connections one by one, the
	// latest first: for a line that names no port and an address that also has
	// other business here. It reads all that is remembered of the topic, at about
	// a microsecond each, and not more often than that is a twentieth of the time;
	// meanwhile it answers from the last reading.
	Connections(ctx context.Context, topic ban.Topic, addr netip.Addr) ([]Trace, error)
	// Since says how much the memory of a topic can tell. It costs some ten
	// microseconds.
	Since(ctx context.Context, topic ban.Topic) (Span, error)
	// Forgotten counts the packets whose connections found no room, since the
	// table was made. While it grows, connections that are new go unseen.
	Forgotten(ctx context.Context, topic ban.Topic) (uint64, error)
}

// A Trace is the memory of a peer. The zero value says that there is none.
type Trace struct {
	// Seen says that a handshake was finished.
	Seen bool
	// Port is the peer's source port, of a single connection.
	Port uint16
	// Last is when the last packet came, to a few milliseconds.
	Last time.Time
	// Bytes is how much the peer sent, headers of its packets included. A
	// download shows by its acknowledgements: a hundredth of it or so.
	Bytes uint64
}

// A Span says how much the memory of a topic can tell.
type Span struct {
	// Begun is when it began, zero where that is longer ago than it lasts: a
	// connection that was silent since then is not in it.
	Begun time.Time
	// Any says that it holds some connection.
	Any bool
}

// Share is how many connections of one source, an IPv4 address or a /48 of IPv6,
// are told apart at once, and so many more each hour. Beyond that [Memory] does
// not know its connections one by one; its address is remembered all the same.
const Share = 256

// Limits of how many addresses, and how many connections, are remembered of a
// topic and address family. Later ones are not remembered until others are
// forgotten ([Memory.Forgotten]). Where many topics are remembered each has less
// room, so that a flood at all ports takes some 180 MB of the kernel's memory at
// most: measured, 145 bytes a connection.
const (
	MaxTraces   = 65_535
	leastTraces = 4_096
	allTraces   = 4 * MaxTraces
)

// Traces gives the limit of each topic of a configuration.
func (c Config) Traces() uint32 {
	n := 0
	for _, s := range c.Scopes {
		if s.Remembers() {
			n++
		}
	}
	return uint32(min(max(allTraces/max(n, 1), leastTraces), MaxTraces))
}

// Remembers says whether peers of the scope are to be remembered, and can be.
func (s Scope) Remembers() bool {
	return s.Remember > 0 && s.speaks("tcp")
}
