package federation

import (
	"fmt"
	"slices"
	"sort"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// say makes changes durable. The first change after a quiet time is published
// at once, those after it are gathered for a moment.
func (a *author) say(now time.Time, up []wire.Entry, down []wire.Withdrawal) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	up, down = a.news(now, up, down)
	if len(up)+len(down) == 0 {
		return nil, nil
	}
	if len(a.pending) > 0 || now.Sub(a.lastDelta) < coalesce && !now.Before(a.lastDelta) {
		if err := a.commit(func() { a.gatherLater(up, down) }); err != nil {
			return nil, err
		}
		if len(a.pending) < wire.MaxDeltaOps {
			return nil, nil
		}
		up, down = nil, nil
	}
	err := a.commit(func() { a.advance(now, up, down) })
	return a.taken(), err
}

// news drops changes that would change nothing.
func (a *author) news(now time.Time, up []wire.Entry, down []wire.Withdrawal) ([]wire.Entry, []wire.Withdrawal) {
	last := wire.Minutes(now.Add(wire.MaxEnd))
	up = slices.DeleteFunc(up, func(e wire.Entry) bool {
		if was, ok := a.pending[e.Key]; ok {
			return was.entry != nil && was.entry.End == e.End && was.entry.Meta == e.Meta
		}
		was, ok := a.set.get(&e.Key)
		return ok && was.End == min(e.End, last) && was.Meta == e.Meta
	})
	down = slices.DeleteFunc(down, func(w wire.Withdrawal) bool {
		if was, ok := a.pending[w.Key]; ok {
			return was.entry == nil
		}
		_, ok := a.set.get(&w.Key)
		return !ok
	})
	return up, down
}

// gatherLater keeps changes for the next delta.
func (a *author) gatherLater(up []wire.Entry, down []wire.Withdrawal) {
	if a.pending == nil {
		a.pending = changes{}
	}
	a.pending.add(up, down)
	a.pendingRecords++
	a.writes[a.pendingKey(a.pendingRecords)] = wire.AppendOps(nil, up, down)
}

func (a *author) pendingKey(i int) string { return fmt.Sprintf("%spending/%08x", a.prefix(), i) }

// sayAll makes the feed say exactly es, which are sorted.
func (a *author) sayAll(now time.Time, es []wire.Entry) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	var want set
	gc, last := wire.Minutes(now), wire.Minutes(now.Add(wire.MaxEnd))
	for i := range es {
		es[i].End = min(es[i].End, last)
		if es[i].End > gc {
			want.put(&es[i])
		}
	}
	if want.fingerprint() == a.set.fingerprint() && want.count == a.set.count && len(a.pending) == 0 {
		return nil, nil
	}
	err := a.commit(func() {
		a.gather()
		a.set.expire(gc)
		a.setGC(now)
		var up []wire.Entry
		var down []wire.Withdrawal
		difference(&a.set, &want, func(e *wire.Entry) { up = append(up, *e) }, func(k *ban.Key) {
			// A feed has whole minutes, rounded up: a claim that lasts for the rest of
			// this one has ended where it was said, and ends by itself.
			if e, _ := a.set.get(k); e.End > gc+1 {
				down = append(down, wire.Withdrawal{Key: *k})
			}
		})
		a.advance(now, up, down)
	})
	return a.taken(), err
}

// setGC is expiry up to now, with the chunks' stale entries counted.
func (a *author) setGC(now time.Time) {
	a.gc = max(a.gc, wire.Minutes(now))
	for _, k := range a.set.expire(a.gc) {
		if i := a.chunkOf(&k); i >= 0 {
			a.stale[i]++
		}
	}
}

// gather takes the pending changes out, sorted.
func (a *author) gather() (up []wire.Entry, down []wire.Withdrawal) {
	for i := 1; i <= a.pendingRecords; i++ {
		a.writes[a.pendingKey(i)] = nil
	}
	up, down = a.pending.step()
	a.pending, a.pendingRecords = nil, 0
	return up, down
}

