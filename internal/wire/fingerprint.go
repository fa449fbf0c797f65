package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// A Fingerprint stands for the state of a feed: the sum modulo 2^128 of the
// first 16 bytes of the SHA-256 of every entry
//
//	kind u8 | key | end u32 | class u8 | hits u8
//
// read and written as big-endian integers. It is the same in whatever order
// entries came, and a change costs one hash. It tells author and reader that
// they agree; it is no proof against an author who wants it to collide.
type Fingerprint [16]byte

func (f *Fingerprint) Add(e *Entry) { f.sum(e, false) }

func (f *Fingerprint) Remove(e *Entry) { f.sum(e, true) }

func (f *Fingerprint) sum(e *Entry, minus bool) {
	var buf [1 + 20 + 4 + 2]byte
	buf[0] = byte(e.Key.Kind)
	n := 1 + copy(buf[1:], e.Key.Bytes())
	binary.BigEndian.PutUint32(buf[n:], e.End)
	n += 4
	n += copy(buf[n:], e.Meta[:])
	h := sha256.Sum256(buf[:n])
	hi, lo := binary.BigEndian.Uint64(f[:8]), binary.BigEndian.Uint64(f[8:])
	x, y := binary.BigEndian.Uint64(h[:8]), binary.BigEndian.Uint64(h[8:16])
	var carry uint64
	if minus {
		lo, carry = bits.Sub64(lo, y, 0)
		hi, _ = bits.Sub64(hi, x, carry)
	} else {
		lo, carry = bits.Add64(lo, y, 0)
		hi, _ = bits.Add64(hi, x, carry)
	}
	binary.BigEndian.PutUint64(f[:8], hi)
	binary.BigEndian.PutUint64(f[8:], lo)
}

func HashOf(body []byte) (h Hash) {
	sum := sha256.Sum256(body)
	copy(h[:], sum[:])
	return h
}
