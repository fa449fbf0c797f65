package wire

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/sign"

	"banmesh/internal/ban"
)

// loginMagic begins the signed text of a login, so that none can pass for a
// message or the other way round.
const loginMagic = "BMSH login 1"

// maxBrokerName is the longest broker name: a DNS name.
const maxBrokerName = 253

// ErrLogin says that an MQTT CONNECT does not prove a key.
var ErrLogin = errors.New("the login does not prove a node's key")

// A Login is who an MQTT client proved to be.
type Login struct {
	Operator ban.Operator // who the node says it belongs to; its card decides
	Node     ban.Node
	Key      PublicKey
	Broker   string // the broker that the proof is for
	Expires  time.Time
}

// LoginPassword gives the MQTT password by which a node proves its key to a
// broker that has no accounts. The client identifier is the node's text, the
// user name the operator's. It is the base64 (raw URL alphabet) of
//
//	signature 64 | "BMSH login 1" | operator 16 | key 32 | expires u32 | broker text
//
// where broker is the host in the URL that the client dialled, without port,
// so that a broker cannot use the proof at another one.
func LoginPassword(node ed25519.PrivateKey, operator ban.Operator, broker string, expires time.Time) string {
	text := append([]byte(loginMagic), operator[:]...)
	text = append(text, node.Public().(ed25519.PublicKey)...)
	text = binary.BigEndian.AppendUint32(text, Seconds(expires))
	text = appendText(text, broker)
	private := [64]byte(node)
	return base64.RawURLEncoding.EncodeToString(sign.Sign(nil, text, &private))
}

// Two of the reasons for which a proof is refused, for whoever runs the broker:
// both mean that somebody's settings are wrong, not that a key is.
var (
	ErrLoginBroker = errors.New("it is for the broker")
	ErrLoginTime   = errors.New("it is of another time")
)

// VerifyLogin checks an MQTT CONNECT against [LoginPassword]. accept says
// whether the broker goes by a name; nil accepts every name. It fails with
// [ErrLogin], wrapped.
func VerifyLogin(clientID, user, password string, accept func(broker string) bool, now time.Time) (Login, error) {
	l, err := verifyLogin(clientID, user, password, now)
	if err == nil && accept != nil && !accept(l.Broker) {
		err = fmt.Errorf("%w %q", ErrLoginBroker, l.Broker)
	}
	if err != nil {
		return Login{}, fmt.Errorf("%w: %w", ErrLogin, err)
	}
	return l, nil
}

func verifyLogin(clientID, user, password string, now time.Time) (l Login, err error) {
	const most = sign.Overhead + len(loginMagic) + 16 + 32 + 4 + 2 + maxBrokerName
	if base64.RawURLEncoding.DecodedLen(len(password)) > most {
		return l, errors.New("the password is too long")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(password)
	if err != nil || len(b) <= sign.Overhead {
		return l, errors.New("the password is not a login proof")
	}
	d := Decoder{B: b[sign.Overhead:]}
	if string(d.Take(len(loginMagic))) != loginMagic {
		return l, errors.New("the password is not a login proof")
	}
	copy(l.Operator[:], d.Take(len(l.Operator)))
	copy(l.Key[:], d.Take(len(l.Key)))
	l.Expires = d.time()
	l.Broker = d.line(maxBrokerName)
	if err := d.End(); err != nil {
		return l, err
	}
	l.Node = ban.NodeOf(l.Key[:])
	key := [32]byte(l.Key)
	_, ok := sign.Open(nil, b, &key)
	switch {
	case !ok:
		err = ErrSignature
	case clientID != l.Node.String():
		err = errors.New("the client identifier is not the node that signed")
	case user != l.Operator.String():
		err = errors.New("the user name is not the operator in the proof")
	case now.After(l.Expires):
		err = fmt.Errorf("%w: it expired at %s", ErrLoginTime, l.Expires.Format(time.RFC3339))
	case l.Expires.After(now.Add(MaxLoginLife)):
		err = fmt.Errorf("%w: it is good for more than %v", ErrLoginTime, MaxLoginLife)
	}
	return l, err
}
