package federation

import (
	"time"

	"banmesh/internal/wire"
)

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

// snapshot writes the chunks that no longer agree with the set, and leaves
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
