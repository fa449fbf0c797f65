package wire

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/sign"

	"banmesh/internal/ban"
)

// The faults of a foreign payload, for those who branch or count.
var (
	ErrSize      = errors.New("the payload is empty or too large")
	ErrFormat    = errors.New("the payload is not a message of the protocol")
	ErrMisplaced = errors.New("the message belongs elsewhere")
	ErrSignature = errors.New("the signature does not match")
	ErrFuture    = errors.New("the message is dated in the future")
)

// Version is the version of the protocol that this package speaks.
const Version = 1

// magic begins every signed text of the protocol, so that nothing that a key
// signs for another purpose can pass for a message.
const magic = "BMSH"

// A PublicKey is an Ed25519 public key (RFC 8032).
type PublicKey [ed25519.PublicKeySize]byte

// A Header is a message's account of itself, under its signature:
//
//	"BMSH" | version u8 | kind u8 | network text | topic text | operator 16 |
//	signer 32 | epoch u64 | number u64 | issued u32
//
// where a text is a uvarint length and bytes, and integers are big-endian.
type Header struct {
	Kind     Kind
	Network  string    // "" in a card, which is the same in every network
	Topic    ban.Topic // "" in a card or trust list
	Operator ban.Operator
	// Signer is the key of the node, or the root key where the kind is an
	// operator's.
	Signer PublicKey
	// Epoch is the author's fresh start: Unix seconds, or more where there were
	// later ones before, and 24 random bits below. 0 in an operator's documents.
	Epoch uint64
	// Number orders the messages of one MQTT topic within an epoch; it never
	// falls. A head counts heads, a delta batches; a chunk has the batch of
	// the snapshot it was written for, a segment that of its end; documents
	// and disputes count their versions.
	Number uint64
	// Issued is the author's clock, in whole seconds.
	Issued time.Time
}

// Node is the node whose key signed; meaningless for operators' documents.
func (h Header) Node() ban.Node { return ban.NodeOf(h.Signer[:]) }

// EpochShift is the random bits of an epoch.
const EpochShift = 24

