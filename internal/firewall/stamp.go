package firewall

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// A stamp sums up the bans that end within one bucket of time. Kept in the
// kernel beside the bans, it lets the next process adopt them unread.
type stamp struct {
	sum   uint64
	count uint32
}

const (
	// bucketBits make buckets of 256 seconds: 10,000 of them for bans of a month,
	// which is still quick to read back.
	bucketBits = 8
	// bucketWide marks the buckets of prefixes in interval maps, which are
	// written apart.
	bucketWide = 1 << 31
)

func bucketOf(p netip.Prefix, until second) uint32 {
	b := uint32(until) >> bucketBits
	if kindOf(p) == kindWide {
		b |= bucketWide
	}
	return b
}

// bucketEnd is when every ban of a bucket is over.
func bucketEnd(bucket uint32) second {
	end := uint64(bucket&^bucketWide+1) << bucketBits
	if end > uint64(never) {
		return never
	}
	return second(end)
}

func (s *state) stamp(p netip.Prefix, v slot, in bool) {
	st := s.stamps.at(bucketOf(p, v.until))
	a := p.Addr().As16()
	h := mix(binary.BigEndian.Uint64(a[:8]) ^ 0x9e3779b97f4a7c15)
	h = mix(h ^ binary.BigEndian.Uint64(a[8:]))
	h = mix(h ^ uint64(s.classes[v.class].id)<<32 ^ uint64(v.until))
	h = mix(h ^ uint64(p.Bits()))
	if in {
		st.sum += h
		st.count++
	} else {
		st.sum -= h
		st.count--
	}
}

// stamps holds stamps by bucket, those of buckets in a row together, so that a
// million bans need no million look-ups in a large map.
type stamps map[uint32]*[stampRow]stamp

const stampRow = 256

// at gives the stamp of a bucket to change.
func (s stamps) at(bucket uint32) *stamp {
	row := s[bucket/stampRow]
	if row == nil {
		row = new([stampRow]stamp)
		s[bucket/stampRow] = row
	}
	return &row[bucket%stampRow]
}

// of gives the stamp of a bucket, empty where it has no bans.
func (s stamps) of(bucket uint32) stamp {
	if row := s[bucket/stampRow]; row != nil {
		return row[bucket%stampRow]
	}
	return stamp{}
}

// all gives the buckets that have bans.
func (s stamps) all() iter.Seq2[uint32, stamp] {
	return func(yield func(uint32, stamp) bool) {
		for n, row := range s {
			for i, st := range row {
				if st.count != 0 && !yield(n*stampRow+uint32(i), st) {
					return
				}
			}
		}
	}
}

// tidy lets go of rows without bans.
func (s stamps) tidy() {
	for n, row := range s {
		if *row == ([stampRow]stamp{}) {
			delete(s, n)
		}
	}
}

// mix is the finaliser of splitmix64: every bit of the input moves every bit of
// the output. It guards against accidents, not against an adversary, who could
// gain nothing here.
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

func (st stamp) bytes() [16]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], st.sum)
	binary.BigEndian.PutUint32(b[8:], st.count)
	return b
}
