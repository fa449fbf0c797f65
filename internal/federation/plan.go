package federation

import (
	"time"

	"banmesh/internal/wire"
)

// behind says whether the state is not yet that of the newest messages.
func (f *follower) behind() bool {
	if f.head == nil {
		return true
	}
	return !f.sound || f.epoch != f.headEpoch || f.n < f.head.N || f.pending.epoch == f.epoch && f.pending.last > f.n || f.pending.epoch > f.headEpoch && len(f.pending.byN) > 0
}

// How feeds of which nothing was heard are asked for by name: first after
// unseenFirst, because their heads come by the filters of the operator, and each
// time for unseenFor.
const (
	unseenFirst = 10 * time.Second
	unseenFor   = 5 * time.Second
)

// recheckMost is how often a head is asked for that may have passed unheard.
const recheckMost = 3

// unseen says that nothing was ever heard of the feed.
func (f *follower) unseen() bool { return f.head == nil && len(f.pending.byN) == 0 }

// asksUnseen says whether an unseen feed is asked for by name now.
func (f *follower) asksUnseen(now time.Time) bool {
	return f.tries > 0 && now.Sub(f.triedAt).Abs() < unseenFor
}

// plan gives the MQTT topics whose retained messages would help now.
func (f *follower) plan(fx *effects) []wire.Name {
	if f.recheck && f.halted == nil && !f.unseen() {
		if f.recheckDispute {
			return []wire.Name{f.name(wire.KindHead, 0), f.name(wire.KindDispute, 0)}
		}
		return []wire.Name{f.name(wire.KindHead, 0)}
	}
	switch {
	case f.halted != nil || f.frozen > 0 && f.frozen >= f.headEpoch && f.pending.epoch <= f.frozen || f.tooLarge || !f.behind():
		f.join, f.segments, f.gathered = nil, nil, nil
		return nil
	case f.unseen():
		return []wire.Name{f.name(wire.KindHead, 0), f.name(wire.KindDispute, 0)}
	case f.head == nil, f.pending.epoch > f.headEpoch && len(f.pending.byN) > 0, f.frozen >= f.headEpoch && f.frozen > 0:
		return []wire.Name{f.name(wire.KindHead, 0)}
	}
	p := f.pieces()
	if f.sound && f.epoch == f.headEpoch {
		goal := max(f.head.N, f.pending.last)
		if f.level == 0 && goal-f.n <= uint64(f.head.Ring) && (f.head.SnapshotN <= f.n || p != nil && covered(p, f.n)) {
			return f.lacking(f.epoch, f.n, goal, uint64(f.head.Ring))
		}
		if p == nil {
			return []wire.Name{f.name(wire.KindManifest, 0)}
		}
		if f.level <= 1 && covered(p, f.n) {
			f.level = 1
			return f.lackingSegments(p, f.n)
		}
		if f.head.N <= f.n {
			// Only deltas above the head are missing; chunks cannot bring them.
			return append(f.lacking(f.epoch, f.n, goal, uint64(f.head.Ring)), f.name(wire.KindHead, 0))
		}
	}
	f.level = 2
	if p == nil {
		return []wire.Name{f.name(wire.KindManifest, 0)}
	}
	return f.planJoin(p, fx)
}

// covered says whether segments lead on from batch n.
func covered(p *wire.Pieces, n uint64) bool {
	return len(p.Segments) > 0 && p.Segments[0].From <= n && n < p.Segments[len(p.Segments)-1].To
}

// lacking gives the slots of the deltas after n up to goal that are not here.
func (f *follower) lacking(epoch, n, goal, ring uint64) (out []wire.Name) {
	for i := n + 1; i <= goal && len(out) < wire.MaxRing; i++ {
		if f.pending.epoch == epoch && f.pending.byN[i] != nil {
			continue
		}
		out = append(out, f.name(wire.KindDelta, int(i%ring)))
	}
	return out
}

func (f *follower) lackingSegments(p *wire.Pieces, n uint64) (out []wire.Name) {
	for _, s := range p.Segments {
		if s.To > n && f.segments[s.Hash] == nil {
			out = append(out, f.name(wire.KindSegment, s.Slot))
		}
	}
	return out
}

// advanceSegments catches up over segments once all that are needed are here.
func (f *follower) advanceSegments(fx *effects) bool {
	p := f.pieces()
	if p == nil || !f.sound || f.epoch != f.headEpoch || f.level != 1 || !covered(p, f.n) || len(f.lackingSegments(p, f.n)) > 0 {
		return false
	}
	for _, ref := range p.Segments {
		if ref.To <= f.n {
			continue
		}
		m := f.segments[ref.Hash]
		s := m.Body.(*wire.Segment)
		f.expire(fx, s.GC)
		f.set.apply(s.GC, s.Up, s.Down, wire.Minutes(fx.now))
		f.n, f.gc = s.To, max(f.gc, s.GC)
		f.storeLog(fx, f.n, m)
		f.emit(fx, s.Up, s.Down)
	}
	f.segments = nil
	f.level, f.tries = 0, 0
	if f.n == f.head.N {
		f.checkHead(fx)
	}
	return true
}

// retry says whether it is time to ask again for the wanted messages. Each time the
// wait doubles, up to a minute, and the plan tries the next way.
func (f *follower) retry(now time.Time) bool {
	if len(f.wanted) == 0 {
		return false
	}
	wait := min(time.Minute, 2*time.Second<<min(f.tries, 5))
	if f.unseen() {
		// Nothing says that the feed exists; a broker may have lost its head, or
		// hand out nothing for a filter with wildcards.
		wait = unseenFirst
		if f.tries > 0 {
			wait = min(15*time.Minute, 30*time.Second<<min(f.tries, 5))
		}
	}
	if now.Sub(f.triedAt) < wait && !now.Before(f.triedAt) {
		return false
	}
	f.triedAt = now
	f.tries++
	if f.tries >= recheckMost {
		f.recheck, f.recheckDispute = false, false
	}
	if f.tries > 1 {
		f.level = min(f.level+1, 2)
	}
	return true
}
