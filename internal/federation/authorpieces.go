package federation

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
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
	// What was put and has ended since must be taken out: a reader may hold an
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

// Indexes of an author's slots.
const (
	ofChunks   = 0
	ofSegments = 1
)

// slots gives out the slots of one kind. One that is let go stays as it is
// until the pieces have changed twice.
type slots struct {
	used  map[int]bool
	fresh []int // let go by the change under way
	limbo []int // let go by the change before
}

func (s *slots) take() int {
	for slot := 0; ; slot++ {
		if !s.used[slot] && !slices.Contains(s.limbo, slot) && !slices.Contains(s.fresh, slot) {
			s.use(slot)
			return slot
		}
	}
}

func (s *slots) use(slot int) {
	if s.used == nil {
		s.used = map[int]bool{}
	}
	s.used[slot] = true
}

func (s *slots) drop(slot int) {
	delete(s.used, slot)
	s.fresh = append(s.fresh, slot)
}

// turn ends a change and gives the slots that nobody needs any more.
func (s *slots) turn() (free []int) {
	free, s.limbo, s.fresh = s.limbo, s.fresh, nil
	return free
}

func (a *author) dropSegments() {
	for _, s := range a.pieces.Segments {
		a.slots[ofSegments].drop(s.Slot)
	}
	a.pieces.Segments = nil
}

// base is the bytes of all chunks.
func (a *author) base() (n int) {
	for _, c := range a.pieces.Chunks {
		n += int(c.Size)
	}
	return n
}

// snapshotDue says whether readers who join would do better with new chunks.
func (a *author) snapshotDue() bool {
	n := 0
	for _, s := range a.pieces.Segments {
		if s.To > a.snapshotN {
			n += int(s.Size)
		}
	}
	return n > max(snapshotLeast, a.base()/4)
}

// snapshot writes the chunks that no longer say what the set does, and leaves
// the others as they are. All deltas must be in segments already.
func (a *author) snapshot(now time.Time) {
	var out piecesUnderWay
	chunks := a.pieces.Chunks
	for i := 0; i < len(chunks); {
		if !a.dirty[i] && a.stale[i]*4 <= a.weight[i] {
			out.add(chunks[i], a.stale[i], a.weight[i])
			i++
			continue
		}
		lo := chunks[i].Lo
		for ; i < len(chunks) && (a.dirty[i] || a.stale[i]*4 > a.weight[i]); i++ {
			a.slots[ofChunks].drop(chunks[i].Slot)
		}
		hi := ""
		if i < len(chunks) {
			hi = chunks[i].Lo
		}
		a.rewrite(&out, lo, hi, now)
	}
	if len(chunks) == 0 && a.set.count > 0 {
		a.rewrite(&out, "", "", now)
	}
	a.pieces.Chunks, a.stale, a.weight = out.chunks, out.stale, out.weight
	a.dirty = make([]bool, len(out.chunks))
	a.snapshotN, a.snapshotGC = a.n, a.gc
	a.trimSegments()
}

type piecesUnderWay struct {
	chunks        []wire.ChunkRef
	stale, weight []int
}

func (p *piecesUnderWay) add(c wire.ChunkRef, stale, weight int) {
	p.chunks, p.stale, p.weight = append(p.chunks, c), append(p.stale, stale), append(p.weight, weight)
}

// rewrite writes chunks of about equal size for the keys from lo to hi.
func (a *author) rewrite(out *piecesUnderWay, lo, hi string, now time.Time) {
	total := 0
	a.set.ascend(lo, hi, func(e *wire.Entry) { total += cost(&e.Key) })
	each := max(1, (total+chunkCost/2)/chunkCost)
	share := (total + each - 1) / each
	var es []wire.Entry
	sum := 0
	a.set.ascend(lo, hi, func(e *wire.Entry) {
		if sum >= share && len(es) > 0 {
			next := e.Key.Text()
			a.sendChunk(out, lo, next, es, now)
			lo, es, sum = next, es[:0], 0
		}
		es = append(es, *e)
		sum += cost(&e.Key)
	})
	a.sendChunk(out, lo, hi, es, now)
}

