package client

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"time"
)

// bans are the bans of one snapshot and the changes since. Any number of
// goroutines read while one writes. Two million take 40 MB: a ban is its target's
// bytes and six more.
type bans struct {
	seed    uint64
	filter  atomic.Pointer[filter]
	v4      [33]table  // by prefix length
	v6      [129]table // by prefix length
	wallets table
	// lengths4 and lengths6 have a bit for each prefix length that ever had a
	// ban, so that a check looks only where something may be.
	lengths4 atomic.Uint64 // bit n for /n, n < 33
	lengths6 [3]atomic.Uint64
	count    atomic.Int64
	labels   atomic.Pointer[[]label] // that records name by their index
}

// label is the common part of many records: a million of them share a few.
type label struct{ topic, class, origin string }

const (
	// shardBits gives 250 records a shard at a million, which one change copies.
	shardBits  = 12
	shardCount = 1 << shardBits
	// tailSize is the rest of a record behind its key: the end in Unix seconds in
	// four bytes, and the label's index in two.
	tailSize = 4 + 2
	// maxLabels is how many labels two bytes name.
	maxLabels = 1 << 16
)

// table holds records of one key length in shards, each a run of records sorted
// by key. Shards are replaced whole, so a reader needs no lock. The zero table is
// empty.
type table struct {
	shards atomic.Pointer[[shardCount]atomic.Pointer[[]byte]]
}

func newBans() *bans {
	b := &bans{seed: rand.Uint64()}
	b.filter.Store(newFilter(0))
	b.labels.Store(&[]label{})
	return b
}

func (b *bans) len() int { return int(b.count.Load()) }

// mix is the finish of MurmurHash3: each bit of the argument moves all of the
// result.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// hash gives a number of a key and its prefix length, which nobody who chooses
// targets can foresee.
func (b *bans) hash(key []byte, length int) uint64 {
	h := b.seed ^ uint64(length)<<56
	switch len(key) {
	case 4:
		return mix(h ^ uint64(binary.LittleEndian.Uint32(key)))
	case 16:
		return mix(mix(h^binary.LittleEndian.Uint64(key)) ^ binary.LittleEndian.Uint64(key[8:]))
	}
	h = mix(mix(h^binary.LittleEndian.Uint64(key)) ^ binary.LittleEndian.Uint64(key[8:]))
	return mix(h ^ uint64(binary.LittleEndian.Uint32(key[16:])))
}

// find gives the records of a key.
func (t *table) find(h uint64, key []byte) []byte {
	shards := t.shards.Load()
	if shards == nil {
		return nil
	}
	p := shards[h>>(64-shardBits)].Load()
	if p == nil {
		return nil
	}
	first, last := span(*p, key)
	return (*p)[first:last]
}

// span gives where the records of a key are in a shard; both are the place for
// them where there are none.
func span(shard, key []byte) (first, last int) {
	size := len(key) + tailSize
	low, high := 0, len(shard)/size
	for low < high {
		middle := int(uint(low+high) / 2)
		if bytes.Compare(shard[middle*size:middle*size+len(key)], key) < 0 {
			low = middle + 1
		} else {
			high = middle
		}
	}
	first = low * size
	for last = first; last < len(shard) && bytes.Equal(shard[last:last+len(key)], key); last += size {
	}
	return first, last
}

// inForce says whether records have a ban in force and appends those to into, if
// that is not nil.
func (b *bans) inForce(records []byte, k key, now int64, into *[]Ban) (found bool) {
	size := k.n + tailSize
	for ; len(records) >= size; records = records[size:] {
		until := int64(binary.BigEndian.Uint32(records[k.n:]))
		if until <= now {
			continue
		}
		found = true
		if into == nil {
			return true
		}
		*into = append(*into, b.ban(k, records[k.n:]))
	}
	return found
}

// ban makes a ban of a key and the tail of its record.
func (b *bans) ban(k key, tail []byte) Ban {
	l := (*b.labels.Load())[binary.BigEndian.Uint16(tail[4:])]
	return Ban{Target: k.String(), Topic: l.topic, Class: l.class, Origin: l.origin, Until: time.Unix(int64(binary.BigEndian.Uint32(tail)), 0).UTC()}
}

// wallet says whether a wallet is banned.
func (b *bans) wallet(w [20]byte, now int64, into *[]Ban) bool {
	h := b.hash(w[:], 0)
	if !b.filter.Load().has(h) {
		return false
	}
	return b.inForce(b.wallets.find(h, w[:]), key{b: w, n: 20}, now, into)
}

// ip says whether an address is banned.
func (b *bans) ip(a netip.Addr, now int64, into *[]Ban) bool {
	switch {
	case !a.IsValid():
		return false
	case a.Is4() || a.Is4In6():
		return b.ip4(a.As4(), now, into)
	}
	return b.ip6(a.As16(), now, into)
}

func (b *bans) ip4(a [4]byte, now int64, into *[]Ban) (found bool) {
	address, known := binary.BigEndian.Uint32(a[:]), b.filter.Load()
	lengths := b.lengths4.Load()
	for n := 32; lengths != 0; n-- { // the longest first
		if lengths&(1<<n) == 0 {
			continue
		}
		lengths &^= 1 << n
		var k key
		k.n, k.bits = 4, uint8(n)
		binary.BigEndian.PutUint32(k.b[:], uint32(uint64(address)&^(1<<(32-n)-1)))
		h := b.hash(k.b[:4], n)
		if known.has(h) && b.inForce(b.v4[n].find(h, k.b[:4]), k, now, into) {
			found = true
			if into == nil {
				return true
			}
		}
	}
	return found
}

func (b *bans) ip6(a [16]byte, now int64, into *[]Ban) (found bool) {
	known := b.filter.Load()
	for word := 2; word >= 0; word-- {
		lengths := b.lengths6[word].Load()
		for bit := 63; lengths != 0; bit-- {
			if lengths&(1<<bit) == 0 {
				continue
			}
			lengths &^= 1 << bit
			n := word*64 + bit
			k := key6(a, n)
			h := b.hash(k.b[:16], n)
			if known.has(h) && b.inForce(b.v6[n].find(h, k.b[:16]), k, now, into) {
				found = true
				if into == nil {
					return true
				}
			}
		}
	}
	return found
}

// table gives the table of a key.
func (b *bans) table(k key) *table {
	switch k.n {
	case 4:
		return &b.v4[k.bits]
	case 16:
		return &b.v6[k.bits]
	}
	return &b.wallets
}

// each calls f with every table and its keys' size and prefix length.
func (b *bans) each(f func(t *table, k key)) {
	for n := range b.v4 {
		f(&b.v4[n], key{n: 4, bits: uint8(n)})
	}
	for n := range b.v6 {
		f(&b.v6[n], key{n: 16, bits: uint8(n)})
	}
	f(&b.wallets, key{n: 20})
}

// records calls f with every record.
func (b *bans) records(f func(k key, tail []byte)) {
	b.each(func(t *table, k key) {
		shards := t.shards.Load()
		if shards == nil {
			return
		}
		for i := range shards {
			p := shards[i].Load()
			if p == nil {
				continue
			}
			for r := *p; len(r) > 0; r = r[k.n+tailSize:] {
				copy(k.b[:], r[:k.n])
				f(k, r[k.n:k.n+tailSize])
			}
		}
	})
}

// all gives every ban, in no order.
func (b *bans) all() (list []Ban) {
	list = make([]Ban, 0, b.len())
	b.records(func(k key, tail []byte) { list = append(list, b.ban(k, tail)) })
	return list
}
