package broker

import (
	"crypto/tls"

	"banmesh/internal/broker/frame"
)

// handshakeWait is the part of the time for a login that a TLS handshake may
// wait for its turn; the rest is for the login itself.
const handshakeWait = 2

// paced gives a listener's TLS configuration with the limit of handshakes: a
// handshake costs half a millisecond of a processor, and whoever asks for it
// needs to prove nothing. One that would wait too long is refused before the
// server signs anything; its client comes back later, as after any failure.
func (b *Broker) paced(l Listener) *tls.Config {
	c := l.TLS.Clone()
	inner := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if err := b.paceHandshake(hello); err != nil {
			if l.Kind == SecureWS { // net/http closes it, and tells nobody
				b.count.turnedAway.WithLabelValues(err.why).Inc()
			}
			return nil, err
		}
		if inner != nil {
			return inner(hello)
		}
		return nil, nil
	}
	return c
}

// paceHandshake waits for the turn of a handshake.
func (b *Broker) paceHandshake(hello *tls.ClientHelloInfo) *errLogin {
	refusal := &errLogin{frame.RefusedUnavailable, "too many handshakes"}
	from := addrPort(hello.Conn.RemoteAddr()).Addr()
	wait, ok := b.perIP.hello(from, b.now(), &b.limits, b.limits.ConnectTime/handshakeWait)
	if !ok {
		return refusal
	}
	if wait > 0 {
		b.count.handshakesPaced.Inc()
		if pause(wait, hello.Context().Done()) {
			return refusal
		}
	}
	return nil
}
