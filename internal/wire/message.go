package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

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
	// [Dispute], [Card], [Trust] and [Definition].
	Body Body
	// Hash is the hash of the encoded body, by which heads and manifests name
	// pieces.
	Hash Hash
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
	h, text, err := openEnvelope(name, payload)
	if err != nil {
		return nil, err
	}
	return decodeMessage(name, payload, h, text)
}

// decodeMessage makes a message of a payload whose signature matches.
func decodeMessage(name Name, payload []byte, h Header, text []byte) (*Message, error) {
	body, err := decodeBody(h, text)
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrFormat, h.Kind, err)
	}
	hash := HashOf(text)
	if c, ok := body.(*Card); ok {
		c.Hash = hash
	}
	return &Message{Name: name, Header: h, Body: body, Hash: hash, Raw: payload}, nil
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

// A Head commits to a feed's state. Of two heads of an epoch the one with the
// higher number is the newer; two different ones with the same number prove
// that the author, or who has its key, tells different stories.
//
//	n u64 | ttl u32 | gc u32 | count u32 | fingerprint 32 | card u64 | card hash 16 | ring u16 |
//	snapshot n u64 | snapshot gc u32 | 0 u8, pieces
//	                                 | 1 u8, manifest hash 16, size u32
//	                                 | 2 u8
type Head struct {
	N           uint64        // the newest delta
	TTL         time.Duration // whole seconds; after it, without another head, the feed is stale
	GC          uint32        // claims that end at or before this minute have left
	Count       uint32        // claims in the feed
	Fingerprint Fingerprint   // of the state after N and GC
	CardSerial  uint64        // of the newest card of the operator that the author has; 0 for none
	CardHash    Hash          // of that card's body
	Ring        uint16        // slots of the ring of deltas: delta n is in slot n mod Ring
	SnapshotN   uint64        // the delta up to which the chunks reach
	SnapshotGC  uint32        // the expiry that the chunks have seen
	Stolen      bool          // the author says that somebody else has its key: nothing of the node is to be believed any more
	Pieces      *Pieces       // nil where a manifest lists them
	Manifest    Hash
	Size        uint32 // of the manifest's body, in bytes
}

// Kind implements [Body].
func (*Head) Kind() Kind { return KindHead }

// Append implements [Body].
func (h *Head) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, h.N)
	b = binary.BigEndian.AppendUint32(b, uint32(h.TTL/time.Second))
	b = binary.BigEndian.AppendUint32(b, h.GC)
	b = binary.BigEndian.AppendUint32(b, h.Count)
	b = append(b, h.Fingerprint[:]...)
	b = binary.BigEndian.AppendUint64(b, h.CardSerial)
	b = append(b, h.CardHash[:]...)
	b = binary.BigEndian.AppendUint16(b, h.Ring)
	b = binary.BigEndian.AppendUint64(b, h.SnapshotN)
	b = binary.BigEndian.AppendUint32(b, h.SnapshotGC)
	switch {
	case h.Stolen:
		return append(b, 2)
	case h.Pieces != nil:
		return h.Pieces.Append(append(b, 0))
	}
	b = append(append(b, 1), h.Manifest[:]...)
	return binary.BigEndian.AppendUint32(b, h.Size)
}

func decodeHead(d *Decoder) *Head {
	h := &Head{N: d.U64(), TTL: time.Duration(d.U32()) * time.Second, GC: d.U32(), Count: d.U32()}
	copy(h.Fingerprint[:], d.Take(len(h.Fingerprint)))
	h.CardSerial = d.U64()
	copy(h.CardHash[:], d.Take(len(h.CardHash)))
	h.Ring, h.SnapshotN, h.SnapshotGC = d.u16(), d.U64(), d.U32()
	switch form := d.U8(); form {
	case 0:
		h.Pieces = decodePieces(d, MaxInlinePieces)
	case 1:
		copy(h.Manifest[:], d.Take(len(h.Manifest)))
		h.Size = d.U32()
	case 2:
		h.Stolen = true
	default:
		d.fail(fmt.Errorf("unknown form %d", form))
	}
	switch {
	case d.err != nil:
	case h.Ring == 0 || h.Ring > MaxRing:
		d.fail(fmt.Errorf("a ring of %d slots", h.Ring))
	case h.TTL == 0 || h.TTL > MaxTTL:
		d.fail(fmt.Errorf("a freshness limit of %v", h.TTL))
	case h.Count > MaxFeedClaims:
		d.fail(fmt.Errorf("%d claims", h.Count))
	case h.SnapshotN > h.N || h.SnapshotGC > h.GC:
		d.fail(errors.New("the snapshot is newer than the feed"))
	}
	return h
}

