package client

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sort"
	"sync/atomic"
)

// update is one ban to set or lift; for a lift only the label's topic counts.
type update struct {
	key   key
	until uint32 // Unix seconds
	label label
}

// errLabels says that the agent names more kinds of bans than can be told apart.
var errLabels = errors.New("too many topics and classes")

// number gives a label's index, made where it has none.
func (b *bans) number(l label) (uint16, error) {
	list := *b.labels.Load()
	for i, x := range list {
		if x == l {
			return uint16(i), nil
		}
	}
	if len(list) == maxLabels {
		return 0, errLabels
	}
	grown := append(list[:len(list):len(list)], l)
	b.labels.Store(&grown)
	return uint16(len(list)), nil
}

// shard gives where a key's records are, in a table that is made if need be.
func (b *bans) shard(k key, h uint64) *atomic.Pointer[[]byte] {
	t := b.table(k)
	shards := t.shards.Load()
	if shards == nil {
		shards = new([shardCount]atomic.Pointer[[]byte])
		t.shards.Store(shards)
	}
	return &shards[h>>(64-shardBits)]
}

// mark notes that a prefix length has a ban.
func (b *bans) mark(k key) {
	switch k.n {
	case 4:
		b.lengths4.Or(1 << k.bits)
	case 16:
		b.lengths6[k.bits/64].Or(1 << (k.bits % 64))
	}
}

// load adds a ban of a snapshot, while nobody reads b yet: [bans.finish] ends it.
func (b *bans) load(u update) error {
	n, err := b.number(u.label)
	if err != nil {
		return err
	}
	at := b.shard(u.key, b.hash(u.key.bytes(), int(u.key.bits)))
	p := at.Load()
	if p == nil {
		p = new([]byte)
		at.Store(p)
	}
	*p = append(*p, u.key.bytes()...)
	*p = binary.BigEndian.AppendUint32(*p, u.until)
	*p = binary.BigEndian.AppendUint16(*p, n)
	return nil
}

// finish sorts the loaded records, into no more memory than they take.
func (b *bans) finish() {
	count := 0
	labels := *b.labels.Load()
	b.each(func(t *table, k key) {
		shards := t.shards.Load()
		if shards == nil {
			return
		}
		b.mark(k)
		for i := range shards {
			p := shards[i].Load()
			if p == nil {
				continue
			}
			r := &run{b: *p, key: k.n, size: k.n + tailSize}
			sort.Sort(r)
			sorted := bytes.Clone(r.unique(labels))
			count += len(sorted) / r.size
			shards[i].Store(&sorted)
		}
	})
	b.count.Store(int64(count))
	b.rebuildFilter(count)
}

// run sorts records: by key, and of one key by later end first.
type run struct {
	b         []byte
	key, size int
	swap      [32]byte
}

func (r *run) Len() int { return len(r.b) / r.size }

func (r *run) at(i int) []byte { return r.b[i*r.size : (i+1)*r.size] }

func (r *run) Less(i, j int) bool {
	a, b := r.at(i), r.at(j)
	if c := bytes.Compare(a[:r.key], b[:r.key]); c != 0 {
		return c < 0
	}
	return bytes.Compare(a[r.key:r.key+4], b[r.key:r.key+4]) > 0
}

func (r *run) Swap(i, j int) {
	copy(r.swap[:], r.at(i))
	copy(r.at(i), r.at(j))
	copy(r.at(j), r.swap[:r.size])
}

// unique leaves out the second record of a key in a topic.
func (r *run) unique(labels []label) []byte {
	kept := r.b[:0]
	for i := range r.Len() {
		x := r.at(i)
		topic, twice := labels[binary.BigEndian.Uint16(x[r.key+4:])].topic, false
		for back := len(kept) - r.size; back >= 0 && bytes.Equal(kept[back:back+r.key], x[:r.key]); back -= r.size {
			twice = twice || labels[binary.BigEndian.Uint16(kept[back+r.key+4:])].topic == topic
		}
		if !twice {
			kept = append(kept, x...)
		}
	}
	return kept
}

// apply lifts bans and sets others; a ban of the same target and topic replaces
// the old one. It takes everything at once, so that a shard is copied once.
func (b *bans) apply(set, lift []update) error {
	copies := map[*atomic.Pointer[[]byte]][]byte{}
	grown := 0
	for _, u := range lift {
		g, err := b.put(copies, u, false)
		if err != nil {
			return err
		}
		grown += g
	}
	known := b.filter.Load()
	for _, u := range set {
		g, err := b.put(copies, u, true)
		if err != nil {
			return err
		}
		b.mark(u.key)
		known.add(b.hash(u.key.bytes(), int(u.key.bits)))
		grown += g
	}
	for at, shard := range copies {
		at.Store(&shard)
	}
	b.count.Add(int64(grown))
	if known.full() {
		b.rebuildFilter(2 * b.len())
	}
	return nil
}

// put changes one topic's record of a key in the copy of its shard and gives by
// how much the number of records grew.
func (b *bans) put(copies map[*atomic.Pointer[[]byte]][]byte, u update, set bool) (grown int, err error) {
	k := u.key.bytes()
	at := b.shard(u.key, b.hash(k, int(u.key.bits)))
	old, copied := copies[at]
	if p := at.Load(); !copied && p != nil {
		old = *p
	}
	first, last := span(old, k)
	next := make([]byte, 0, len(old)+len(k)+tailSize)
	next = append(next, old[:first]...)
	labels, size := *b.labels.Load(), len(k)+tailSize
	for r := old[first:last]; len(r) > 0; r = r[size:] {
		if labels[binary.BigEndian.Uint16(r[len(k)+4:])].topic == u.label.topic {
			grown--
			continue
		}
		next = append(next, r[:size]...)
	}
	if set {
		n, err := b.number(u.label)
		if err != nil {
			return 0, err
		}
		next = append(next, k...)
		next = binary.BigEndian.AppendUint32(next, u.until)
		next = binary.BigEndian.AppendUint16(next, n)
		grown++
	}
	copies[at] = append(next, old[last:]...)
	return grown, nil
}

// rebuildFilter makes a filter of all that is known now, with room for keys.
func (b *bans) rebuildFilter(keys int) {
	f := newFilter(keys)
	b.records(func(k key, _ []byte) { f.add(b.hash(k.bytes(), int(k.bits))) })
	b.filter.Store(f)
}
