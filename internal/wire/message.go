package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"banmesh/internal/ban"
)

// A Message is an opened payload: it stands where it belongs, its signer's
// signature matches and its body is in the one form that encodes it. That the
// operator certified the node is for the reader's [Card] to say, and that the
// message is new for the reader's marks.
type Message struct {
	Name   Name
	Header Header
	// Body is one of [Head], [Delta], [Segment], [Chunk], [Manifest],
	// [Dispute], [Card], [Trust], [Definition] and [List].
	Body Body
	// Hash is the hash of the encoded body, by which heads and manifests name
	// pieces.
	Hash Hash
	// State are the entries behind a retained head, nil where there are none. They
	// are not signed: they are the feed's state if they have the head's fingerprint.
	State []Entry
	// Raw is the payload. It is the caller's and must not be changed.
	Raw []byte
}

// A Body is the typed content of a message.
type Body interface {
	// Kind is the kind of message that has such a body.
	Kind() Kind
	// Append writes the only coding that decoding takes.
	Append(b []byte) []byte
}

// Hash is the first 16 bytes of the SHA-256 of a body.
type Hash [16]byte

// Open reads a payload that was found at name, in this order: size, placement,
// signature, strict decoding. It fails with [ErrSize], [ErrFormat],
// [ErrMisplaced] or [ErrSignature], wrapped. Cost and memory are linear in the
// payload.
func Open(name Name, payload []byte) (*Message, error) {
	m, err := OpenAnySlot(name, payload)
	return placed(m, name, err)
}

// placed checks the slot in a message's body.
func placed(m *Message, name Name, err error) (*Message, error) {
	if err != nil {
		return nil, err
	}
	if slot, ok := slotOf(m.Body); ok && slot != name.Slot {
		return nil, fmt.Errorf("%w: it is for slot %d", ErrMisplaced, slot)
	}
	return m, nil
}

// OpenAnySlot is Open for a message that was found elsewhere than in its slot.
func OpenAnySlot(name Name, payload []byte) (*Message, error) {
	h, text, state, err := openEnvelope(name, payload)
	if err != nil {
		return nil, err
	}
	return decodeMessage(name, payload, h, text, state)
}

// decodeMessage makes a message of a payload whose signature matches.
func decodeMessage(name Name, payload []byte, h Header, text, state []byte) (*Message, error) {
	body, err := decodeBody(h, text)
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrFormat, h.Kind, err)
	}
	entries, err := decodeState(state)
	if err != nil {
		return nil, fmt.Errorf("%w: the state behind a head: %w", ErrFormat, err)
	}
	hash := HashOf(text)
	if c, ok := body.(*Card); ok {
		c.Hash = hash
	}
	return &Message{Name: name, Header: h, Body: body, Hash: hash, State: entries, Raw: payload}, nil
}

// errForm says that a body is not encoded in the one way that the protocol
// gives it.
var errForm = errors.New("it is not in canonical form")

func decodeBody(h Header, text []byte) (Body, error) {
	d := &Decoder{B: text}
	var body Body
	switch h.Kind {
	case KindHead:
		body = decodeHead(d)
	case KindDelta:
		body = decodeDelta(d)
	case KindSegment:
		body = decodeSegment(d)
	case KindChunk:
		body = DecodeChunk(d)
	case KindManifest:
		body = decodeManifest(d)
	case KindDispute:
		body = decodeDispute(d)
	case KindCard:
		body = decodeCard(d, h)
	case KindTrust:
		body = decodeTrust(d)
	case KindDefinition:
		body = decodeDefinition(d)
	case KindList:
		body = decodeList(d)
	case KindInvitation:
		body = decodeInvitation(d)
	default:
		return nil, fmt.Errorf("unknown kind %d", h.Kind)
	}
	if err := d.End(); err != nil {
		return nil, err
	}
	if !bytes.Equal(body.Append(make([]byte, 0, len(text))), text) {
		return nil, errForm
	}
	return body, nil
}

func slotOf(b Body) (int, bool) {
	switch b := b.(type) {
	case *Segment:
		return b.Slot, true
	case *Chunk:
		return b.Slot, true
	}
	return 0, false
}

// maxKey is the longest kind and key.
const maxKey = 1 + 20

// A Delta is one batch of changes; the header's number is its own. Deltas are
// numbered from 1 in an epoch, without a gap. First claims that end at or
// before GC leave, then up is put, then down is taken out.
//
//	gc u32 | fingerprint 32 | entries up | withdrawals down
type Delta struct {
	GC          uint32
	Fingerprint Fingerprint // of the state afterwards
	Up          []Entry
	Down        []Withdrawal
}

// Kind implements [Body].
func (*Delta) Kind() Kind { return KindDelta }

// Append implements [Body].
func (t *Delta) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, t.GC)
	b = append(b, t.Fingerprint[:]...)
	return AppendOps(b, t.Up, t.Down)
}

