package desired

import (
	"encoding/binary"
	"iter"
	"net/netip"
)

// A checksum sums up the bans that end within one bucket of time. Kept in the
// kernel beside the bans, it lets the next process adopt them unread.
type checksum struct {
	sum   uint64
	Count uint32
}

const (
	// BucketBits make buckets of 256 seconds: 10,000 of them for bans of a month,
	// which is still quick to read back.
	BucketBits = 8
	// BucketWide marks the buckets of prefixes in interval maps, which are
	// written apart.
	BucketWide = 1 << 31
)

// BucketOf gives the bucket of a ban by its end.
func BucketOf(p netip.Prefix, until Second) uint32 {
	b := uint32(until) >> BucketBits
	if KindOf(p) == KindWide {
		b |= BucketWide
	}
	return b
}

// BucketEnd is when every ban of a bucket is over.
func BucketEnd(bucket uint32) Second {
	end := uint64(bucket&^BucketWide+1) << BucketBits
	if end > uint64(Never) {
		return Never
	}
	return Second(end)
}

func (s *State) sum(p netip.Prefix, v Slot, in bool) {
	st := s.Checksums.at(BucketOf(p, v.Until))
	a := p.Addr().As16()
	h := mix(binary.BigEndian.Uint64(a[:8]) ^ 0x9e3779b97f4a7c15)
	h = mix(h ^ binary.BigEndian.Uint64(a[8:]))
	h = mix(h ^ uint64(s.Classes[v.Class].ID)<<32 ^ uint64(v.Until))
	h = mix(h ^ uint64(p.Bits()))
	if in {
		st.sum += h
		st.Count++
	} else {
		st.sum -= h
		st.Count--
	}
}

// checksums holds them by bucket, those of buckets in a row together, so that a
// million bans need no million look-ups in a large map.
type checksums map[uint32]*[checksumRow]checksum

const checksumRow = 256

// at gives the checksum of a bucket to change.
func (s checksums) at(bucket uint32) *checksum {
	row := s[bucket/checksumRow]
	if row == nil {
		row = new([checksumRow]checksum)
		s[bucket/checksumRow] = row
	}
	return &row[bucket%checksumRow]
}

// Of gives the checksum of a bucket, empty where it has no bans.
func (s checksums) Of(bucket uint32) checksum {
	if row := s[bucket/checksumRow]; row != nil {
		return row[bucket%checksumRow]
	}
	return checksum{}
}

// All gives the buckets that have bans.
func (s checksums) All() iter.Seq2[uint32, checksum] {
	return func(yield func(uint32, checksum) bool) {
		for n, row := range s {
			for i, st := range row {
				if st.Count != 0 && !yield(n*checksumRow+uint32(i), st) {
					return
				}
			}
		}
	}
}

// tidy lets go of rows without bans.
func (s checksums) tidy() {
	for n, row := range s {
		if *row == ([checksumRow]checksum{}) {
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

// Bytes gives the checksum as the kernel keeps it.
func (st checksum) Bytes() [16]byte {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], st.sum)
	binary.BigEndian.PutUint32(b[8:], st.Count)
	return b
}
