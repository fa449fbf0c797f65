package broker

import (
	"context"
	"crypto/ed25519"
	"errors"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/wire"
)

// An identity is who a client is. It is comparable: the same identity may take
// over a session.
type identity struct {
	method   string // "anonymous", "key" or "user"
	user     string
	operator ban.Operator // zero where a certificate alone spoke for the key
	node     ban.Node
	access   Access
}

func (w identity) String() string {
	switch w.method {
	case "key":
		return "node " + w.node.String()
	case "user":
		return "user " + w.user
	}
	return w.method
}

// errLogin is a refusal: code is for the client, why for counters and logs.
type errLogin struct {
	code byte
	why  string
}

func (e *errLogin) Error() string { return e.why }

// authenticate decides who a client is from its CONNECT. It checks the cheap rules
// first; a CONNECT that asks for more than this broker does is refused in
// the client's own protocol.
func (b *Broker) authenticate(ctx context.Context, c *conn, n frame.Connection) (identity, error) {
	switch {
	case n.Level != frame.Level311:
		code := frame.RefusedVersion
		if n.Level == frame.Level5 {
			code = frame.RefusedVersion5
		}
		return identity{}, &errLogin{code, "protocol version"}
	case len(n.ClientID) > maxClientID:
		return identity{}, &errLogin{frame.RefusedIdentifier, "client identifier"}
	case len(n.ClientID) == 0 && !n.Clean:
		return identity{}, &errLogin{frame.RefusedIdentifier, "client identifier"}
	case !b.options.Open && n.Will:
		return identity{}, &errLogin{frame.RefusedAuthorized, "will"}
	case !b.options.Open && (n.Keepalive == 0 || c.keepalive > b.limits.MaxKeepalive):
		return identity{}, &errLogin{frame.RefusedAuthorized, "keepalive"}
	}
	who, err := b.identify(ctx, c, n)
	if err != nil {
		return who, err
	}
	if who.method == "key" && b.banned.has(who.node.String(), who.operator.String()) {
		return who, &errLogin{frame.RefusedAuthorized, "banned key"}
	}
	if old := b.sessions.get(string(n.ClientID)); old != nil && who.method != "key" && old.who != who {
		return who, &errLogin{frame.RefusedIdentifier, "client identifier in use"}
	}
	return who, nil
}

// maxClientID bounds client identifiers, in bytes. MQTT asks for 23; bridges
// use host names.
const maxClientID = 128

func (b *Broker) identify(ctx context.Context, c *conn, n frame.Connection) (identity, error) {
	if !n.HasUser {
		if who, ok := b.certified(c, n); ok {
			return who, nil
		}
		if b.options.Anonymous == AccessNone {
			return identity{}, &errLogin{frame.RefusedAuthorized, "no login"}
		}
		return identity{method: "anonymous", access: b.options.Anonymous}, nil
	}
	if u, ok := b.options.Users[string(n.User)]; ok {
		switch ok, err := b.passwords.check(ctx, c.remote.Addr(), u.Hash, n.Password); {
		case err != nil:
			return identity{}, &errLogin{frame.RefusedUnavailable, "too many passwords to check"}
		case !ok:
			return identity{}, &errLogin{frame.RefusedPassword, "password"}
		}
		return identity{method: "user", user: string(n.User), access: u.Access}, nil
	}
	if b.options.Keys {
		l, err := wire.VerifyLogin(string(n.ClientID), string(n.User), string(n.Password), b.known(), b.now())
		if err == nil {
			return identity{method: "key", operator: l.Operator, node: l.Node, access: AccessFull}, nil
		}
		if !b.options.Open {
			why := "proof of key"
			switch {
			case errors.Is(err, wire.ErrLoginBroker):
				why = "proof of key for a broker of another name"
			case errors.Is(err, wire.ErrLoginTime):
				why = "proof of key of another time"
			}
			return identity{}, &errLogin{frame.RefusedPassword, why}
		}
	}
	if b.options.Anonymous == AccessFull && len(b.options.Users) == 0 {
		// A broker that lets everybody in does not mind a name.
		return identity{method: "anonymous", access: AccessFull}, nil
	}
	return identity{}, &errLogin{frame.RefusedPassword, "password"}
}

// counts says whether a client is one that this broker knows: an account, or a
// node of an operator that has its share.
func (b *Broker) counts(who identity) bool {
	switch who.method {
	case "user":
		return true
	case "key":
		return b.admission.known(who.operator)
	}
	return false
}

// known gives the check of the name by which a client called this broker.
func (b *Broker) known() func(string) bool {
	if len(b.options.Names) == 0 {
		return nil
	}
	return func(name string) bool {
		for _, n := range b.options.Names {
			if strings.EqualFold(n, name) {
				return true
			}
		}
		return false
	}
}

// certified accepts a TLS client certificate with an Ed25519 key whose node is
// the client identifier. Who signed it does not matter: TLS has shown that the
// client holds the key, and the operator's card says for whom it speaks.
func (b *Broker) certified(c *conn, n frame.Connection) (identity, bool) {
	state := c.tlsState()
	if !b.options.Keys || state == nil || len(state.PeerCertificates) == 0 {
		return identity{}, false
	}
	key, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return identity{}, false
	}
	node := ban.NodeOf(key)
	return identity{method: "key", node: node, access: AccessFull}, node.String() == string(n.ClientID)
}