// AppendOps writes a step: entries up, then withdrawals down.
func AppendOps(b []byte, up []Entry, down []Withdrawal) []byte {
	return appendWithdrawals(AppendEntries(b, up), down)
}

// Ops reads a step.
func (d *Decoder) Ops() (up []Entry, down []Withdrawal) {
	up = d.Entries(MaxMessageClaims)
	return up, d.withdrawals(MaxMessageClaims)
}

// Claims gives the claims that the delta adds or replaces.
func (t *Delta) Claims() []ban.Claim { return ClaimsOf(t.Up) }

// Withdrawn gives the claims that the author ends.
func (t *Delta) Withdrawn() []ban.Withdrawal { return Withdrawals(t.Down) }

func decodeDelta(d *Decoder) *Delta {
	t := &Delta{GC: d.U32()}
	copy(t.Fingerprint[:], d.Take(len(t.Fingerprint)))
	t.Up, t.Down = d.Ops()
	if n := len(t.Up) + len(t.Down); n > MaxDeltaOps {
		d.fail(fmt.Errorf("a delta of %d changes", n))
	}
	return t
}

// A Segment merges deltas: on any state of From <= n < To it gives the state
// of To, in the same way as a delta.
//
//	slot uvarint | from uvarint | to - from uvarint | gc u32 | entries up | withdrawals down
type Segment struct {
	Slot     int
	From, To uint64
	GC       uint32
	Up       []Entry
	Down     []Withdrawal
}

// Kind implements [Body].
func (*Segment) Kind() Kind { return KindSegment }

// Append implements [Body].
func (s *Segment) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(s.Slot))
	b = binary.AppendUvarint(b, s.From)
	b = binary.AppendUvarint(b, s.To-s.From)
	b = binary.BigEndian.AppendUint32(b, s.GC)
	return AppendOps(b, s.Up, s.Down)
}

// Claims gives the claims that the segment adds or replaces.
func (s *Segment) Claims() []ban.Claim { return ClaimsOf(s.Up) }

// Withdrawn gives the claims that the segment takes out.
func (s *Segment) Withdrawn() []ban.Withdrawal { return Withdrawals(s.Down) }

func decodeSegment(d *Decoder) *Segment {
	s := &Segment{Slot: int(d.Uvarint(MaxSlot)), From: d.Uvarint(1<<64 - 1)}
	s.To = s.From + d.Uvarint(1<<64-1-s.From)
	s.GC = d.U32()
	s.Up, s.Down = d.Ops()
	if d.err == nil && s.To == s.From {
		d.fail(errors.New("it covers no delta"))
	}
	return s
}

// A Chunk is the part of a snapshot with keys from Lo to Hi, Hi not included
// and "" for no bound. It does not say of which snapshot, so an unchanged
// range keeps its chunk.
//
//	slot uvarint | lo bytes | hi bytes | entries
type Chunk struct {
	Slot   int
	Lo, Hi string
	Up     []Entry
}

// Kind implements [Body].
func (*Chunk) Kind() Kind { return KindChunk }

// Append implements [Body].
func (c *Chunk) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(c.Slot))
	b = appendText(b, c.Lo)
	b = appendText(b, c.Hi)
	return AppendEntries(b, c.Up)
}

// Claims gives the chunk's claims.
func (c *Chunk) Claims() []ban.Claim { return ClaimsOf(c.Up) }

// DecodeChunk reads the body of a chunk; a fault is the decoder's.
func DecodeChunk(d *Decoder) *Chunk {
	c := &Chunk{Slot: int(d.Uvarint(MaxSlot)), Lo: d.text(maxKey), Hi: d.text(maxKey), Up: d.Entries(MaxMessageClaims)}
	if d.err == nil && c.Hi != "" && c.Hi <= c.Lo {
		d.fail(errors.New("its range is empty"))
	}
	if n := len(c.Up); d.err == nil && n > 0 && (c.Up[0].Key.Text() < c.Lo || c.Hi != "" && c.Up[n-1].Key.Text() >= c.Hi) {
		d.fail(errors.New("a target is outside its range"))
	}
	return c
}

// A Dispute is all that a node disputes in a topic: signed negative votes. A
// claim in it says: this target should not be banned until then. The header's
// number counts versions; the newest replaces all before it.
//
//	entries
type Dispute struct{ Up []Entry }

// Kind implements [Body].
func (*Dispute) Kind() Kind { return KindDispute }

// Append implements [Body].
func (t *Dispute) Append(b []byte) []byte { return AppendEntries(b, t.Up) }
func decodeDispute(d *Decoder) *Dispute   { return &Dispute{d.Entries(MaxMessageClaims)} }

// Claims gives the disputed targets, with Hits 0.
func (t *Dispute) Claims() []ban.Claim { return ClaimsOf(t.Up) }
