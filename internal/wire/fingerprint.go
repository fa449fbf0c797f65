package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math/bits"

	"banmesh/internal/ban"
)

// A Fingerprint commits to the state of a feed: no two states are known with
// the same one, even to an author who looks for them. It depends on the state
// alone, not on how it came about, so who joined by a snapshot and who followed
// deltas compute the same. It is the root of a Merkle tree over the entries in
// order of their keys:
//
//   - up to [LeafEntries] entries are a leaf: SHA-256(0 u8 | entries), with each
//     entry as kind u8 | key | end u32 | class u8 | hits u8;
//   - more are parted at the first bit, of kind u8 | key, in which two of them
//     differ: SHA-256(1 u8 | those with 0 | those with 1).
type Fingerprint [sha256.Size]byte

// LeafEntries is how many entries a leaf of the tree holds at most. More would
// make a single change dearer, fewer would take more memory.
const LeafEntries = 128

// The first byte of all that is hashed says which it is.
const (
	leafMark   = 0
	branchMark = 1
)

// A LeafHash hashes the entries of a leaf, which are added in order.
type LeafHash struct {
	h   hash.Hash
	buf []byte
}

// NewLeafHash begins a leaf.
func NewLeafHash() *LeafHash {
	l := &LeafHash{h: sha256.New()}
	l.Reset()
	return l
}

// Reset begins another leaf.
func (l *LeafHash) Reset() {
	l.h.Reset()
	l.buf = append(l.buf[:0], leafMark)
}

// Add adds the next entry.
func (l *LeafHash) Add(e *Entry) {
	l.buf = append(l.buf, byte(e.Key.Kind))
	l.buf = append(l.buf, e.Key.Bytes()...)
	l.buf = binary.BigEndian.AppendUint32(l.buf, e.End)
	l.buf = append(l.buf, e.Meta[:]...)
}

// Sum gives the leaf's hash.
func (l *LeafHash) Sum() (f Fingerprint) {
	l.h.Write(l.buf)
	l.h.Sum(f[:0])
	return f
}

// BranchHash gives the hash of two subtrees.
func BranchHash(zero, one Fingerprint) Fingerprint {
	var b [1 + 2*sha256.Size]byte
	b[0] = branchMark
	copy(b[1:], zero[:])
	copy(b[1+len(zero):], one[:])
	return sha256.Sum256(b[:])
}

// A KeyBits is a kind and key as the tree sees it: a string of bits, filled with
// zeros.
type KeyBits [1 + 20]byte

// BitsOf gives a key's bits.
func BitsOf(k *ban.Key) (b KeyBits) {
	b[0] = byte(k.Kind)
	copy(b[1:], k.B[:])
	return b
}

// Bit gives one of the bits, from 0 for the first.
func (b *KeyBits) Bit(i int) int { return int(b[i/8]>>(7-i%8)) & 1 }

// Parting gives the first bit in which b and c differ, or most if they agree in
// the first most bits.
func (b *KeyBits) Parting(c *KeyBits, most int) int {
	for i := 0; 8*i < most; i++ {
		if x := b[i] ^ c[i]; x != 0 {
			return min(most, 8*i+bits.LeadingZeros8(x))
		}
	}
	return most
}

// FingerprintOf gives the fingerprint of sorted entries.
func FingerprintOf(es []Entry) Fingerprint {
	if len(es) <= LeafEntries {
		leaf := NewLeafHash()
		for i := range es {
			leaf.Add(&es[i])
		}
		return leaf.Sum()
	}
	first, last := BitsOf(&es[0].Key), BitsOf(&es[len(es)-1].Key)
	at := first.Parting(&last, 8*len(first))
	lo, hi := 0, len(es)
	for lo < hi {
		middle := (lo + hi) / 2
		if b := BitsOf(&es[middle].Key); b.Bit(at) == 0 {
			lo = middle + 1
		} else {
			hi = middle
		}
	}
	return BranchHash(FingerprintOf(es[:lo]), FingerprintOf(es[lo:]))
}

// HashOf gives the hash of an encoded body.
func HashOf(body []byte) (h Hash) {
	sum := sha256.Sum256(body)
	copy(h[:], sum[:])
	return h
}
