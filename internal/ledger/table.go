package ledger

import (
	"encoding/binary"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// bounds are the limits of what followed operators can make a node hold. A claim
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

// vote is a claim in a record's list: 16 bytes without pointers, because there
// may be millions of them. Times are Unix seconds. [vote.claim] and
// [vote.setClaim] are all that knows how a claim is packed.
type vote struct {
	link  uint32 // place of the record's next vote, plus one, in the high 24 bits; the class in the low 8
	end   uint32
	since uint32 // when it arrived here; of an own claim, when the offence was
	feed  uint16
	hits  uint8
	flags uint8
}

// The bits of vote.flags.
const (
	basisMask       = 0x03
	flagEstablished = 0x04
	flagGeneration  = 0x08 // which of the feed's resets repeated the claim last
	holdShift       = 6    // the two highest bits say whether it waits
)

func (v *vote) next() uint32 { return v.link >> 8 }

func (v *vote) setNext(place uint32) { v.link = place<<8 | v.link&0xff }

func (v *vote) class() ban.Class { return ban.Class(v.link & 0xff) }

// claim gives the vote as the claim that it is of a target.
func (v *vote) claim(t ban.Target) ban.Claim {
	return ban.Claim{Target: t, End: time.Unix(int64(v.end), 0), Class: v.class(), Hits: v.hits, Established: v.has(flagEstablished), Basis: ban.Basis(v.flags & basisMask)}
}

// setClaim packs a claim, all but its target.
func (v *vote) setClaim(c ban.Claim) {
	v.end, v.hits = seconds(c.End), c.Hits
	v.link = v.link&^0xff | uint32(c.Class)
	v.set(flagEstablished, c.Established)
	v.flags = v.flags&^basisMask | uint8(c.Basis)&basisMask
}

// says reports whether the vote is this claim already.
func (v *vote) says(c ban.Claim) bool {
	packed := *v
	packed.setClaim(c)
	return packed == *v
}

// hold says whether a claim waits, and for what.
type hold uint8

const (
	counted  hold = iota // it does not wait
	queued               // for room in its operator's budget
	guarded              // for a person's approval
	rejected             // for its author to withdraw it
)

func (v *vote) hold() hold { return hold(v.flags >> holdShift) }

func (v *vote) setHold(h hold) { v.flags = v.flags&(1<<holdShift-1) | uint8(h)<<holdShift }

func (v *vote) has(flag uint8) bool { return v.flags&flag != 0 }

func (v *vote) set(flag uint8, on bool) {
	if on {
		v.flags |= flag
	} else {
		v.flags &^= flag
	}
}

func (v *vote) inForce(now time.Time) bool { return int64(v.end) > now.Unix() }

// record is what is known of one target in one topic: 36 bytes without
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
	dirty  bool // in the list of what enforcers have to take
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
	// wide counts the prefixes of each length, so that what covers an address
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

// around gives the records of the prefixes that contain a record's target,
// itself excluded.
func (t *table) around(topic int, target ban.Target, yield func(uint32)) {
	p, ok := target.Prefix()
	if !ok {
		return
	}
	x := t.byTopic[topic]
	counts := x.wide6[:]
	if p.Addr().Is4() {
		counts = x.wide4[:]
	}
	for bits := range p.Bits() {
		if counts[bits] == 0 && !(bits == 64 && x.keyed.nets > 0 && p.Addr().Is6()) {
			continue
		}
		cover, err := ban.TargetOfPrefix(netip.PrefixFrom(p.Addr(), bits))
		if err != nil {
			continue
		}
		if r, ok := t.find(topic, cover); ok {
			yield(r)
		}
	}
}

// inside gives the records of the targets that a prefix contains, itself
// excluded. It costs about as much as there can be of them: a /64 or /24 is
// looked up address by address, and only a prefix with more places than the
// topic has records is looked for in all of them.
func (t *table) inside(topic int, target ban.Target, yield func(uint32)) {
	p, ok := target.Prefix()
	if !ok || p.IsSingleIP() {
		return
	}
	x := t.byTopic[topic]
	within64 := p.Addr().Is6() && p.Bits() >= 64
	if within64 {
		for _, r := range slices.Clone(x.under[key6(target)]) {
			if q, _ := t.target(r).Prefix(); p.Contains(q.Addr()) {
				yield(r)
			}
		}
	} else {
		t.insideKeyed(topic, p, yield)
	}
	if !x.narrower(p) {
		return
	}
	for other, r := range x.other {
		if q, ok := other.Prefix(); ok && other != target && q.Bits() > p.Bits() && p.Contains(q.Addr()) &&
			(!within64 || !q.IsSingleIP()) {
			yield(r)
		}
	}
}

// narrower says whether the topic has a record without an integer key that may
// lie in a prefix, beside the single addresses of a /64.
func (x *topicIndex) narrower(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return slices.ContainsFunc(x.wide4[p.Bits()+1:], positive)
	}
	return slices.ContainsFunc(x.wide6[p.Bits()+1:], positive) || p.Bits() < 64 && len(x.under) > 0
}

