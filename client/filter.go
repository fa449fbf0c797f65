package client

import (
	"math/bits"
	"sync/atomic"
)

const (
	// filterBits is how many bits of the filter a key gets when it is built: with
	// four of them set, about one key in fifteen is taken for a known one.
	// Below leastBits it is built anew.
	filterBits, leastBits = 6, 5
	// minFilter is the smallest filter in words: 8 kB, room for 13,107 keys.
	minFilter = 1 << 10
)

// filter answers "not banned" for nearly every target that is not, with one
// memory access instead of the many of a search. It is a Bloom filter whose bits
// for a key lie in one word. It never forgets a key; the remains of a lift cost a
// later check a search.
type filter struct {
	words []atomic.Uint64
	keys  int // added; only the writer looks
}

// newFilter gives a filter with room for a number of keys.
func newFilter(keys int) *filter {
	return &filter{words: make([]atomic.Uint64, max(minFilter, (keys*filterBits+63)/64))}
}

// full says that the filter should be built anew, larger.
func (f *filter) full() bool { return f.keys*leastBits > len(f.words)*64 }

// has is false when the key of a hash was certainly never added.
func (f *filter) has(hash uint64) bool {
	at, pattern := f.place(hash)
	return f.words[at].Load()&pattern == pattern
}

func (f *filter) add(hash uint64) {
	at, pattern := f.place(hash)
	if f.words[at].Or(pattern)&pattern != pattern {
		f.keys++
	}
}

// place gives the word and the bits of a key. The shards are found by the hash's
// highest bits, and the words by others.
func (f *filter) place(hash uint64) (at, pattern uint64) {
	pattern = 1<<(hash&63) | 1<<(hash>>6&63) | 1<<(hash>>12&63) | 1<<(hash>>18&63)
	at, _ = bits.Mul64(hash*0x9e3779b97f4a7c15, uint64(len(f.words)))
	return at, pattern
}
