package ledger

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"banmesh/internal/ban"
)

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
