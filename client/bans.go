package client

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync/atomic"
	"time"
)

// bans are the bans of one snapshot and the changes since. Any number of
// goroutines read while one writes.
type bans struct {
	seed    maphash.Seed
	filter  atomic.Pointer[filter]
	v4      table[key4]
	v6      table[key6]
	wallets table[[20]byte]
	// lengths4 and lengths6 have a bit for each prefix length that ever had a
	// ban, so that a check looks only where something may be.
	lengths4 atomic.Uint64 // bit n for /n, n < 33
	lengths6 [3]atomic.Uint64
	count    atomic.Int64
}

func newBans() *bans {
	b := &bans{seed: maphash.MakeSeed()}
	b.filter.Store(newFilter(0))
	return b
}

func (b *bans) len() int { return int(b.count.Load()) }

// record is one topic's word about a target. The records of a target form a
// list that is never changed once it is in a table.
type record struct {
	until int64 // seconds since the Unix epoch
	label *label
	next  *record
}

// label is the common part of many records: a million of them share a few.
type label struct{ topic, class, origin string }

const (
	shardBits = 12
	// shardCount gives 250 entries a shard at a million, which one change
	// copies.
	shardCount = 1 << shardBits
)

// table is a hash map in shards that are replaced whole, so that a reader
// needs no lock. The zero table is empty.
type table[K comparable] struct {
	shards [shardCount]atomic.Pointer[map[K]*record]
}

func (t *table[K]) shard(seed maphash.Seed, k K) *atomic.Pointer[map[K]*record] {
	return &t.shards[maphash.Comparable(seed, k)>>(64-shardBits)]
}

func (t *table[K]) get(seed maphash.Seed, k K) *record {
	m := t.shard(seed, k).Load()
	if m == nil {
		return nil
	}
	return (*m)[k]
}

// inForce says whether a list has a ban in force and appends those to into,
// if that is not nil.
func (r *record) inForce(now int64, target func() string, into *[]Ban) (found bool) {
	for ; r != nil; r = r.next {
		if r.until <= now {
			continue
		}
		found = true
		if into == nil {
			return true
		}
		*into = append(*into, r.ban(target()))
	}
	return found
}

func (r *record) ban(target string) Ban {
	return Ban{Target: target, Topic: r.label.topic, Class: r.label.class, Origin: r.label.origin, Until: time.Unix(r.until, 0).UTC()}
}

// wallet says whether a wallet is banned.
func (b *bans) wallet(w [20]byte, now int64, into *[]Ban) bool {
	if !b.filter.Load().has(walletKey(w)) {
		return false
	}
	r := b.wallets.get(b.seed, w)
	return r != nil && r.inForce(now, func() string { return walletText(w) }, into)
}

// ip says whether an address is banned.
func (b *bans) ip(a netip.Addr, now int64, into *[]Ban) bool {
	switch {
	case !a.IsValid():
		return false
	case a.Is4() || a.Is4In6():
		return b.ip4(a, now, into)
	}
	return b.ip6(a, now, into)
}

func (b *bans) ip4(a netip.Addr, now int64, into *[]Ban) (found bool) {
	raw := a.As4()
	address := binary.BigEndian.Uint32(raw[:])
	lengths, known := b.lengths4.Load(), b.filter.Load()
	for ; lengths != 0; lengths &^= 1 << (bits.Len64(lengths) - 1) {
		n := bits.Len64(lengths) - 1 // the longest first
		k := prefix4(address, n)
		if !known.has(uint64(k)) {
			continue
		}
		r := b.v4.get(b.seed, k)
		if r != nil && r.inForce(now, k.String, into) {
			found = true
			if into == nil {
				return true
			}
		}
	}
	return found
}

func (b *bans) ip6(a netip.Addr, now int64, into *[]Ban) (found bool) {
	raw := a.As16()
	high, low := binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:])
	known := b.filter.Load()
	for word := 2; word >= 0; word-- {
		lengths := b.lengths6[word].Load()
		for ; lengths != 0; lengths &^= 1 << (bits.Len64(lengths) - 1) {
			k := prefix6(high, low, word*64+bits.Len64(lengths)-1)
			if !known.has(k.filterKey()) {
				continue
			}
			r := b.v6.get(b.seed, k)
			if r != nil && r.inForce(now, k.String, into) {
				found = true
				if into == nil {
					return true
				}
			}
		}
	}
	return found
}
