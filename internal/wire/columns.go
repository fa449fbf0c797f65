package wire

import (
	"encoding/binary"
	"errors"

	"banmesh/internal/ban"
)

// appendKeys writes a sorted list of keys:
//
//	total uvarint | groups: kind u8, count uvarint, keys
//
// with one group a kind, in order. IPv4 addresses and IPv6 /64s are uvarints:
// the first as it is, each other as the difference to the one before. Other
// kinds are their bytes.
func appendKeys(b []byte, n int, at func(int) *ban.Key) []byte {
	b = binary.AppendUvarint(b, uint64(n))
	for i := 0; i < n; {
		kind, j := at(i).Kind, i
		for j < n && at(j).Kind == kind {
			j++
		}
		b = append(b, byte(kind))
		b = binary.AppendUvarint(b, uint64(j-i))
		var last uint64
		for ; i < j; i++ {
			k := at(i)
			if v, ok := k.Number(); ok {
				b = binary.AppendUvarint(b, v-last)
				last = v
			} else {
				b = append(b, k.Bytes()...)
			}
		}
	}
	return b
}

// keys reads the bytes of appendKeys and gives the keys to put.
func (d *Decoder) keys(most int, put func(*ban.Key)) int {
	// Every key costs a byte at least, so a payload cannot ask for more memory
	// than it pays for.
	total := int(d.Uvarint(uint64(min(most, len(d.B)))))
	var before ban.Kind
	for n := 0; n < total && d.err == nil; {
		kind := ban.Kind(d.U8())
		count := int(d.Uvarint(uint64(total - n)))
		if d.err == nil && (kind <= before || ban.KeyWidth(kind) == 0 || count == 0) {
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

func (d *Decoder) group(kind ban.Kind, count int, put func(*ban.Key)) {
	var last uint64
	var before ban.Key
	for i := 0; i < count && d.err == nil; i++ {
		k := ban.Key{Kind: kind}
		switch kind {
		case ban.KindAddr4, ban.KindNet6:
			most := uint64(1<<32 - 1)
			if kind == ban.KindNet6 {
				most = 1<<64 - 1
			}
			step := d.Uvarint(most - last)
			if i > 0 && step == 0 {
				d.fail(errors.New("targets are not in order"))
			}
			last += step
			if kind == ban.KindAddr4 {
				binary.BigEndian.PutUint32(k.B[:], uint32(last))
			} else {
				binary.BigEndian.PutUint64(k.B[:], last)
			}
			// An IPv4 address is always canonical. A /64 of ::/96 or
			// ::ffff:0:0/96 still is an IPv6 network of 64 bits.
		default:
			copy(k.B[:], d.Take(ban.KeyWidth(kind)))
			if d.err == nil && i > 0 && ban.CompareKeys(&before, &k) >= 0 {
				d.fail(errors.New("targets are not in order"))
			}
			if d.err == nil {
				if _, err := k.Target(); err != nil {
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

// AppendEntries writes sorted entries as columns:
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
func AppendEntries(b []byte, es []Entry) []byte {
	b = appendKeys(b, len(es), func(i int) *ban.Key { return &es[i].Key })
	if len(es) == 0 {
		return b
	}
	base := es[0].End
	for i := range es {
		base = min(base, es[i].End)
	}
	b = binary.BigEndian.AppendUint32(b, base)
	for i := range es {
		b = binary.AppendUvarint(b, uint64(es[i].End-base))
	}
	pairs, index := distinct(es)
	if len(pairs) > 256 {
		b = append(b, 0)
		for i := range es {
			b = append(b, es[i].Meta[:]...)
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
			two := index[es[i].Meta] << 4
			if i+1 < len(es) {
				two |= index[es[i+1].Meta]
			}
			b = append(b, two)
		}
	default:
		for i := range es {
			b = append(b, index[es[i].Meta])
		}
	}
	return b
}

// halfByte is how many pairs half a byte tells apart.
const halfByte = 16

// distinct gives the pairs in order of first appearance and their indexes, or
// 257 pairs where there are more than 256.
func distinct(es []Entry) (pairs []Meta, index map[Meta]uint8) {
	index = make(map[Meta]uint8, 8)
	for i := range es {
		m := es[i].Meta
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

// Entries reads the bytes of AppendEntries. That the coding is the only one is
// checked by the message that contains it.
func (d *Decoder) Entries(most int) []Entry {
	// An entry costs 2 bytes at least, so this is paid for.
	peek := *d
	es := make([]Entry, 0, min(peek.Uvarint(uint64(most)), uint64(len(d.B)/2)))
	n := d.keys(most, func(k *ban.Key) { es = append(es, Entry{Key: *k}) })
	if n == 0 || d.err != nil {
		return nil
	}
	base := d.U32()
	for i := range es {
		es[i].End = base + uint32(d.Uvarint(uint64(1<<32-1-base)))
	}
	pairs := int(d.Uvarint(256))
	if pairs == 0 {
		b := d.Take(2 * n)
		for i := range es {
			if b != nil {
				es[i].Meta = Meta(b[2*i:])
			}
		}
		return es
	}
	table := d.Take(2 * pairs)
	if table == nil {
		return nil
	}
	var index []byte
	switch {
	case pairs == 1:
	case pairs <= halfByte:
		index = d.Take((n + 1) / 2)
	default:
		index = d.Take(n)
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
		es[i].Meta = Meta(table[2*at:])
	}
	return es
}
