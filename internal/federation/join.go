package federation

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A join gathers the pieces of a whole state beside the one in force.
type join struct {
	chunks map[wire.Hash]*wire.Message
	built  bool
	bytes  int // of all pieces of its list
	began  time.Time
	epoch  uint64
	from   wire.Hash // identifies the list that was built from
	set    set
	n      uint64
	gc     uint32
	hashes map[uint64]wire.Hash
}

func (f *follower) onChunk(m *wire.Message) {
	if f.join == nil || f.join.built {
		return
	}
	p := f.pieces()
	if p == nil {
		return
	}
	for _, ref := range p.Chunks {
		if ref.Hash == m.Hash {
			// Decoded again when it is used: a million claims, decoded and
			// waiting, would take twice the memory of the state itself.
			f.join.chunks[m.Hash] = &wire.Message{Name: m.Name, Raw: m.Raw, Hash: m.Hash}
		}
	}
}

// chunk gives a gathered chunk; its signature and hash were checked.
func (j *join) chunk(h wire.Hash) (*wire.Chunk, bool) {
	m := j.chunks[h]
	delete(j.chunks, h)
	if c, ok := m.Body.(*wire.Chunk); ok {
		return c, true
	}
	_, text, err := wire.InspectBody(m.Name, m.Raw)
	if err != nil {
		return nil, false
	}
	d := &wire.Decoder{B: text}
	c := wire.DecodeChunk(d)
	return c, d.End() == nil
}

func (f *follower) planJoin(p *wire.Pieces, fx *effects) (out []wire.Name) {
	total := 0
	for _, c := range p.Chunks {
		total += int(c.Size)
	}
	for _, s := range p.Segments {
		total += int(s.Size)
	}
	if total > wire.MaxFeedBytes {
		f.tooLarge = true
		return nil
	}
	if f.join == nil || f.join.epoch != f.headEpoch || f.join.from != wire.HashOf(p.Append(nil)) {
		if !f.roomForJoin(total) {
			f.joinNext = fx.now.Add(joinLeast)
			f.join = nil
			return nil
		}
		if !f.mayJoin(fx.now) {
			if f.join != nil {
				f.gathered, f.join = f.join.chunks, nil
			}
			return nil
		}
		f.startJoin(p)
		f.join.bytes, f.join.began = total, fx.now
		f.settle()
	}
	j := f.join
	if !j.built {
		for _, c := range p.Chunks {
			if j.chunks[c.Hash] == nil {
				out = append(out, f.name(wire.KindChunk, c.Slot))
			}
		}
		for _, s := range p.Segments {
			if s.To > f.head.SnapshotN && f.segments[s.Hash] == nil {
				out = append(out, f.name(wire.KindSegment, s.Slot))
			}
		}
		if len(out) > 0 {
			return out
		}
		if !f.build(p, fx) {
			return []wire.Name{f.name(wire.KindHead, 0)}
		}
	}
	return f.lacking(f.headEpoch, j.n, f.head.N, uint64(f.head.Ring))
}

// mayJoin says whether a join may begin now. If not, wake makes a new plan when
// it may. The state in force stays as it is.
func (f *follower) mayJoin(now time.Time) bool {
	if now.Before(f.joinNext) && f.joinNext.Sub(now) <= joinMost {
		return false
	}
	if !f.joins.take(now, 1) {
		f.joinNext = now.Add(joinMost / 2)
		return false
	}
	f.joinNext = now.Add(f.joinWait)
	f.joinWait = min(joinMost, max(joinLeast, 2*f.joinWait))
	return true
}

// startJoin begins a join, with the pieces of one before that still count.
func (f *follower) startJoin(p *wire.Pieces) {
	j := &join{chunks: map[wire.Hash]*wire.Message{}, epoch: f.headEpoch, from: wire.HashOf(p.Append(nil))}
	old := f.gathered
	if f.join != nil {
		old = f.join.chunks
	}
	f.gathered = nil
	for i, c := range p.Chunks {
		if m := old[c.Hash]; m != nil {
			j.chunks[c.Hash] = m
			continue
		}
		if f.set.count == 0 {
			continue
		}
		// Our own state in this range may be just this chunk.
		mine := &wire.Chunk{Slot: c.Slot, Lo: c.Lo, Hi: hiOf(p, i), Up: f.set.between(c.Lo, hiOf(p, i))}
		if text := mine.Append(nil); wire.HashOf(text) == c.Hash {
			j.chunks[c.Hash] = &wire.Message{Body: mine, Hash: c.Hash}
		}
	}
	segments := map[wire.Hash]*wire.Message{}
	for _, s := range p.Segments {
		if m := f.segments[s.Hash]; m != nil {
			segments[s.Hash] = m
		}
	}
	f.join, f.segments = j, segments
}

func hiOf(p *wire.Pieces, i int) string {
	if i+1 < len(p.Chunks) {
		return p.Chunks[i+1].Lo
	}
	return ""
}