func positive(n int) bool { return n > 0 }

// insideKeyed gives the single IPv4 addresses or the /64s in a prefix.
func (t *table) insideKeyed(topic int, p netip.Prefix, yield func(uint32)) {
	x := t.byTopic[topic]
	whole := 32
	if p.Addr().Is6() {
		whole = 64
	}
	if places := uint64(1) << (whole - p.Bits()); p.Bits() > 0 && places <= uint64(x.keyed.used) {
		for i := range places {
			key, kind := keyInside(p, i)
			if r, ok := x.keyed.find(kind, key); ok {
				yield(r)
			}
		}
		return
	}
	for r := range x.keyed.records() {
		if q, _ := t.target(r).Prefix(); p.Contains(q.Addr()) {
			yield(r)
		}
	}
}

// keyInside gives the key of the i-th single IPv4 address or /64 in a prefix.
func keyInside(p netip.Prefix, i uint64) (key [2]uint32, kind ban.Kind) {
	if p.Addr().Is4() {
		a := p.Addr().As4()
		return [2]uint32{binary.BigEndian.Uint32(a[:]) + uint32(i)}, ban.KindAddr4
	}
	a := p.Addr().As16()
	k := binary.BigEndian.Uint64(a[:8]) + i
	return [2]uint32{uint32(k >> 32), uint32(k)}, ban.KindNet6
}

// votesOf gives the votes of a record. None may be added or removed meanwhile.
func (t *table) votesOf(r uint32) iter.Seq[*vote] {
	return func(yield func(*vote) bool) {
		for i := t.all.at(r).votes; i != 0; {
			v := t.votes.at(i - 1)
			if !yield(v) {
				return
			}
			i = v.next()
		}
	}
}

// vote gives the feed's vote in a record's list, or nil.
func (t *table) vote(r uint32, feed uint16) *vote {
	for v := range t.votesOf(r) {
		if v.feed == feed {
			return v
		}
	}
	return nil
}

// addVote puts a vote of the feed, which has none, into the record's list.
func (t *table) addVote(r uint32, feed uint16) *vote {
	var i uint32
	if n := len(t.freeVotes); n > 0 {
		i, t.freeVotes = t.freeVotes[n-1], t.freeVotes[:n-1]
	} else {
		i = t.votes.add()
	}
	v, rec := t.votes.at(i), t.all.at(r)
	*v = vote{feed: feed}
	v.setNext(rec.votes)
	rec.votes = i + 1
	t.live++
	return v
}

// removeVote takes the feed's vote out of the record's list.
func (t *table) removeVote(r uint32, feed uint16) bool {
	rec := t.all.at(r)
	var before *vote
	for i := rec.votes; i != 0; {
		v := t.votes.at(i - 1)
		if v.feed != feed {
			before, i = v, v.next()
			continue
		}
		if before == nil {
			rec.votes = v.next()
		} else {
			before.setNext(v.next())
		}
		*v = vote{}
		t.freeVotes = append(t.freeVotes, i-1)
		t.live--
		return true
	}
	return false
}
