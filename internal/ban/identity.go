package ban

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
)

// An Operator identifies a person or group: the first 16 bytes of the SHA-256
// of the operator's root public key. Trust and quorum count operators.
type Operator [16]byte

// A Node identifies a machine of an operator: the first 10 bytes of the
// SHA-256 of the node's public key. Only its operator can certify a node, so a
// collision could harm nobody else.
type Node [10]byte

// Lengths of the texts of an [Operator] and a [Node], in bytes.
const (
	OperatorText = 26
	NodeText     = 16
)

// ErrIdentity says that a text is not an identity.
var ErrIdentity = errors.New("not an identity")

var identityEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// OperatorOf gives the operator of a 32-byte Ed25519 root public key.
func OperatorOf(public []byte) (o Operator) {
	sum := sha256.Sum256(public)
	copy(o[:], sum[:])
	return o
}

// NodeOf gives the node of a 32-byte Ed25519 node public key.
func NodeOf(public []byte) (n Node) {
	sum := sha256.Sum256(public)
	copy(n[:], sum[:])
	return n
}

// String gives 26 characters of lower-case base32, the form of MQTT topics.
func (o Operator) String() string { return identityEncoding.EncodeToString(o[:]) }

// String gives 16 characters of lower-case base32, the form of MQTT topics.
func (n Node) String() string { return identityEncoding.EncodeToString(n[:]) }

// ParseOperator reads the text that [Operator.String] gives, and no other.
func ParseOperator(s string) (o Operator, err error) {
	err = parseIdentity(s, o[:], OperatorText)
	return o, err
}

// ParseNode reads the text that [Node.String] gives, and no other.
func ParseNode(s string) (n Node, err error) {
	err = parseIdentity(s, n[:], NodeText)
	return n, err
}

// parseIdentity accepts the canonical spelling only: trailing bits must be
// zero, so that one identity has one MQTT topic.
func parseIdentity(s string, into []byte, length int) error {
	if len(s) != length {
		return fmt.Errorf("%q: %w: want %d characters", clip(s), ErrIdentity, length)
	}
	b, err := identityEncoding.DecodeString(s)
	if err != nil || len(b) != len(into) || identityEncoding.EncodeToString(b) != s {
		return fmt.Errorf("%q: %w: want lower-case base32 (a-z, 2-7)", clip(s), ErrIdentity)
	}
	copy(into, b)
	return nil
}

// MarshalText implements [encoding.TextMarshaler].
func (o Operator) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (o *Operator) UnmarshalText(b []byte) (err error) {
	*o, err = ParseOperator(string(b))
	return err
}

// MarshalText implements [encoding.TextMarshaler].
func (n Node) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (n *Node) UnmarshalText(b []byte) (err error) {
	*n, err = ParseNode(string(b))
	return err
}

// clip bounds foreign text that an error repeats.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
