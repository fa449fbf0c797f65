package client

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

const (
	// filterBits is how many bits of the filter a key gets at least: with four
	// of them set, about one key in a hundred is taken for a known one.
	filterBits = 16
	// minFilter is the smallest filter in words: 8 kB, room for 4,096 keys.
	minFilter = 1 << 10
)

// filter answers "not banned" for nearly every target that is not, with one
// memory access instead of the five of a look into a map of a million. It is a
// Bloom filter whose bits for a key lie in one word. It never forgets a key;
// the remains of a lift cost a later check a look into the map.
type filter struct {
	seed  uint64
	shift uint
	words []atomic.Uint64
	keys  int // added; only the writer looks
}

// newFilter gives a filter with room for a number of keys.
func newFilter(keys int) *filter {
	words := minFilter
	for words*64 < keys*filterBits {
		words *= 2
	}
	return &filter{seed: rand.Uint64(), shift: uint(64 - bits.TrailingZeros(uint(words))), words: make([]atomic.Uint64, words)}
}

// full says that the filter should be built anew, larger.
func (f *filter) full() bool { return f.keys*filterBits > len(f.words)*64 }

// has is false when the key was certainly never added.
func (f *filter) has(key uint64) bool {
	at, pattern := f.place(key)
	return f.words[at].Load()&pattern == pattern
}

func (f *filter) add(key uint64) {
	at, pattern := f.place(key)
	if f.words[at].Or(pattern)&pattern != pattern {
		f.keys++
	}
}

// place gives the word and the bits of a key. The mixing is that of
// MurmurHash3's finish; a key that somebody chooses to be taken for a known one
// costs a look into the map and gains nothing.
func (f *filter) place(key uint64) (at uint64, pattern uint64) {
	h := key ^ f.seed
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	h ^= h >> 33
	pattern = 1<<(h&63) | 1<<(h>>6&63) | 1<<(h>>12&63) | 1<<(h>>18&63)
	return h >> f.shift, pattern
}
