package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A Trust is the list of operators that an operator trusts, published for
// those who follow it. The root key signs; the header's number counts versions.
//
//	operators uvarint | each: operator 16, weight u8, name text
//
// The high bit of the weight says that the author follows that operator's own
// list in turn.
type Trust struct{ Operators []Trusted }

// Trusted is one operator of a [Trust], in order of the operator.
type Trusted struct {
	Operator ban.Operator `json:"operator"`
	Weight   uint8        `json:"weight"` // 0 to 100
	Follows  bool         `json:"follows,omitempty"`
	Name     string       `json:"name"` // the author's name for it; foreign text
}

// followsBit is the high bit of a [Trusted]'s weight on the wire.
const followsBit = 0x80

// Kind implements [Body].
func (*Trust) Kind() Kind { return KindTrust }

// Append implements [Body].
func (t *Trust) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(t.Operators)))
	for _, o := range t.Operators {
		b = append(b, o.Operator[:]...)
		w := o.Weight
		if o.Follows {
			w |= followsBit
		}
		b = append(b, w)
		b = appendText(b, o.Name)
	}
	return b
}

func decodeTrust(d *Decoder) *Trust {
	t := &Trust{}
	for i, n := 0, int(d.Uvarint(MaxTrusted)); i < n && d.err == nil; i++ {
		var o Trusted
		copy(o.Operator[:], d.Take(len(o.Operator)))
		w := d.U8()
		o.Weight, o.Follows, o.Name = w&^followsBit, w&followsBit != 0, d.line(MaxCardName)
		if o.Weight > 100 || i > 0 && string(o.Operator[:]) <= string(t.Operators[i-1].Operator[:]) {
			d.fail(errors.New("operators are not in order, or a weight is above 100"))
		}
		t.Operators = append(t.Operators, o)
	}
	return t
}

// A Definition is a topic definition as text, TOML, that an operator
// publishes. The root key signs; the header's number counts versions. What the
// text means is not this package's business.
//
//	text
type Definition struct{ Text string }

// Kind implements [Body].
func (*Definition) Kind() Kind { return KindDefinition }

// Append implements [Body].
func (t *Definition) Append(b []byte) []byte { return appendText(b, t.Text) }

func decodeDefinition(d *Decoder) *Definition {
	return &Definition{d.text(MaxDefinition)}
}

// SignTrust gives a trust list as a payload for a network.
func SignTrust(root ed25519.PrivateKey, network string, serial uint64, issued time.Time, t Trust) ([]byte, error) {
	slices.SortFunc(t.Operators, func(a, b Trusted) int { return strings.Compare(string(a.Operator[:]), string(b.Operator[:])) })
	return signDocument(root, Header{Kind: KindTrust, Network: network, Number: serial, Issued: issued}, &t)
}

// SignDefinition gives a topic definition as a payload for a network.
func SignDefinition(root ed25519.PrivateKey, network string, topic ban.Topic, serial uint64, issued time.Time, text string) ([]byte, error) {
	return signDocument(root, Header{Kind: KindDefinition, Network: network, Topic: topic, Number: serial, Issued: issued}, &Definition{text})
}

func signDocument(root ed25519.PrivateKey, h Header, body Body) ([]byte, error) {
	h.Operator = ban.OperatorOf(root.Public().(ed25519.PublicKey))
	out := Seal(root, h, body.Append(nil))
	if _, err := Open(Name{Network: h.Network, Kind: h.Kind, Topic: h.Topic, Operator: h.Operator}, out); err != nil {
		return nil, fmt.Errorf("signing the %v: %w", h.Kind, err)
	}
	return out, nil
}

// OpenDocument reads a document of an operator wherever it was found.
func OpenDocument(raw []byte) (*Message, error) {
	h, err := Peek(raw)
	if err != nil {
		return nil, err
	}
	if !h.Kind.IsDocument() {
		return nil, fmt.Errorf("%w: it is a %v", ErrMisplaced, h.Kind)
	}
	return Open(Name{Network: h.Network, Kind: h.Kind, Topic: h.Topic, Operator: h.Operator}, raw)
}
