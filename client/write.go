package client

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"
)

// apply sets bans and lifts others; a ban of the same target and topic replaces
// the old one. It takes everything at once, so that a shard is copied once.
// own says that nobody else reads b yet: its shards are changed in place.
func (b *bans) apply(set []update, lift []update, own bool) {
	w := writer{b: b, filter: b.filter.Load(), own: own}
	for _, u := range lift {
		w.put(u.target, u.record.label.topic, nil)
	}
	for _, u := range set {
		w.put(u.target, u.record.label.topic, &u.record)
	}
	w.publish()
	if w.filter.full() {
		b.rebuildFilter()
	}
}

// rebuildFilter makes a filter of all that is known now, with room to double.
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
	case r.label.topic == topic:
		return rest, removed + 1
	case removed == 0:
		return r, 0
	}
	kept := *r
	kept.next = rest
	return &kept, removed
}

// publish shows the copies to readers.
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