// sendChunk writes a chunk, or two halves where it is too large after all.
func (a *author) sendChunk(out *piecesUnderWay, lo, hi string, es []wire.Entry, now time.Time) {
	c := &wire.Chunk{Lo: lo, Hi: hi, Up: es}
	if n := len(es) / 2; n > 0 && len(c.Append(nil)) > chunkMost {
		middle := es[n].Key.Text()
		a.sendChunk(out, lo, middle, es[:n], now)
		a.sendChunk(out, middle, hi, es[n:], now)
		return
	}
	c.Slot = a.slots[ofChunks].take()
	text := a.send(c.Slot, a.n, now, c)
	out.add(wire.ChunkRef{Lo: lo, Slot: c.Slot, Hash: wire.HashOf(text), Size: uint32(len(text))}, 0, len(es))
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

// own reads one of our own messages from the store, as it is in this
// transaction or as it was kept.
func (a *author) own(k wire.Kind, slot int) []byte {
	at := a.storeKey(k, slot)
	if b, ok := a.writes[at]; ok {
		return b
	}
	var out []byte
	// An error reads as a missing message, which every caller has to expect.
	_ = a.store.View(func(tx store.Tx) error {
		out = slices.Clone(tx.Get(bucketOwn, at))
		return nil
	})
	return out
}

// load reads the state back from our own messages. It leaves the zero state
// where there is none.
func (a *author) load() error {
	a.authorState = authorState{}
	var record []byte
	var pending [][]byte
	err := a.store.View(func(tx store.Tx) error {
		record = slices.Clone(tx.Get(bucketOwn, a.prefix()+"state"))
		return tx.Each(bucketOwn, a.prefix()+"pending/", func(_ string, v []byte) error {
			pending = append(pending, slices.Clone(v))
			return nil
		})
	})
	if err != nil || record == nil {
		return err
	}
	d := wire.Decoder{B: record}
	a.epoch, a.n, a.headNumber, a.gc = d.U64(), d.U64(), d.U64(), d.U32()
	var want wire.Fingerprint
	copy(want[:], d.Take(len(want)))
	for i := range a.slots {
		for range d.Uvarint(wire.MaxSlot) {
			a.slots[i].limbo = append(a.slots[i].limbo, int(d.Uvarint(wire.MaxSlot)))
		}
	}
	a.public = publicity(d.U8())
	if err := d.End(); err != nil {
		return fmt.Errorf("%w: %w", errOwnRecords, err)
	}
	if err := a.loadPieces(); err != nil {
		return fmt.Errorf("%w: %w", errOwnRecords, err)
	}
	if a.set.fingerprint() != want {
		return fmt.Errorf("%w: the fingerprint differs", errOwnRecords)
	}
	for _, b := range pending {
		d := wire.Decoder{B: b}
		up, down := d.Ops()
		if err := d.End(); err != nil {
			return fmt.Errorf("%w: a pending change: %w", errOwnRecords, err)
		}
		if a.pending == nil {
			a.pending = changes{}
		}
		a.pending.add(up, down)
	}
	a.pendingRecords = len(pending)
	return nil
}

// opened reads one of our messages back, checked as a reader would check it.
func (a *author) opened(k wire.Kind, slot int) (*wire.Message, error) {
	m, err := wire.Open(a.name(k, slot), a.own(k, slot))
	if err == nil && m.Header.Epoch != a.epoch {
		err = errors.New("it is of another epoch")
	}
	if err != nil {
		return nil, fmt.Errorf("%v: %w", a.name(k, slot), err)
	}
	return m, nil
}

func (a *author) loadPieces() error {
	m, err := a.opened(wire.KindHead, 0)
	if err != nil {
		return err
	}
	a.head, a.headIssued, a.headHash = m.Body.(*wire.Head), m.Header.Issued, m.Hash
	a.snapshotN, a.snapshotGC = a.head.SnapshotN, a.head.SnapshotGC
	if a.head.Pieces != nil {
		a.pieces = wire.Pieces{Chunks: slices.Clone(a.head.Pieces.Chunks), Segments: slices.Clone(a.head.Pieces.Segments)}
	} else {
		m, err := a.opened(wire.KindManifest, 0)
		if err != nil {
			return err
		}
		a.pieces = m.Body.(*wire.Manifest).Pieces
	}
	n := len(a.pieces.Chunks)
	a.dirty, a.stale, a.weight = make([]bool, n), make([]int, n), make([]int, n)
	for i, c := range a.pieces.Chunks {
		m, err := a.opened(wire.KindChunk, c.Slot)
		if err != nil {
			return err
		}
		a.slots[ofChunks].use(c.Slot)
		for _, e := range m.Body.(*wire.Chunk).Up {
			a.weight[i]++
			if e.End <= a.gc {
				a.stale[i]++
			}
			e.Said = wire.Minutes(m.Header.Issued)
			a.set.put(&e)
		}
	}
	sealed := a.snapshotN
	for _, s := range a.pieces.Segments {
		a.slots[ofSegments].use(s.Slot)
		if s.To <= a.snapshotN {
			continue
		}
		m, err := a.opened(wire.KindSegment, s.Slot)
		if err != nil {
			return err
		}
		seg := m.Body.(*wire.Segment)
		a.set.apply(seg.GC, seg.Up, seg.Down, wire.Minutes(m.Header.Issued))
		a.touch(seg.Up, seg.Down)
		sealed = s.To
	}
	for n := sealed + 1; n <= a.n; n++ {
		m, err := a.opened(wire.KindDelta, int(n%ring))
		if err != nil {
			return err
		}
		t := m.Body.(*wire.Delta)
		if m.Header.Number != n {
			return fmt.Errorf("delta %d is missing", n)
		}
		a.set.apply(t.GC, t.Up, t.Down, wire.Minutes(m.Header.Issued))
		a.touch(t.Up, t.Down)
		a.unsealed = append(a.unsealed, t)
		a.lastDelta = m.Header.Issued
	}
	a.set.expire(a.gc)
	return nil
}
