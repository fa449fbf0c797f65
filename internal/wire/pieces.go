package wire

import (
	"encoding/binary"
	"errors"
)

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