// build makes the state of the newest head's pieces.
func (f *follower) build(p *wire.Pieces, fx *effects) bool {
	j := f.join
	said := wire.Minutes(fx.now)
	j.set = set{}
	for i, ref := range p.Chunks {
		c, ok := j.chunk(ref.Hash)
		if !ok || c.Lo != ref.Lo || c.Hi != hiOf(p, i) {
			f.join = nil
			return false
		}
		for _, e := range c.Up {
			e.Said = said
			if was, ok := f.set.get(&e.Key); ok && was.End == e.End && was.Meta == e.Meta {
				e.Said = was.Said
			}
			j.set.put(&e)
		}
	}
	j.n, j.gc = f.head.SnapshotN, f.head.SnapshotGC
	j.set.expire(j.gc)
	for _, ref := range p.Segments {
		if ref.To <= j.n {
			continue
		}
		s := f.segments[ref.Hash].Body.(*wire.Segment)
		if s.From > j.n {
			f.join = nil
			return false
		}
		j.set.apply(s.GC, s.Up, s.Down, said)
		j.n, j.gc = s.To, max(j.gc, s.GC)
	}
	j.built, j.chunks, f.segments, j.hashes = true, nil, nil, map[uint64]wire.Hash{}
	return true
}

// advanceJoin brings a built state up to the newest head, checks it and puts
// it in place of the one in force.
func (f *follower) advanceJoin(fx *effects) bool {
	j := f.join
	if j == nil || !j.built {
		return false
	}
	checked := false
	for f.pending.epoch == f.headEpoch {
		m, ok := f.pending.byN[j.n+1]
		if !ok {
			break
		}
		t := m.Body.(*wire.Delta)
		j.set.apply(t.GC, t.Up, t.Down, wire.Minutes(fx.now))
		j.n, j.gc = j.n+1, max(j.gc, t.GC)
		j.hashes[j.n] = m.Hash
		if checked = j.set.fingerprint() == t.Fingerprint; !checked {
			f.failJoin(fx)
			return false
		}
	}
	if j.n < f.head.N {
		return false
	}
	if j.n == f.head.N {
		if f.head.GC > j.gc {
			j.gc = f.head.GC
			j.set.expire(j.gc)
		}
		checked = j.gc == f.head.GC && j.set.fingerprint() == f.head.Fingerprint
	}
	if !checked || !f.roomForClaims(j.set.count) {
		f.tooLarge = checked
		f.failJoin(fx)
		return false
	}
	f.replace(fx, j.set, j.n, j.gc, j.hashes)
	return true
}

// replace puts a state that has the head's fingerprint in place of the one in
// force.
func (f *follower) replace(fx *effects, s set, n uint64, gc uint32, hashes map[uint64]wire.Hash) {
	var up []wire.Entry
	var down []wire.Withdrawal
	from := len(fx.changes)
	difference(&f.set, &s, func(e *wire.Entry) {
		if up = append(up, *e); len(up) == applyMost {
			f.emit(fx, up, nil)
			up = up[:0]
		}
	}, func(k *ban.Key) { down = append(down, wire.Withdrawal{Key: *k}) })
	f.emit(fx, up, down)
	if f.epoch == 0 { // nothing was heard of it before
		f.whole(fx, from)
	}
	f.epoch, f.n, f.gc, f.set, f.sound = f.headEpoch, n, gc, s, true
	f.recent, f.join, f.level, f.tries = hashes, nil, 0, 0
	f.joinNext, f.joinWait = time.Time{}, 0
	f.storeBase(fx)
}

// takeState takes the state behind the newest head, where it is newer than the
// one in force. Whoever put it there, it is the author's if the head's
// fingerprint says so; otherwise the pieces bring it.
func (f *follower) takeState(m *wire.Message, fx *effects) {
	h := f.head
	if m.State == nil || h == nil || f.frozen > 0 && f.frozen >= f.headEpoch {
		return
	}
	said := wire.Minutes(fx.now)
	var s set
	for i := range m.State {
		e := m.State[i]
		e.Said = said
		if was, ok := f.set.get(&e.Key); ok && was.End == e.End && was.Meta == e.Meta {
			e.Said = was.Said
		}
		s.put(&e)
	}
	if s.expire(h.GC); s.count != int(h.Count) || s.fingerprint() != h.Fingerprint {
		f.wrongStates++
		return
	}
	if f.sound && f.epoch == f.headEpoch && f.n >= h.N || f.epoch > f.headEpoch {
		return
	}
	if !f.roomForClaims(s.count) {
		f.tooLarge = true
		return
	}
	f.replace(fx, s, h.N, h.GC, map[uint64]wire.Hash{})
	f.segments, f.gathered = nil, nil
	f.settle()
}

// failJoin gives up pieces that do not add up to the head's state.
func (f *follower) failJoin(fx *effects) {
	f.badState++
	f.join = nil
	f.wanted = []wire.Name{f.name(wire.KindHead, 0)}
}
