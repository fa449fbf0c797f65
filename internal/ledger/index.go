package ledger

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"

	"banmesh/internal/ban"
)

// An index finds the records of a topic whose key is an integer: single IPv4
// addresses and IPv6 /64s, nearly all there is. It is a hash table with linear
// probing that holds no keys: a slot is a record's number and nine bits of its
// hash, which keep all but one in 500 strangers from being looked at. A record
// costs five to eight bytes so, a third of its cost in a map of keys.
type index struct {
	all   *arena[record]
	seed  maphash.Seed // others choose the keys, so they must not know their places
	slots []uint32     // number plus one in the high 23 bits; 0 is free
	used  int
	nets  int // IPv6 /64s among them
}

// tagBits are the bits of a slot left to the hash: there are fewer than 2^23 records ([bounds]).
const tagBits = 9

func newIndex(all *arena[record]) index {
	return index{all: all, seed: maphash.MakeSeed(), slots: make([]uint32, 16)}
}

// place gives where a key belongs and its tag.
func (x *index) place(kind ban.Kind, key [2]uint32) (at int, tag uint32) {
	h := maphash.Comparable(x.seed, uint64(key[0])<<32|uint64(key[1])^uint64(kind)<<56)
	high, _ := bits.Mul64(h, uint64(len(x.slots)))
	return int(high), uint32(h) & (1<<tagBits - 1)
}

func (x *index) next(at int) int {
	if at++; at == len(x.slots) {
		return 0
	}
	return at
}

// find gives the record of a key.
func (x *index) find(kind ban.Kind, key [2]uint32) (r uint32, ok bool) {
	at, tag := x.place(kind, key)
	for ; x.slots[at] != 0; at = x.next(at) {
		if x.slots[at]&(1<<tagBits-1) != tag {
			continue
		}
		r = x.slots[at]>>tagBits - 1
		if rec := x.all.at(r); rec.key == key && rec.kind == kind {
			return r, true
		}
	}
	return 0, false
}

// put adds a record whose key is not there.
func (x *index) put(r uint32) {
	// Half again as many when four fifths are taken: doubling would leave more
	// free, and longer ways are no faster.
	if 5*(x.used+1) > 4*len(x.slots) {
		old := x.slots
		x.slots = make([]uint32, len(old)+len(old)/2)
		for _, s := range old {
			if s != 0 {
				x.set(s>>tagBits - 1)
			}
		}
	}
	x.used++
	if x.all.at(r).kind == ban.KindNet6 {
		x.nets++
	}
	x.set(r)
}

func (x *index) set(r uint32) {
	rec := x.all.at(r)
	at, tag := x.place(rec.kind, rec.key)
	for x.slots[at] != 0 {
		at = x.next(at)
	}
	x.slots[at] = (r+1)<<tagBits | tag
}

// drop takes a record out. Records behind it move up where their own place
// allows that, so that no way is interrupted.
func (x *index) drop(r uint32) {
	rec := x.all.at(r)
	at, tag := x.place(rec.kind, rec.key)
	for x.slots[at] != (r+1)<<tagBits|tag {
		at = x.next(at)
	}
	x.used--
	if rec.kind == ban.KindNet6 {
		x.nets--
	}
	for free := at; ; {
		if at = x.next(at); x.slots[at] == 0 {
			x.slots[free] = 0
			return
		}
		behind := x.all.at(x.slots[at]>>tagBits - 1)
		home, _ := x.place(behind.kind, behind.key)
		// Is home outside of (free, at], cyclically?
		if free < at && (home <= free || home > at) || free > at && home <= free && home > at {
			x.slots[free] = x.slots[at]
			free = at
		}
	}
}

// records gives all of them. The one at hand may be dropped meanwhile, no other.
func (x *index) records() iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		// From a free slot on backwards: records that a drop moves up were given already.
		from := slices.Index(x.slots, 0)
		for i := range x.slots {
			at := from - i
			if at < 0 {
				at += len(x.slots)
			}
			if s := x.slots[at]; s != 0 && !yield(s>>tagBits-1) {
				return
			}
		}
	}
}
