package broker

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

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
func (b *Broker) authenticate(c *conn, n frame.Connection) (identity, error) {
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
	who, err := b.identify(c, n)
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

func (b *Broker) identify(c *conn, n frame.Connection) (identity, error) {
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
		if !b.passwords.check(u.Hash, n.Password) {
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

// passwordRounds makes one guess cost about 20 ms of a processor.
const passwordRounds = 100_000

// HashPassword gives the hash of a password for a configuration file.
func HashPassword(password string) (string, error) {
	salt := make([]byte, 16)
	if _, err := rand.Read(salt); err != nil {
		return "", err
	}
	sum, err := pbkdf2.Key(sha256.New, password, salt, passwordRounds, sha256.Size)
	if err != nil {
		return "", err
	}
	e := base64.RawStdEncoding
	return fmt.Sprintf("pbkdf2-sha256$%d$%s$%s", passwordRounds, e.EncodeToString(salt), e.EncodeToString(sum)), nil
}

// ErrHash says that a text is not a password hash.
var ErrHash = errors.New("not a password hash; `broker hash` makes one")

// CheckHash checks the form of a hash.
func CheckHash(hash string) error {
	_, _, _, err := parseHash(hash)
	return err
}

func parseHash(hash string) (rounds int, salt, sum []byte, err error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 4 || parts[0] != "pbkdf2-sha256" {
		return 0, nil, nil, ErrHash
	}
	rounds, err1 := strconv.Atoi(parts[1])
	salt, err2 := base64.RawStdEncoding.DecodeString(parts[2])
	sum, err3 := base64.RawStdEncoding.DecodeString(parts[3])
	if errors.Join(err1, err2, err3) != nil || rounds < 1 || rounds > 10_000_000 || len(sum) != sha256.Size {
		return 0, nil, nil, ErrHash
	}
	return rounds, salt, sum, nil
}

// A passwords checks passwords, one at a time, so that guesses cannot take
// more than one processor, and remembers those that passed, so that those who know
// theirs do not wait for those who guess.
type passwords struct {
	secret [32]byte

	mu     sync.Mutex
	passed map[[32]byte]struct{}
	work   sync.Mutex
}

// maxPassed bounds the passwords that are remembered.
const maxPassed = 4096

func newPasswords() *passwords {
	p := &passwords{passed: map[[32]byte]struct{}{}}
	if _, err := rand.Read(p.secret[:]); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return p
}

func (p *passwords) check(hash string, password []byte) bool {
	mac := hmac.New(sha256.New, p.secret[:])
	mac.Write([]byte(hash))
	mac.Write([]byte{0})
	mac.Write(password)
	mark := [32]byte(mac.Sum(nil))
	p.mu.Lock()
	_, ok := p.passed[mark]
	p.mu.Unlock()
	if ok {
		return true
	}
	p.work.Lock()
	defer p.work.Unlock()
	rounds, salt, want, err := parseHash(hash)
	if err != nil {
		return false
	}
	sum, err := pbkdf2.Key(sha256.New, string(password), salt, rounds, sha256.Size)
	if err != nil || !hmac.Equal(sum, want) {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.passed) >= maxPassed {
		clear(p.passed)
	}
	p.passed[mark] = struct{}{}
	return true
}
