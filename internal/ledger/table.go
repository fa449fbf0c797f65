package ledger

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// bounds limit the claims that followed operators can make a node hold. A claim
// costs about 60 bytes. Who exceeds one is quarantined, by name; neither a
// running node nor a start fails for it.
type bounds struct {
	topics  int
	records int // below 2^23: an index counts on it
	votes   int // below 2^24: a vote's link counts on it
	feeds   int // numbers of sixteen bits, those of our own sources included
	nodes   int // feeds of one operator, over all topics
}

var defaultBounds = bounds{topics: 1000, records: 8_000_000, votes: 16_000_000, feeds: 60_000, nodes: 2_000}

// record is the entry of one target in one topic: 36 bytes without
// pointers.
type record struct {
	votes  uint32 // place of the first vote, plus one
	until  uint32 // end of the verdict; 0 has none
	since  uint32 // when the verdict's action began
	told   uint32 // the end that enforcers were told; 0: they were told nothing
	wake   uint32 // minute at which the wheel looks at it; 0: not scheduled
	key    [2]uint32
	topic  uint16
	kind   ban.Kind // KindNone: free
	action policy.Action
	why    policy.Reason
	dirty  bool // in the list of changes that enforcers have to take
}

// table holds records and votes in two arenas, found by target.
type table struct {
	bounds    bounds
	topics    map[ban.Topic]int
	byTopic   []*topicIndex
	all       arena[record]
	free      []uint32
	votes     arena[vote]
	freeVotes []uint32
	live      int // votes
	others    []ban.Target
	freeOther []uint32
}

// topicIndex finds a topic's records.
type topicIndex struct {
	name  ban.Topic
	keyed index
	other map[ban.Target]uint32
	// wide counts the prefixes of each length, so that every prefix around an address
	// is found by a few look-ups.
	wide4 [33]int
	wide6 [129]int
	// under lists the single IPv6 addresses inside each /64.
	under map[uint64][]uint32
}

func (t *table) init(b bounds) { t.bounds, t.topics = b, map[ban.Topic]int{} }

// topic gives the topic's number, or -1 when there are too many.
func (t *table) topic(name ban.Topic) int {
	if i, ok := t.topics[name]; ok {
		return i
	}
	if len(t.byTopic) >= t.bounds.topics {
		return -1
	}
	t.byTopic = append(t.byTopic, &topicIndex{
		name:  name,
		keyed: newIndex(&t.all),
		other: map[ban.Target]uint32{},
		under: map[uint64][]uint32{},
	})
	t.topics[name] = len(t.byTopic) - 1
	return len(t.byTopic) - 1
}

func (t *table) topicName(r uint32) ban.Topic { return t.byTopic[t.all.at(r).topic].name }

// keyOf gives the integer key of the kinds that have one.
func keyOf(target ban.Target) (key [2]uint32, ok bool) {
	p, _ := target.Prefix()
	switch target.Kind() {
	case ban.KindAddr4:
		a := p.Addr().As4()
		return [2]uint32{binary.BigEndian.Uint32(a[:])}, true
	case ban.KindNet6:
		a := p.Addr().As16()
		return [2]uint32{binary.BigEndian.Uint32(a[:4]), binary.BigEndian.Uint32(a[4:8])}, true
	}
	return key, false
}

// key6 gives the /64 of an IPv6 address.
func key6(target ban.Target) uint64 {
	p, _ := target.Prefix()
	a := p.Addr().As16()
	return binary.BigEndian.Uint64(a[:8])
}

// find gives the record of a target.
func (t *table) find(topic int, target ban.Target) (r uint32, ok bool) {
	x := t.byTopic[topic]
	if key, keyed := keyOf(target); keyed {
		return x.keyed.find(target.Kind(), key)
	}
	r, ok = x.other[target]
	return r, ok
}

// put gives the record of a target, new or old.
func (t *table) put(topic int, target ban.Target) (uint32, error) {
	if r, ok := t.find(topic, target); ok {
		return r, nil
	}
	if t.targets() >= t.bounds.records || t.live >= t.bounds.votes {
		return 0, fmt.Errorf("%w: %d targets, %d claims", ErrTooMany, t.targets(), t.live)
	}
	var r uint32
	if n := len(t.free); n > 0 {
		r, t.free = t.free[n-1], t.free[:n-1]
	} else {
		r = t.all.add()
	}
	x, rec := t.byTopic[topic], t.all.at(r)
	*rec = record{topic: uint16(topic), kind: target.Kind()}
	var keyed bool
	if rec.key, keyed = keyOf(target); keyed {
		x.keyed.put(r)
		return r, nil
	}
	if n := len(t.freeOther); n > 0 {
		rec.key[0], t.freeOther = t.freeOther[n-1], t.freeOther[:n-1]
		t.others[rec.key[0]] = target
	} else {
		rec.key[0] = uint32(len(t.others))
		t.others = append(t.others, target)
	}
	x.other[target] = r
	switch p, _ := target.Prefix(); target.Kind() {
	case ban.KindCIDR4:
		x.wide4[p.Bits()]++
	case ban.KindCIDR6:
		x.wide6[p.Bits()]++
	case ban.KindAddr6:
		x.under[key6(target)] = append(x.under[key6(target)], r)
	}
	return r, nil
}

// targets counts the records in use.
func (t *table) targets() int { return int(t.all.len()) - len(t.free) }

// drop frees a record without votes.
func (t *table) drop(r uint32) {
	target := t.target(r)
	rec := t.all.at(r)
	x := t.byTopic[rec.topic]
	switch rec.kind {
	case ban.KindAddr4, ban.KindNet6:
		x.keyed.drop(r)
	default:
		delete(x.other, target)
		t.others[rec.key[0]] = ban.Target{}
		t.freeOther = append(t.freeOther, rec.key[0])
		switch p, _ := target.Prefix(); rec.kind {
		case ban.KindCIDR4:
			x.wide4[p.Bits()]--
		case ban.KindCIDR6:
			x.wide6[p.Bits()]--
		case ban.KindAddr6:
			k := key6(target)
			list := x.under[k]
			for i := range list {
				if list[i] == r {
					list[i] = list[len(list)-1]
					x.under[k] = list[:len(list)-1]
					break
				}
			}
			if len(x.under[k]) == 0 {
				delete(x.under, k)
			}
		}
	}
	*rec = record{}
	t.free = append(t.free, r)
}

// target gives the target of a record in use.
func (t *table) target(r uint32) ban.Target {
	rec := t.all.at(r)
	switch rec.kind {
	case ban.KindNone:
		return ban.Target{}
	case ban.KindAddr4:
		var a [4]byte
		binary.BigEndian.PutUint32(a[:], rec.key[0])
		target, _ := ban.TargetOfAddr(netip.AddrFrom4(a))
		return target
	case ban.KindNet6:
		var a [16]byte
		binary.BigEndian.PutUint32(a[:4], rec.key[0])
		binary.BigEndian.PutUint32(a[4:8], rec.key[1])
		target, _ := ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16(a), 64))
		return target
	}
	return t.others[rec.key[0]]
}

// records gives a topic's records. The one at hand may be dropped meanwhile;
// otherwise the topic must not be changed.
func (t *table) records(topic int) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		x := t.byTopic[topic]
		for r := range x.keyed.records() {
			if !yield(r) {
				return
			}
		}
		for _, r := range x.other {
			if !yield(r) {
				return
			}
		}
	}
}
