package federation

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// An entry is a claim as a feed holds it.
type entry struct {
	key  key
	end  uint32 // minutes since the Unix epoch
	meta meta
	// said is when its author said so as far as this reader knows, in minutes:
	// the date of the message that carried it. It is no part of the feed.
	said uint32
}

// meta is class and whether established (the high bit), then hits.
type meta [2]byte

const establishedBit = 0x80

func entryOf(c ban.Claim) entry {
	e := entry{key: keyOf(c.Target), end: minutesUp(c.End), meta: meta{byte(c.Class) &^ establishedBit, c.Hits}}
	if c.Class >= establishedBit {
		e.meta[0] = byte(ban.ClassOther)
	}
	if c.Established {
		e.meta[0] |= establishedBit
	}
	return e
}

// claim gives the claim; the key was checked when it was decoded.
func (e *entry) claim() ban.Claim {
	t, _ := e.key.target()
	return ban.Claim{
		Target: t, End: timeOfMinute(e.end), Class: ban.Class(e.meta[0] &^ establishedBit),
		Hits: e.meta[1], Established: e.meta[0]&establishedBit != 0,
	}
}

// appendKeys writes a sorted list of keys:
//
//	total uvarint | groups: kind u8, count uvarint, keys
//
// with one group a kind, in order. IPv4 addresses and IPv6 /64s are uvarints:
// the first as it is, each other as the difference to the one before. Other
// kinds are their bytes.
func appendKeys(b []byte, n int, at func(int) *key) []byte {
	b = binary.AppendUvarint(b, uint64(n))
	for i := 0; i < n; {
		kind, j := at(i).kind, i
		for j < n && at(j).kind == kind {
			j++
		}
		b = append(b, byte(kind))
		b = binary.AppendUvarint(b, uint64(j-i))
		var last uint64
		for ; i < j; i++ {
			k := at(i)
			if v, ok := k.number(); ok {
				b = binary.AppendUvarint(b, v-last)
				last = v
			} else {
				b = append(b, k.bytes()...)
			}
		}
	}
	return b
}

// keys reads what appendKeys wrote and gives the keys to put.
func (d *decoder) keys(most int, put func(*key)) int {
	// Every key costs a byte at least, so a payload cannot ask for more memory
	// than it pays for.
	total := int(d.uvarint(uint64(min(most, len(d.b)))))
	var before ban.Kind
	for n := 0; n < total && d.err == nil; {
		kind := ban.Kind(d.u8())
		count := int(d.uvarint(uint64(total - n)))
		if d.err == nil && (kind <= before || width(kind) == 0 || count == 0) {
			d.fail(errors.New("the kinds of targets are not in order"))
		}
		before = kind
		d.group(kind, count, put)
		n += count
	}
	if d.err != nil {
		return 0
	}
	return total
}

func (d *decoder) group(kind ban.Kind, count int, put func(*key)) {
	var last uint64
	var before key
	for i := 0; i < count && d.err == nil; i++ {
		k := key{kind: kind}
		switch kind {
		case ban.KindAddr4, ban.KindNet6:
			most := uint64(1<<32 - 1)
			if kind == ban.KindNet6 {
				most = 1<<64 - 1
			}
			step := d.uvarint(most - last)
			if i > 0 && step == 0 {
				d.fail(errors.New("targets are not in order"))
			}
			last += step
			if kind == ban.KindAddr4 {
				binary.BigEndian.PutUint32(k.b[:], uint32(last))
			} else {
				binary.BigEndian.PutUint64(k.b[:], last)
			}
			// An IPv4 address is always canonical. A /64 of ::/96 or
			// ::ffff:0:0/96 still is an IPv6 network of 64 bits.
		default:
			copy(k.b[:], d.take(width(kind)))
			if d.err == nil && i > 0 && compareKeys(&before, &k) >= 0 {
				d.fail(errors.New("targets are not in order"))
			}
			if d.err == nil {
				if _, err := k.target(); err != nil {
					d.fail(err)
				}
			}
			before = k
		}
		if d.err == nil {
			put(&k)
		}
	}
}

