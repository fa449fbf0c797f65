package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/nacl/sign"
)

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

// cutHead parts the body of a head from a state behind it.
func cutHead(text []byte) (body, state []byte) {
	d := Decoder{B: text}
	if decodeHead(&d); d.err != nil {
		return text, nil
	}
	n := len(text) - len(d.B)
	return text[:n], text[n:]
}

// AppendState puts a feed's whole state behind a signed head of it, for the
// retained message, unless it is larger than [MaxState].
func AppendState(head []byte, entries []Entry) []byte {
	state := AppendEntries(nil, entries)
	if len(entries) == 0 || len(state) > MaxState {
		return head
	}
	return append(head[:len(head):len(head)], state...)
}

// BareHead is a head's payload without the state behind it.
func BareHead(payload []byte) []byte {
	if _, body, err := decodeHeader(payload[min(len(payload), sign.Overhead):]); err == nil {
		_, state := cutHead(body)
		return payload[:len(payload)-len(state)]
	}
	return payload
}

func decodeState(state []byte) ([]Entry, error) {
	if len(state) == 0 {
		return nil, nil
	}
	d := &Decoder{B: state}
	es := d.Entries(MaxState)
	if err := d.End(); err != nil {
		return nil, err
	}
	if len(es) == 0 || !bytes.Equal(AppendEntries(nil, es), state) {
		return nil, errForm
	}
	return es, nil
}

// BatchOfHead gives the batch that a retained head, which was verified before, is
// about.
func BatchOfHead(payload []byte) (n uint64, ok bool) {
	h, body, err := decodeHeader(payload[min(len(payload), sign.Overhead):])
	if err != nil || h.Kind != KindHead || len(body) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(body), true
}
