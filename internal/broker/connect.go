package broker

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"time"

	"banmesh/internal/broker/frame"
)

// login brings a connection to its login: TLS, the whole CONNECT, and who the
// client is. Until then no byte has reached the engine.
func (c *conn) login() error {
	allowed := c.b.limits.ConnectTime
	if c.refused != "" {
		allowed = min(allowed, tellTime)
	}
	deadline := time.Now().Add(allowed)
	if err := c.net.SetDeadline(deadline); err != nil {
		return err
	}
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if t, ok := c.net.(*tls.Conn); ok {
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
	}
	if err := c.readConnect(ctx); err != nil {
		return err
	}
	return c.net.SetWriteDeadline(time.Time{})
}

// readConnect reads the CONNECT, decides on it, and leaves it ready for the
// engine, changed where this broker's rules say so.
func (c *conn) readConnect(ctx context.Context) error {
	for {
		h, ok, err := frame.ParseHeader(c.in[c.place:], c.limit)
		if err != nil {
			return err
		}
		if ok && h.Type != frame.Connect {
			return frame.ErrProtocol // before the rest of it is even read
		}
		whole := h.Size + h.Remaining
		if !ok || len(c.in)-c.place < whole {
			if err := c.fill(whole); err != nil {
				return err
			}
			continue
		}
		body := c.in[c.place+h.Size : c.place+whole]
		n, err := frame.ParseConnect(h, body)
		if err != nil {
			return err
		}
		c.connection = n
		c.connection.ClientID, c.connection.User = bytes.Clone(n.ClientID), bytes.Clone(n.User)
		c.connection.Password, c.connection.WillTopic = nil, nil
		c.keepalive = time.Duration(n.Keepalive) * time.Second
		if c.refused != "" {
			return &errLogin{frame.RefusedUnavailable, c.refused}
		}
		if c.who, err = c.b.authenticate(ctx, c, n); err != nil {
			return err
		}
		c.identified.Store(&c.who)
		c.known.Store(c.b.counts(c.who))
		if err := c.b.full(c); err != nil {
			return err
		}
		c.entered.Store(true)
		body[n.LevelAt] = n.Level // without the bridge bit, which the engine refuses
		if !c.b.options.Open {
			// Nothing is kept for a client that is away: its session begins
			// anew each time, which it hears in the CONNACK.
			body[n.FlagsAt] |= frame.FlagClean
		}
		c.ready, c.whole = whole, true
		c.limit = c.b.limits.MaxPacket
		return nil
	}
}

// refuse answers a CONNECT. It may block until the deadline of the login.
func (c *conn) refuse(code byte) {
	answer := frame.AppendConnack(nil, code)
	if code == frame.RefusedVersion5 {
		answer = []byte{frame.Connack << 4, 3, 0, code, 0} // with no properties, MQTT 5 section 3.2
	}
	if _, err := c.net.Write(answer); err == nil {
		c.linger()
	}
}

// linger reads the bytes that the client sent meanwhile, a few and not for long:
// closing with unread bytes would reset the connection before the client has
// read the answer.
func (c *conn) linger() {
	if w, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
		_ = c.net.SetReadDeadline(time.Now().Add(time.Second))
		_, _ = io.CopyN(io.Discard, c.net, 4<<10)
	}
}