// appendHeader gives the signed text's beginning.
func appendHeader(b []byte, h Header) []byte {
	b = append(b, magic...)
	b = append(b, Version, byte(h.Kind))
	b = appendText(b, h.Network)
	b = appendText(b, string(h.Topic))
	b = append(b, h.Operator[:]...)
	b = append(b, h.Signer[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Epoch)
	b = binary.BigEndian.AppendUint64(b, h.Number)
	return binary.BigEndian.AppendUint32(b, Seconds(h.Issued))
}

// decodeHeader reads the header of a signed text and gives the body.
func decodeHeader(text []byte) (h Header, body []byte, err error) {
	d := Decoder{B: text}
	if m := d.Take(len(magic)); string(m) != magic {
		return h, nil, fmt.Errorf("%w: it does not begin with %q", ErrFormat, magic)
	}
	if v := d.U8(); d.err == nil && v != Version {
		return h, nil, fmt.Errorf("%w: version %d; this program speaks %d", ErrFormat, v, Version)
	}
	h.Kind = Kind(d.U8())
	h.Network = d.text(ban.MaxTopic)
	h.Topic = ban.Topic(d.text(ban.MaxTopic))
	copy(h.Operator[:], d.Take(len(h.Operator)))
	copy(h.Signer[:], d.Take(len(h.Signer)))
	h.Epoch, h.Number = d.U64(), d.U64()
	h.Issued = time.Unix(int64(d.U32()), 0).UTC()
	if d.err != nil {
		return h, nil, fmt.Errorf("%w: header: %w", ErrFormat, d.err)
	}
	return h, d.B, nil
}

// Inspect reads a payload's header and checks that the message belongs where
// it was found: kind, network, topic, operator and signer's key against name.
// It does not check the signature, costs no more than a hash of 32 bytes, and
// allocates nothing that grows with the payload.
func Inspect(name Name, payload []byte) (Header, error) {
	h, _, err := InspectBody(name, payload)
	return h, err
}

// InspectBody is [Inspect], and gives the body that was not decoded.
func InspectBody(name Name, payload []byte) (h Header, body []byte, err error) {
	h, body, _, err = inspect(name, payload)
	return h, body, err
}

// inspect is InspectBody, and gives the bytes of a state behind a head, which
// nobody signed.
func inspect(name Name, payload []byte) (h Header, body, state []byte, err error) {
	h, body, err = inspectWhole(name, payload)
	if err == nil && h.Kind == KindHead {
		body, state = cutHead(body)
		if len(payload)-len(state) > MaxLivePayload || len(state) > MaxState {
			return h, nil, nil, fmt.Errorf("%w: %d bytes, %d of them a state", ErrSize, len(payload), len(state))
		}
	}
	return h, body, state, err
}

func inspectWhole(name Name, payload []byte) (h Header, body []byte, err error) {
	if len(payload) <= sign.Overhead || len(payload) > maxPayload(name.Kind) {
		return h, nil, fmt.Errorf("%w: %d bytes", ErrSize, len(payload))
	}
	h, body, err = decodeHeader(payload[sign.Overhead:])
	if err != nil {
		return h, nil, err
	}
	network, topic := name.Network, name.Topic
	if name.Kind == KindCard {
		network = ""
	}
	switch {
	case h.Kind != name.Kind:
		err = fmt.Errorf("%w: it is a %v", ErrMisplaced, h.Kind)
	case h.Network != network:
		err = fmt.Errorf("%w: it is for network %q", ErrMisplaced, h.Network)
	case h.Topic != topic:
		err = fmt.Errorf("%w: it is about %q", ErrMisplaced, h.Topic)
	case h.Operator != name.Operator:
		err = fmt.Errorf("%w: it is of operator %v", ErrMisplaced, h.Operator)
	case h.Kind.OfNode() && h.Node() != name.Node:
		err = fmt.Errorf("%w: it is of node %v", ErrMisplaced, h.Node())
	case !h.Kind.OfNode() && ban.OperatorOf(h.Signer[:]) != name.Operator:
		err = fmt.Errorf("%w: its key is not the operator's root key", ErrMisplaced)
	}
	return h, body, err
}

// maxPayload is the largest payload of a kind.
func maxPayload(k Kind) int {
	switch k {
	case KindHead:
		return MaxLivePayload + MaxState
	case KindCard:
		return MaxCard
	case KindList:
		return MaxSent
	}
	return MaxPayload
}

// openEnvelope checks placement and signature and gives header and body. The
// body aliases a copy, not the payload.
func openEnvelope(name Name, payload []byte) (h Header, body, state []byte, err error) {
	h, body, state, err = inspect(name, payload)
	if err != nil {
		return h, nil, nil, err
	}
	payload = payload[:len(payload)-len(state)]
	key := [32]byte(h.Signer)
	text, ok := sign.Open(make([]byte, 0, len(payload)-sign.Overhead), payload, &key)
	if !ok {
		return h, nil, nil, ErrSignature
	}
	return h, text[len(text)-len(body):], state, nil
}

// Seal signs header and body. The header's signer is the key's own.
func Seal(key ed25519.PrivateKey, h Header, body []byte) []byte {
	copy(h.Signer[:], key.Public().(ed25519.PublicKey))
	text := append(appendHeader(make([]byte, 0, 192+len(body)), h), body...)
	private := [64]byte(key)
	return sign.Sign(make([]byte, 0, sign.Overhead+len(text)), text, &private)
}

// Seconds gives whole seconds since the Unix epoch, in 32 bits.
func Seconds(t time.Time) uint32 {
	s := t.Unix()
	return uint32(max(0, min(s, 1<<32-1)))
}

// Minutes gives whole minutes since the Unix epoch, rounded down.
func Minutes(t time.Time) uint32 { return Seconds(t) / 60 }

// minutesUp gives whole minutes, rounded up: a ban never ends early.
func minutesUp(t time.Time) uint32 {
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return uint32(max(0, min((s+59)/60, 1<<32-1)))
}

// TimeOfMinute gives the moment of minutes since the Unix epoch.
func TimeOfMinute(m uint32) time.Time { return time.Unix(int64(m)*60, 0).UTC() }

// Ahead says whether the message claims to come from a future that no clock
// that is merely wrong explains: readers and brokers refuse it alike.
func (h Header) Ahead(now time.Time) bool {
	return h.Issued.After(now.Add(MaxAhead)) || h.Epoch>>EpochShift > uint64(Seconds(now.Add(MaxEpochAhead)))
}
