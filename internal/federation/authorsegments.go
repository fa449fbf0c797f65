package federation

import (
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// sealSegments merges the deltas that are in the ring alone into segments. A
// segment that is not much larger than its successor is merged with it, so
// that there are few and each change is written a logarithmic number of times.
func (a *author) sealSegments(now time.Time) {
	var done []wire.SegmentRef
	var m *merge
	flush := func() {
		if m != nil {
			done = append(done, a.sendSegment(m, now))
			m = nil
		}
	}
	from := a.n - uint64(len(a.unsealed))
	for i, t := range a.unsealed {
		if m != nil && m.cost+deltaWeight(t) > segmentMost {
			flush()
		}
		if m == nil {
			m = newMerge(from + uint64(i))
		}
		m.add(from+uint64(i)+1, t.GC, t.Up, t.Down)
	}
	a.unsealed = nil
	// Merge backwards while the segment before is at most twice as large.
	for m != nil && len(done) == 0 && len(a.pieces.Segments) > 0 {
		last := a.pieces.Segments[len(a.pieces.Segments)-1]
		if int(last.Size) > 2*m.cost || int(last.Size)+m.cost > segmentMost {
			break
		}
		s, ok := a.segment(last)
		if !ok {
			break
		}
		older := newMerge(s.From)
		older.add(s.To, s.GC, s.Up, s.Down)
		up, down := m.last.step()
		older.add(m.to, m.gc, up, down)
		m = older
		a.pieces.Segments = a.pieces.Segments[:len(a.pieces.Segments)-1]
		a.slots[ofSegments].drop(last.Slot)
	}
	flush()
	a.pieces.Segments = append(a.pieces.Segments, done...)
}

func deltaWeight(t *wire.Delta) (n int) {
	for i := range t.Up {
		n += cost(&t.Up[i].Key)
	}
	for i := range t.Down {
		n += cost(&t.Down[i].Key)
	}
	return n
}

// A merge gathers successive changes into one: of each key the last word.
type merge struct {
	from, to uint64
	gc       uint32
	cost     int
	last     changes
}

func newMerge(from uint64) *merge {
	return &merge{from: from, to: from, last: changes{}}
}

func (m *merge) add(to uint64, gc uint32, up []wire.Entry, down []wire.Withdrawal) {
	m.to, m.gc = to, max(m.gc, gc)
	// A claim that was put and has ended since must be taken out: a reader may hold an
	// older claim of that target that ends later.
	for k, last := range m.last {
		if last.entry != nil && last.entry.End <= m.gc {
			m.last[k] = lastWord{reason: ban.ReasonEnded}
		}
	}
	m.last.add(up, down)
	m.cost = 0
	for k := range m.last {
		m.cost += cost(&k)
	}
}

func (a *author) sendSegment(m *merge, now time.Time) wire.SegmentRef {
	up, down := m.last.step()
	s := &wire.Segment{Slot: a.slots[ofSegments].take(), From: m.from, To: m.to, GC: m.gc, Up: up, Down: down}
	text := a.send(s.Slot, s.To, now, s)
	return wire.SegmentRef{From: s.From, To: s.To, Slot: s.Slot, Hash: wire.HashOf(text), Size: uint32(len(text))}
}

// segment reads one of our own segments back.
func (a *author) segment(ref wire.SegmentRef) (*wire.Segment, bool) {
	raw := a.own(wire.KindSegment, ref.Slot)
	m, err := wire.Open(a.name(wire.KindSegment, ref.Slot), raw)
	if err != nil || m.Hash != ref.Hash {
		return nil, false
	}
	return m.Body.(*wire.Segment), true
}

func (a *author) dropSegments() {
	for _, s := range a.pieces.Segments {
		a.slots[ofSegments].drop(s.Slot)
	}
	a.pieces.Segments = nil
}

// trimSegments keeps the newest segments for readers that come back, as long
// as they are cheaper than chunks.
func (a *author) trimSegments() {
	most, sum := max(2*snapshotLeast, a.base()/2), 0
	keep := len(a.pieces.Segments)
	for ; keep > 0; keep-- {
		s := a.pieces.Segments[keep-1]
		if sum += int(s.Size); sum > most && s.To <= a.snapshotN {
			break
		}
	}
	for _, s := range a.pieces.Segments[:keep] {
		a.slots[ofSegments].drop(s.Slot)
	}
	a.pieces.Segments = slices.Clone(a.pieces.Segments[keep:])
}
