package client

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"strings"
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

// key4 is an IPv4 prefix: the address and then the length.
type key4 uint64

// key6 is an IPv6 prefix.
type key6 struct {
	high, low uint64
	bits      uint8
}

// record is what one topic says of a target. The records of a target form a
// list that is never changed once it is in a table.
type record struct {
	until                int64 // seconds since the Unix epoch
	topic, class, origin string
	next                 *record
}

const (
	shardBits = 12
	// shardCount gives 250 entries a shard at a million: what one change
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
	return Ban{Target: target, Topic: r.topic, Class: r.class, Origin: r.origin, Until: time.Unix(r.until, 0).UTC()}
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

func prefix4(address uint32, length int) key4 {
	masked := uint32(uint64(address) &^ (1<<(32-length) - 1))
	return key4(masked)<<8 | key4(length)
}

func (k key4) String() string {
	var raw [4]byte
	binary.BigEndian.PutUint32(raw[:], uint32(k>>8))
	return prefixText(netip.PrefixFrom(netip.AddrFrom4(raw), int(k&0xff)))
}

func prefix6(high, low uint64, length int) key6 {
	// A shift by 64 gives zero, so both ends of the range need no case.
	switch {
	case length <= 64:
		high, low = high&^(1<<(64-length)-1), 0
	default:
		low &^= 1<<(128-length) - 1
	}
	return key6{high, low, uint8(length)}
}

// filterKey folds the prefix into what the filter takes.
func (k key6) filterKey() uint64 {
	return k.high*0x9e3779b97f4a7c15 ^ k.low ^ uint64(k.bits)<<32
}

// walletKey gives what the filter takes of a wallet, which is the end of a
// hash anyway.
func walletKey(w [20]byte) uint64 { return binary.LittleEndian.Uint64(w[12:]) }

func (k key6) String() string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], k.high)
	binary.BigEndian.PutUint64(raw[8:], k.low)
	return prefixText(netip.PrefixFrom(netip.AddrFrom16(raw), int(k.bits)))
}

func prefixText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// errTarget says that a text is no address, prefix or wallet.
var errTarget = errors.New("not an address, prefix or wallet")

// target is a parsed target; prefix is valid for an address or a prefix.
type target struct {
	prefix netip.Prefix
	wallet [20]byte
}

func parseTarget(s string) (t target, err error) {
	if strings.HasPrefix(s, "0x") && len(s) == 42 {
		if _, err := hex.Decode(t.wallet[:], []byte(s[2:])); err != nil {
			return target{}, errTarget
		}
		return t, nil
	}
	if strings.IndexByte(s, '/') < 0 {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			return target{}, errTarget
		}
		a = a.Unmap()
		return target{prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil:
		return target{}, errTarget
	case p.Addr().Is4In6() && p.Bits() < 96:
		return target{}, errTarget
	case p.Addr().Is4In6():
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return target{prefix: p.Masked()}, nil
}

// apply sets bans and lifts others; a ban of the same target and topic replaces
// the old one. It takes everything at once, so that a shard is copied once.
// own says that nobody else reads b yet: its shards are changed in place.
func (b *bans) apply(set []update, lift []update, own bool) {
	w := writer{b: b, filter: b.filter.Load(), own: own}
	for _, u := range lift {
		w.put(u.target, u.record.topic, nil)
	}
	for _, u := range set {
		w.put(u.target, u.record.topic, &u.record)
	}
	w.publish()
	if w.filter.full() {
		b.rebuildFilter()
	}
}

// rebuildFilter makes a filter of what is known now, with room to double.
func (b *bans) rebuildFilter() {
	f := newFilter(2 * b.len())
	each(&b.v4, func(k key4) { f.add(uint64(k)) })
	each(&b.v6, func(k key6) { f.add(k.filterKey()) })
	each(&b.wallets, func(k [20]byte) { f.add(walletKey(k)) })
	b.filter.Store(f)
}

// each calls f with every key of a table.
func each[K comparable](t *table[K], f func(K)) {
	for i := range t.shards {
		m := t.shards[i].Load()
		if m == nil {
			continue
		}
		for k := range *m {
			f(k)
		}
	}
}

// update is one ban to set or lift; for a lift only the topic counts.
type update struct {
	target target
	record record
}

// writer gathers the shards that change and replaces each once.
type writer struct {
	b       *bans
	filter  *filter
	own     bool
	v4      shardCopies[key4]
	v6      shardCopies[key6]
	wallets shardCopies[[20]byte]
}

// shardCopies are the new versions of shards.
type shardCopies[K comparable] map[*atomic.Pointer[map[K]*record]]map[K]*record

func (w *writer) put(t target, topic string, r *record) {
	p := t.prefix
	switch {
	case !p.IsValid():
		if r != nil {
			w.filter.add(walletKey(t.wallet))
		}
		w.b.count.Add(put(&w.b.wallets, &w.wallets, w.b.seed, t.wallet, topic, r, w.own))
	case p.Addr().Is4():
		raw := p.Addr().As4()
		k := prefix4(binary.BigEndian.Uint32(raw[:]), p.Bits())
		if r != nil {
			w.b.lengths4.Or(1 << p.Bits())
			w.filter.add(uint64(k))
		}
		w.b.count.Add(put(&w.b.v4, &w.v4, w.b.seed, k, topic, r, w.own))
	default:
		raw := p.Addr().As16()
		k := prefix6(binary.BigEndian.Uint64(raw[:8]), binary.BigEndian.Uint64(raw[8:]), p.Bits())
		if r != nil {
			w.b.lengths6[p.Bits()/64].Or(1 << (p.Bits() % 64))
			w.filter.add(k.filterKey())
		}
		w.b.count.Add(put(&w.b.v6, &w.v6, w.b.seed, k, topic, r, w.own))
	}
}

// put changes one topic's record of a key in a copy of its shard and gives by
// how much the number of records grew.
func put[K comparable](t *table[K], copies *shardCopies[K], seed maphash.Seed, k K, topic string, r *record, own bool) int64 {
	at := t.shard(seed, k)
	if *copies == nil {
		*copies = make(shardCopies[K])
	}
	m, ok := (*copies)[at]
	if !ok {
		old := at.Load()
		switch {
		case old == nil:
			m = make(map[K]*record)
		case own:
			m = *old
		default:
			m = make(map[K]*record, len(*old)+1)
			for k, v := range *old {
				m[k] = v
			}
		}
		(*copies)[at] = m
	}
	list, removed := without(m[k], topic)
	grown := -removed
	if r != nil {
		head := *r
		head.next = list
		list = &head
		grown++
	}
	if list == nil {
		delete(m, k)
	} else {
		m[k] = list
	}
	return grown
}

// without gives a list without a topic's record; the rest is copied, because
// readers may be walking it.
func without(r *record, topic string) (list *record, removed int64) {
	if r == nil {
		return nil, 0
	}
	rest, removed := without(r.next, topic)
	switch {
	case r.topic == topic:
		return rest, removed + 1
	case removed == 0:
		return r, 0
	}
	kept := *r
	kept.next = rest
	return &kept, removed
}

// publish makes the copies what readers see.
func (w *writer) publish() {
	for at, m := range w.v4 {
		at.Store(&m)
	}
	for at, m := range w.v6 {
		at.Store(&m)
	}
	for at, m := range w.wallets {
		at.Store(&m)
	}
}