// cost is the bytes that an entry takes on the wire, roughly and rather too much.
func cost(k *ban.Key) int {
	switch k.Kind {
	case ban.KindAddr4:
		return 6
	case ban.KindNet6:
		return 10
	}
	return ban.KeyWidth(k.Kind) + 5
}

// advance writes pending and new changes as deltas, and everything that follows from
// that: segments, a snapshot, a head.
func (a *author) advance(now time.Time, up []wire.Entry, down []wire.Withdrawal) {
	if a.dated(now) {
		a.newEpoch(now, 0)
	}
	u, d := a.gather()
	if len(u)+len(d) > 0 && len(up)+len(down) > 0 {
		a.gatherLater(u, d)
		a.gatherLater(up, down)
		up, down = a.gather()
	} else if len(u)+len(d) > 0 {
		up, down = u, d
	}
	a.setGC(now)
	last := wire.Minutes(now.Add(wire.MaxEnd))
	for i := range up {
		up[i].End = min(up[i].End, last)
	}
	for _, e := range up {
		if _, ok := a.set.get(&e.Key); ok && e.End <= a.gc {
			down = append(down, wire.Withdrawal{Key: e.Key})
		}
	}
	up = slices.DeleteFunc(up, func(e wire.Entry) bool { return e.End <= a.gc })
	down = slices.DeleteFunc(down, func(w wire.Withdrawal) bool { _, ok := a.set.get(&w.Key); return !ok })
	slices.SortFunc(down, wire.CompareWithdrawals)
	batches := divide(up, down)
	if len(batches) > bulkDeltas {
		a.bulk(now, up, down)
		return
	}
	for _, t := range batches {
		a.n++
		t.GC = a.gc
		a.set.apply(a.gc, t.Up, t.Down, wire.Minutes(now))
		a.touch(t.Up, t.Down)
		t.Fingerprint = a.set.fingerprint()
		a.send(int(a.n%ring), a.n, now, t)
		a.unsealed = append(a.unsealed, t)
		a.lastDelta = now
	}
	if len(a.unsealed) >= sealAfter {
		a.sealSegments(now)
		if a.snapshotDue() {
			a.snapshot(now)
		}
		a.sendPieces(now)
	}
	if len(batches) > 0 {
		a.keepHead(now)
	}
}

// divide cuts changes into deltas.
func divide(up []wire.Entry, down []wire.Withdrawal) (out []*wire.Delta) {
	for len(up)+len(down) > 0 {
		t, total, ops := &wire.Delta{}, 0, 0
		i := 0
		for ; i < len(up) && total < deltaCost && ops < wire.MaxDeltaOps; i++ {
			total += cost(&up[i].Key)
			ops++
		}
		t.Up, up = up[:i:i], up[i:]
		i = 0
		for ; i < len(down) && total < deltaCost && ops < wire.MaxDeltaOps; i++ {
			total += cost(&down[i].Key)
			ops++
		}
		t.Down, down = down[:i:i], down[i:]
		out = append(out, t)
	}
	return out
}

// bulk writes a change that is too big for deltas: the next number has no
// delta, but a snapshot.
func (a *author) bulk(now time.Time, up []wire.Entry, down []wire.Withdrawal) {
	a.n++
	a.set.apply(a.gc, up, down, wire.Minutes(now))
	a.touch(up, down)
	a.lastDelta = now
	a.unsealed = nil
	a.dropSegments()
	a.snapshot(now)
	a.sendPieces(now)
	a.sendHead(now)
}

// chunkOf is the chunk that a key belongs to, -1 where there is none.
func (a *author) chunkOf(k *ban.Key) int {
	t := k.Text()
	return sort.Search(len(a.pieces.Chunks), func(i int) bool { return a.pieces.Chunks[i].Lo > t }) - 1
}

func (a *author) touch(up []wire.Entry, down []wire.Withdrawal) {
	for i := range up {
		if c := a.chunkOf(&up[i].Key); c >= 0 {
			a.dirty[c] = true
		}
	}
	for i := range down {
		if c := a.chunkOf(&down[i].Key); c >= 0 {
			a.dirty[c] = true
		}
	}
}
