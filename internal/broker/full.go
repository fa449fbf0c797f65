package broker

import (
	"net"
	"time"

	"banmesh/internal/broker/frame"
)

// A broker that is full tells those that it turns away: it reads their CONNECT
// and answers. There are places for tellMost of them beside the limit, each for
// tellTime at most; who comes while these are taken finds the connection closed.
const (
	tellMost = 64
	tellTime = 2 * time.Second
	// idleLeast is for how long a connection may do nothing of use before one
	// that comes to a full broker takes its place.
	idleLeast = 5 * time.Second
	// sampled is how many connections are looked at for the one that goes: the
	// worst of so many is among the worst of all.
	sampled = 128
)

// refusedFor gives why a connection was accepted only to be told, or "".
func refusedFor(nc net.Conn) string {
	for {
		if c, ok := nc.(*counted); ok {
			return c.refused
		}
		inner, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return ""
		}
		nc = inner.NetConn()
	}
}

// makeRoom closes a connection in favour of a client that has logged in: one
// that does nothing of use, or, for a client that is known, one that is not.
func (b *Broker) makeRoom(c *conn) bool {
	now := b.now()
	var idle, unknown *conn
	b.connsMu.Lock()
	n := 0
	for other := range b.conns { // in an order of chance
		if n++; n > sampled {
			break
		}
		switch {
		case other == c, !other.entered.Load():
		case !other.useful.Load() && now.Sub(other.began) >= idleLeast:
			if idle == nil || other.began.Before(idle.began) {
				idle = other
			}
		case c.known.Load() && !other.known.Load():
			if unknown == nil || other.began.After(unknown.began) {
				unknown = other
			}
		}
	}
	b.connsMu.Unlock()
	for _, victim := range []*conn{idle, unknown} {
		if victim != nil {
			victim.kick("room for another")
			return true
		}
	}
	return false
}

// full decides on a client that logged in to a broker that has no place left.
func (b *Broker) full(c *conn) error {
	if b.accepted.Load() <= int64(b.limits.Connections) || b.makeRoom(c) {
		return nil
	}
	return &errLogin{frame.RefusedUnavailable, "full"}
}
