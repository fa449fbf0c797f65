package history

import (
	"encoding/binary"
	"maps"
	"slices"

	"banmesh/internal/ban"
)

// A Banned is a ban as reconciling the history with the ledger compares it.
type Banned struct {
	Topic  ban.Topic
	Target ban.Target
}

// inForce are the events that a ban's beginning or change is in. The last of them
// without an end behind it says that the ban is in force.
var inForce = []Kind{Ban, Extend, End}

// openKey tells bans apart as index entries do. Of IPv6 targets longer than /64 those
// that share one are told apart no more.
type openKey struct {
	key          uint64
	topic        uint16
	family, bits uint8
}

// A place is where a record is.
type place struct {
	segment int
	offset  int64
}

// Reconcile compares the bans of the history that have begun and not ended with those of
// a ledger, which list calls its function for. It gives the ledger's bans that the
// history has no beginning of, as indexes in the order of list, and the last events of
// bans that only the history has, oldest first.
func (s *Store) Reconcile(list func(yield func(Banned) bool)) (unknown []int, over []Event, err error) {
	s.mu.Lock()
	segments := make([]segment, len(s.segments))
	for i, g := range s.segments {
		segments[i] = *g
	}
	s.mu.Unlock()
	open, err := begun(segments)
	if err != nil {
		return nil, nil, err
	}
	i := 0
	for b := range list {
		k := openKey{topic: hash16(string(b.Topic))}
		k.key, k.family, k.bits = keyOf(b.Target)
		if at, ok := open[k]; !ok {
			unknown = append(unknown, i)
		} else if at.segment >= 0 {
			open[k] = place{segment: -1} // both have it
		}
		i++
	}
	maps.DeleteFunc(open, func(_ openKey, at place) bool { return at.segment < 0 })
	by := map[int][]int64{}
	for _, at := range open {
		by[at.segment] = append(by[at.segment], at.offset)
	}
	for i := range segments {
		offsets := by[i]
		slices.Sort(offsets)
		if len(offsets) == 0 {
			continue
		}
		err := segments[i].each(func(_ entries, r *recordReader) {
			for _, offset := range offsets {
				if e, err := r.at(offset); err == nil {
					over = append(over, e)
				}
			}
		})
		if err != nil {
			return nil, nil, err
		}
	}
	return unknown, over, nil
}

// begun gives the last events of the bans that have begun and not ended.
func begun(segments []segment) (map[openKey]place, error) {
	f := (&Query{Kinds: inForce}).filter()
	end := uint8(slices.Index(kinds, End))
	open := map[openKey]place{}
	for i := range segments {
		err := segments[i].each(func(list entries, _ *recordReader) {
			for n := range list.len() {
				if !f.may(list, n) {
					continue
				}
				x := list[n*entrySize:][:entrySize]
				k := openKey{key: binary.LittleEndian.Uint64(x), topic: binary.LittleEndian.Uint16(x[16:]), family: x[21], bits: x[22]}
				if x[20] == end {
					delete(open, k)
				} else {
					open[k] = place{i, list.offset(n)}
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return open, nil
}