// Pieces lists a feed's chunks and segments.
//
//	chunks uvarint | per chunk: lo bytes, slot uvarint, hash 16, size uvarint |
//	segments uvarint | per segment: from uvarint, to - from uvarint, slot uvarint, hash 16, size uvarint
type Pieces struct {
	Chunks   []ChunkRef   // cover all keys, in order: each from its Lo to the next one's
	Segments []SegmentRef // in order, each beginning where the one before ends
}

// A ChunkRef names a chunk. Lo is a kind and a key, or empty for the first.
type ChunkRef struct {
	Lo   string
	Slot int
	Hash Hash
	Size uint32
}

// A SegmentRef names a segment: deltas From (not included) to To (included).
type SegmentRef struct {
	From, To uint64
	Slot     int
	Hash     Hash
	Size     uint32
}

// Append implements [Body].
func (p *Pieces) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(p.Chunks)))
	for _, c := range p.Chunks {
		b = appendText(b, c.Lo)
		b = binary.AppendUvarint(b, uint64(c.Slot))
		b = append(b, c.Hash[:]...)
		b = binary.AppendUvarint(b, uint64(c.Size))
	}
	b = binary.AppendUvarint(b, uint64(len(p.Segments)))
	for _, s := range p.Segments {
		b = binary.AppendUvarint(b, s.From)
		b = binary.AppendUvarint(b, s.To-s.From)
		b = binary.AppendUvarint(b, uint64(s.Slot))
		b = append(b, s.Hash[:]...)
		b = binary.AppendUvarint(b, uint64(s.Size))
	}
	return b
}

func decodePieces(d *Decoder, most int) *Pieces {
	p := &Pieces{}
	for i, n := 0, int(d.Uvarint(uint64(most))); i < n && d.err == nil; i++ {
		c := ChunkRef{Lo: d.text(maxKey), Slot: int(d.Uvarint(MaxSlot))}
		copy(c.Hash[:], d.Take(len(c.Hash)))
		c.Size = uint32(d.Uvarint(MaxPayload))
		if i == 0 && c.Lo != "" || i > 0 && c.Lo <= p.Chunks[i-1].Lo {
			d.fail(errors.New("chunks are not in order"))
		}
		p.Chunks = append(p.Chunks, c)
	}
	for i, n := 0, int(d.Uvarint(uint64(most))); i < n && d.err == nil; i++ {
		s := SegmentRef{From: d.Uvarint(1<<64 - 1)}
		s.To = s.From + d.Uvarint(1<<64-1-s.From)
		s.Slot = int(d.Uvarint(MaxSlot))
		copy(s.Hash[:], d.Take(len(s.Hash)))
		s.Size = uint32(d.Uvarint(MaxPayload))
		if s.To == s.From || i > 0 && s.From != p.Segments[i-1].To {
			d.fail(errors.New("segments are not in order"))
		}
		p.Segments = append(p.Segments, s)
	}
	return p
}

// A Manifest lists the pieces that a head names by its hash.
type Manifest struct{ Pieces Pieces }

// Kind implements [Body].
func (*Manifest) Kind() Kind { return KindManifest }

// Append implements [Body].
func (m *Manifest) Append(b []byte) []byte { return m.Pieces.Append(b) }
func decodeManifest(d *Decoder) *Manifest  { return &Manifest{*decodePieces(d, MaxPieces)} }

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