// appendEntries writes sorted entries as columns:
//
//	keys | base u32 | per entry: end - base uvarint |
//	pairs uvarint | pairs x (class u8, hits u8) | per entry: index
//
// All after the keys is missing where there are none. base is the least end.
// The pairs are the distinct ones in order of first appearance. An index is a
// byte; with at most 16 pairs it is half a byte, the first entry in the high
// half and an odd end filled with zero; with a single pair it is missing. With
// more than 256 distinct pairs the number is 0 and each entry has its pair in
// place of an index.
func appendEntries(b []byte, es []entry) []byte {
	b = appendKeys(b, len(es), func(i int) *key { return &es[i].key })
	if len(es) == 0 {
		return b
	}
	base := es[0].end
	for i := range es {
		base = min(base, es[i].end)
	}
	b = binary.BigEndian.AppendUint32(b, base)
	for i := range es {
		b = binary.AppendUvarint(b, uint64(es[i].end-base))
	}
	pairs, index := distinct(es)
	if len(pairs) > 256 {
		b = append(b, 0)
		for i := range es {
			b = append(b, es[i].meta[:]...)
		}
		return b
	}
	b = binary.AppendUvarint(b, uint64(len(pairs)))
	for _, p := range pairs {
		b = append(b, p[:]...)
	}
	switch {
	case len(pairs) == 1:
	case len(pairs) <= halfByte:
		for i := 0; i < len(es); i += 2 {
			two := index[es[i].meta] << 4
			if i+1 < len(es) {
				two |= index[es[i+1].meta]
			}
			b = append(b, two)
		}
	default:
		for i := range es {
			b = append(b, index[es[i].meta])
		}
	}
	return b
}

// halfByte is how many pairs half a byte tells apart.
const halfByte = 16

// distinct gives the pairs in order of first appearance and their indexes, or
// 257 pairs where there are more than 256.
func distinct(es []entry) (pairs []meta, index map[meta]uint8) {
	index = make(map[meta]uint8, 8)
	for i := range es {
		m := es[i].meta
		if len(pairs) > 0 && m == pairs[len(pairs)-1] {
			continue
		}
		if _, ok := index[m]; ok {
			continue
		}
		index[m] = uint8(len(pairs))
		pairs = append(pairs, m)
		if len(pairs) > 256 {
			return pairs, nil
		}
	}
	return pairs, index
}

// entries reads what appendEntries wrote. That the coding is the only one is
// checked by the message that contains it.
func (d *decoder) entries(most int) []entry {
	// An entry costs 2 bytes at least, so this is paid for.
	peek := *d
	es := make([]entry, 0, min(peek.uvarint(uint64(most)), uint64(len(d.b)/2)))
	n := d.keys(most, func(k *key) { es = append(es, entry{key: *k}) })
	if n == 0 || d.err != nil {
		return nil
	}
	base := d.u32()
	for i := range es {
		es[i].end = base + uint32(d.uvarint(uint64(1<<32-1-base)))
	}
	pairs := int(d.uvarint(256))
	if pairs == 0 {
		b := d.take(2 * n)
		for i := range es {
			if b != nil {
				es[i].meta = meta(b[2*i:])
			}
		}
		return es
	}
	table := d.take(2 * pairs)
	if table == nil {
		return nil
	}
	var index []byte
	switch {
	case pairs == 1:
	case pairs <= halfByte:
		index = d.take((n + 1) / 2)
	default:
		index = d.take(n)
	}
	if d.err != nil {
		return nil
	}
	for i := range es {
		at := 0
		switch {
		case pairs == 1:
		case pairs <= halfByte:
			at = int(index[i/2] >> (4 * (1 - i%2)) & 15)
		default:
			at = int(index[i])
		}
		if at >= pairs {
			d.fail(errors.New("an index is out of range"))
			return nil
		}
		es[i].meta = meta(table[2*at:])
	}
	return es
}

// sortClaims turns claims into sorted entries with one a target: of several,
// the one that ends last.
func sortClaims(claims []ban.Claim, said time.Time) []entry {
	es := make([]entry, 0, len(claims))
	for _, c := range claims {
		if !c.Target.IsZero() {
			e := entryOf(c)
			e.said = minutes(said)
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b entry) int {
		return cmp.Or(compareKeys(&a.key, &b.key), cmp.Compare(b.end, a.end), bytes.Compare(b.meta[:], a.meta[:]))
	})
	return slices.CompactFunc(es, func(a, b entry) bool { return a.key == b.key })
}

func claimsOf(es []entry) []ban.Claim {
	out := make([]ban.Claim, len(es))
	for i := range es {
		out[i] = es[i].claim()
	}
	return out
}

func targetsOf(ks []key) []ban.Target {
	out := make([]ban.Target, len(ks))
	for i := range ks {
		out[i], _ = ks[i].target()
	}
	return out
}

// settle makes up and down sorted and disjoint: what is in both is withdrawn.
func settle(up []entry, down []key) ([]entry, []key) {
	slices.SortFunc(down, func(a, b key) int { return compareKeys(&a, &b) })
	down = slices.Compact(down)
	up = slices.DeleteFunc(up, func(e entry) bool {
		_, found := slices.BinarySearchFunc(down, e.key, func(a, b key) int { return compareKeys(&a, &b) })
		return found
	})
	return up, down
}
