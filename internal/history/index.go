package history

import (
	"encoding/binary"
	"hash/crc32"
	"hash/fnv"
	"math"
	"net/netip"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// An entry says of a record where it is, and enough to pass over those that a
// query does not select without reading them. It may let one through that is
// not selected, and never holds one back that is.
type entry struct {
	key    uint64 // the first bits of the target
	offset uint32 // in the segment
	at     uint32 // Unix seconds
	topic  uint16 // a hash
	peers  uint16 // a bit for each peer's hash
	kind   uint8  // its place in kinds
	family uint8
	bits   uint8 // of a prefix, at most those in key
}

// entries are those of a segment as they are on disk: the fields of an entry in
// their order, little-endian, and a zero byte.
type entries []byte

const entrySize = 24

func (l entries) len() int { return len(l) / entrySize }

func (l entries) offset(i int) int64 { return int64(binary.LittleEndian.Uint32(l[i*entrySize+8:])) }

func (l entries) add(x *entry) entries {
	l = binary.LittleEndian.AppendUint64(l, x.key)
	l = binary.LittleEndian.AppendUint32(l, x.offset)
	l = binary.LittleEndian.AppendUint32(l, x.at)
	l = binary.LittleEndian.AppendUint16(l, x.topic)
	l = binary.LittleEndian.AppendUint16(l, x.peers)
	return append(l, x.kind, x.family, x.bits, 0)
}

// Families of targets.
const (
	familyNone = iota
	familyV4
	familyV6
	familyOther
)

func entryOf(e *Event, offset int64) entry {
	x := entry{offset: uint32(offset), at: uint32(min(max(e.At.Unix(), 0), math.MaxUint32)), kind: uint8(slices.Index(kinds, e.Kind))}
	x.key, x.family, x.bits = keyOf(e.Target)
	x.topic = hash16(string(e.Topic))
	for _, p := range e.Peers {
		x.peers |= peerBit(p)
	}
	return x
}

func keyOf(t ban.Target) (key uint64, family, bits uint8) {
	if t.IsZero() {
		return 0, familyNone, 0
	}
	p := prefixOf(t)
	switch {
	case !p.IsValid():
		h := fnv.New64a()
		h.Write([]byte(t.String()))
		return h.Sum64(), familyOther, 0
	case p.Addr().Is4():
		return firstBits(p.Addr()), familyV4, uint8(p.Bits())
	default:
		return firstBits(p.Addr()), familyV6, uint8(min(p.Bits(), 64))
	}
}

// firstBits gives the first 64 bits of an address, those of an IPv4 one on top.
func firstBits(a netip.Addr) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:])) << 32
	}
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

func hash16(s string) uint16 {
	h := fnv.New32a()
	h.Write([]byte(s))
	x := h.Sum32()
	return uint16(x) ^ uint16(x>>16)
}

func peerBit(name string) uint16 { return 1 << (hash16(name) & 15) }

// A filter is a query as entries are compared with it.
type filter struct {
	q      *Query
	key    uint64
	family uint8
	bits   uint8
	topic  uint16
	peer   uint16
	kinds  uint32
	since  uint32
}

func (q *Query) filter() filter {
	f := filter{q: q}
	f.key, f.family, f.bits = keyOf(q.Target)
	f.topic = hash16(string(q.Topic))
	if q.Peer != "" {
		f.peer = peerBit(q.Peer)
	}
	for i, k := range kinds {
		if q.Kinds == nil || slices.Contains(q.Kinds, k) {
			f.kinds |= 1 << i
		}
	}
	if s := q.Since.Unix(); !q.Since.IsZero() && s > 0 {
		f.since = uint32(min(s, math.MaxUint32))
	}
	return f
}

// may says whether the record of an entry may be selected.
func (f *filter) may(l entries, i int) bool {
	x := l[i*entrySize:][:entrySize]
	family := x[21]
	switch {
	case f.family == familyNone:
	case f.family != family:
		return false
	case family == familyOther:
		if binary.LittleEndian.Uint64(x) != f.key {
			return false
		}
	case (f.key^binary.LittleEndian.Uint64(x))&^(math.MaxUint64>>min(f.bits, x[22])) != 0:
		return false
	}
	return f.since <= binary.LittleEndian.Uint32(x[12:]) && f.kinds&(1<<(x[20]&31)) != 0 &&
		(f.q.Topic == "" || f.topic == binary.LittleEndian.Uint16(x[16:])) && f.peer&^binary.LittleEndian.Uint16(x[18:]) == 0
}

// An index file has a header and the entries of a finished segment.
//
//	magic      8 bytes
//	entries    4 bytes, how many; integers are little-endian
//	first, to  4 bytes each, the earliest and latest time
//	last       8 bytes, the cursor of the last record
//	size       8 bytes of the segment
//	sum        4 bytes, CRC-32C of the entries
//	head       4 bytes, CRC-32C of the header so far: at a start it is read alone
const (
	indexMagic  = "BMEVIDX2"
	indexHeader = 8 + 4 + 4 + 4 + 8 + 8 + 4 + 4
)

func encodeIndex(s *summary, list entries) []byte {
	b := make([]byte, indexHeader, indexHeader+len(list))
	copy(b, indexMagic)
	binary.LittleEndian.PutUint32(b[8:], uint32(list.len()))
	binary.LittleEndian.PutUint32(b[12:], s.from)
	binary.LittleEndian.PutUint32(b[16:], s.to)
	binary.LittleEndian.PutUint64(b[20:], uint64(s.last))
	binary.LittleEndian.PutUint64(b[28:], uint64(s.size))
	binary.LittleEndian.PutUint32(b[36:], crc32.Checksum(list, castagnoli))
	binary.LittleEndian.PutUint32(b[40:], crc32.Checksum(b[:40], castagnoli))
	return append(b, list...)
}

// A summary is of a segment as a whole.
type summary struct {
	from, to uint32 // times
	last     Cursor
	size     int64 // bytes of records
}

// note adds a record to the summary.
func (s *summary) note(x *entry, c Cursor) {
	if s.last == 0 || x.at < s.from {
		s.from = x.at
	}
	s.to, s.last = max(s.to, x.at), c
}

func decodeHeader(b []byte) (s summary, entries int, sum uint32, ok bool) {
	if len(b) < indexHeader || string(b[:8]) != indexMagic || binary.LittleEndian.Uint32(b[40:]) != crc32.Checksum(b[:40], castagnoli) {
		return s, 0, 0, false
	}
	s = summary{
		from: binary.LittleEndian.Uint32(b[12:]), to: binary.LittleEndian.Uint32(b[16:]),
		last: Cursor(binary.LittleEndian.Uint64(b[20:])), size: int64(binary.LittleEndian.Uint64(b[28:])),
	}
	return s, int(binary.LittleEndian.Uint32(b[8:])), binary.LittleEndian.Uint32(b[36:]), true
}

// decodeIndex reads an index file; ok is false where it is damaged.
func decodeIndex(b []byte) (s summary, list entries, ok bool) {
	s, n, sum, ok := decodeHeader(b)
	if !ok || len(b)-indexHeader != n*entrySize || crc32.Checksum(b[indexHeader:], castagnoli) != sum {
		return s, nil, false
	}
	return s, b[indexHeader:], true
}

// seconds gives an entry's time.
func seconds(at uint32) time.Time { return time.Unix(int64(at), 0) }
