package federation

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// applyMost is how many claims a change that is emitted has at most, so that
// a join of a million claims needs no second copy of them.
const applyMost = 4096

// A follower is the reading side of one feed: what its author says, as far as
// verified messages tell. It needs no clock but the one it is handed and no
// network: messages come in, what it would like to hear is its plan.
type follower struct {
	network string
	feed    ban.Feed

	// What the author says, up to batch n of epoch. sound says that it is the
	// author's own state there; if not, it is kept until a sound one replaces it.
	epoch, n uint64
	gc       uint32
	set      set
	sound    bool

	// The newest head, and the mark below which heads are replays.
	head       *wire.Head
	headEpoch  uint64
	headNumber uint64
	headHash   wire.Hash
	headIssued time.Time

	manifest *wire.Pieces // of head, where it names one by hash
	pending  pendingDeltas
	recent   map[uint64]wire.Hash // hashes of the last deltas applied, to find others with their number
	join     *join
	segments map[wire.Hash]*wire.Message // fetched for a reader that was away

	level   int // how the plan closes a gap: 0 deltas, 1 segments, 2 chunks
	tries   int
	triedAt time.Time
	wanted  []wire.Name

	// frozen is the epoch in which the author contradicted itself. Nothing of
	// that epoch is believed any more.
	frozen   uint64
	tooLarge bool
	halted   error // revoked or expired
	replays  int
	badState int

	allowed allowance // of messages that are verified
	via     *link     // where the feed was last heard

	disputeEpoch, disputeNumber uint64
	disputeClaims               []ban.Claim

	logKeys    []string
	logBytes   int
	basePieces int
	baseBytes  int
	stored     storedMark
}

// pendingDeltas are deltas that wait for the one before them, of one epoch.
type pendingDeltas struct {
	epoch uint64
	byN   map[uint64]*wire.Message
	bytes int
	last  uint64
}

// effects is what handling messages leads to: writes that must be durable
// before the changes are handed on, in order.
type effects struct {
	now      time.Time
	writes   map[place][]byte // nil deletes
	changes  []change
	disputes []disputed
	news     bool // a document has changed
}

// place is a key of the store.
type place struct{ bucket, key string }

func (fx *effects) write(bucket, key string, v []byte) {
	if fx.writes == nil {
		fx.writes = map[place][]byte{}
	}
	fx.writes[place{bucket, key}] = v
}

// A change is a [ban.Change] that waits to be handed on, in a third of its
// memory: a join of a million claims waits in whole.
type change struct {
	feed        ban.Feed
	reset, more bool
	up          []wire.Entry
	down        []wire.Withdrawal
	last        time.Time // no claim ends later
}

// change gives the change as it is handed on.
func (c *change) change() ban.Change {
	out := ban.Change{Feed: c.feed, Reset: c.reset, More: c.more}
	if len(c.up) > 0 {
		out.Claims = wire.ClaimsOf(c.up)
		for i := range out.Claims {
			if out.Claims[i].End.After(c.last) {
				out.Claims[i].End = c.last
			}
		}
	}
	if len(c.down) > 0 {
		out.Withdrawn = wire.Withdrawals(c.down)
	}
	return out
}

// emit hands a step on in pieces: what is added first, so that nobody who is
// banned before and after is free in between. It keeps neither list.
func (f *follower) emit(fx *effects, up []wire.Entry, down []wire.Withdrawal) {
	last := fx.now.Add(wire.MaxEnd)
	for up := range slices.Chunk(up, applyMost) {
		fx.changes = append(fx.changes, change{feed: f.feed, up: slices.Clone(up), last: last})
	}
	for down := range slices.Chunk(down, applyMost) {
		fx.changes = append(fx.changes, change{feed: f.feed, down: slices.Clone(down)})
	}
}

// receive takes a verified message of the feed whose signer is certified.
func (f *follower) receive(m *wire.Message, fx *effects) {
	if f.frozen >= m.Header.Epoch && f.frozen > 0 {
		return
	}
	switch b := m.Body.(type) {
	case *wire.Head:
		f.onHead(m, b, fx)
	case *wire.Delta:
		f.onDelta(m, fx)
	case *wire.Segment:
		f.onSegment(m, b)
	case *wire.Chunk:
		f.onChunk(m)
	case *wire.Manifest:
		if f.head != nil && f.head.Pieces == nil && m.Hash == f.head.Manifest {
			f.manifest = &b.Pieces
		}
	}
	f.progress(fx)
}

func (f *follower) onHead(m *wire.Message, h *wire.Head, fx *effects) {
	switch c := cmp.Or(cmp.Compare(m.Header.Epoch, f.headEpoch), cmp.Compare(m.Header.Number, f.headNumber)); {
	case c < 0:
		f.replays++
		return
	case c == 0 && f.head != nil:
		if m.Hash != f.headHash {
			f.freeze(m.Header.Epoch, fx)
		}
		return
	case c == 0 && m.Hash != f.headHash:
		f.freeze(m.Header.Epoch, fx)
		return
	}
	if f.head != nil && m.Header.Epoch == f.headEpoch && h.N < f.head.N {
		f.freeze(m.Header.Epoch, fx)
		return
	}
	if f.head == nil || f.head.Manifest != h.Manifest || h.Pieces != nil {
		f.manifest = nil
	}
	f.head, f.headEpoch, f.headNumber, f.headHash, f.headIssued = h, m.Header.Epoch, m.Header.Number, m.Hash, m.Header.Issued
	f.tooLarge = false
	f.storeHead(fx, m)
	if f.sound && f.epoch == f.headEpoch && f.n == h.N {
		f.checkHead(fx)
	}
}

// checkHead compares the state with the head that is about it.
func (f *follower) checkHead(fx *effects) {
	if f.head.GC > f.gc {
		f.gc = f.head.GC
		f.expire(fx, f.gc)
		f.storeMark(fx)
	}
	if f.gc == f.head.GC && f.set.fingerprint() != f.head.Fingerprint {
		f.unsound(fx)
	}
}

// expire takes out what has ended by the author's clock. Where that is ahead
// of ours, we say so: otherwise a claim that the author no longer makes would
// be in force here until our clock gets there.
func (f *follower) expire(fx *effects, gc uint32) {
	if gone := f.set.expire(gc); gc > wire.Minutes(fx.now) {
		f.emit(fx, nil, wire.Ended(gone))
	}
}

// unsound says that the state is not the author's. It stays in force until
// chunks have brought a better one.
func (f *follower) unsound(fx *effects) {
	f.sound = false
	f.badState++
	f.storeMark(fx)
}

// freeze keeps what is there and believes nothing more of the epoch.
func (f *follower) freeze(epoch uint64, fx *effects) {
	f.frozen = max(f.frozen, epoch)
	f.pending = pendingDeltas{}
	f.join, f.segments = nil, nil
	f.storeMark(fx)
}

func (f *follower) onDelta(m *wire.Message, fx *effects) {
	e, n := m.Header.Epoch, m.Header.Number
	switch {
	case e < f.epoch || e < f.headEpoch || n == 0:
		f.replays++
		return
	case e == f.epoch && f.sound && n <= f.n:
		if h, ok := f.recent[n]; ok && h != m.Hash {
			f.freeze(e, fx)
		}
		return
	}
	p := &f.pending
	if e < p.epoch {
		return
	}
	if e > p.epoch || p.byN == nil {
		*p = pendingDeltas{epoch: e, byN: map[uint64]*wire.Message{}}
	}
	if old, ok := p.byN[n]; ok {
		if old.Hash != m.Hash {
			f.freeze(e, fx)
		}
		return
	}
	// A gap that deltas cannot close any more is closed by pieces; then the
	// newest deltas are the ones that count.
	for p.bytes+len(m.Raw) > wire.MaxPendingBytes || len(p.byN) >= wire.MaxRing {
		least := n
		for k := range p.byN {
			least = min(least, k)
		}
		if least == n {
			return
		}
		p.bytes -= len(p.byN[least].Raw)
		delete(p.byN, least)
	}
	p.byN[n], p.bytes, p.last = m, p.bytes+len(m.Raw), max(p.last, n)
}

func (f *follower) onSegment(m *wire.Message, s *wire.Segment) {
	p := f.pieces()
	if p == nil {
		return
	}
	for _, ref := range p.Segments {
		if ref.Hash == m.Hash && ref.From == s.From && ref.To == s.To && m.Header.Epoch == f.headEpoch {
			if f.segments == nil {
				f.segments = map[wire.Hash]*wire.Message{}
			}
			f.segments[m.Hash] = m
		}
	}
}

// pieces gives the newest head's list, or nil while a manifest is missing.
func (f *follower) pieces() *wire.Pieces {
	switch {
	case f.head == nil:
		return nil
	case f.head.Pieces != nil:
		return f.head.Pieces
	}
	return f.manifest
}

// progress goes as far as the messages at hand allow and makes a new plan.
func (f *follower) progress(fx *effects) {
	before := f.wanted
	for range 4 {
		f.drain(fx)
		f.wanted = f.plan(fx)
		if f.advanceSegments(fx) || f.advanceJoin(fx) {
			continue
		}
		break
	}
	if len(f.wanted) == 0 {
		f.level, f.tries = 0, 0
	} else if !slices.Equal(before, f.wanted) {
		f.triedAt = fx.now
	}
}

// drain applies pending deltas that are next.
func (f *follower) drain(fx *effects) {
	for f.sound && f.pending.epoch == f.epoch {
		m, ok := f.pending.byN[f.n+1]
		if !ok {
			break
		}
		t := m.Body.(*wire.Delta)
		f.expire(fx, t.GC)
		f.set.apply(t.GC, t.Up, t.Down, wire.Minutes(fx.now))
		f.n, f.gc = f.n+1, max(f.gc, t.GC)
		f.remember(f.n, m.Hash)
		f.storeLog(fx, f.n, m)
		f.emit(fx, t.Up, t.Down)
		f.level, f.tries = 0, 0
		if f.set.fingerprint() != t.Fingerprint {
			f.unsound(fx)
		} else if f.set.count > wire.MaxFeedClaims {
			f.tooLarge = true
			f.unsound(fx)
		} else if f.epoch == f.headEpoch && f.head != nil && f.n == f.head.N {
			f.checkHead(fx)
		}
	}
	p := &f.pending
	for n, m := range p.byN {
		if p.epoch < f.epoch || p.epoch == f.epoch && f.sound && n <= f.n {
			delete(p.byN, n)
			p.bytes -= len(m.Raw)
		}
	}
	if len(p.byN) == 0 {
		p.last = 0
	}
}

// remember keeps the hashes of as many deltas as any ring holds by default.
func (f *follower) remember(n uint64, h wire.Hash) {
	if f.recent == nil {
		f.recent = map[uint64]wire.Hash{}
	}
	f.recent[n] = h
	delete(f.recent, n-2*ring)
}

// behind says whether the state is not yet what the newest messages say.
func (f *follower) behind() bool {
	if f.head == nil {
		return true
	}
	return !f.sound || f.epoch != f.headEpoch || f.n < f.head.N || f.pending.epoch == f.epoch && f.pending.last > f.n || f.pending.epoch > f.headEpoch && len(f.pending.byN) > 0
}

// plan gives the MQTT topics whose retained messages would help now.
func (f *follower) plan(fx *effects) []wire.Name {
	switch {
	case f.halted != nil || f.frozen > 0 && f.frozen >= f.headEpoch && f.pending.epoch <= f.frozen || f.tooLarge || !f.behind():
		f.join, f.segments = nil, nil
		return nil
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

func (f *follower) name(k wire.Kind, slot int) wire.Name {
	return wire.FeedName(f.network, f.feed, k, slot)
}

// retry says whether it is time to ask again for what is wanted. Each time the
// wait doubles, up to a minute, and the plan tries the next way.
func (f *follower) retry(now time.Time) bool {
	if len(f.wanted) == 0 {
		return false
	}
	wait := min(time.Minute, 2*time.Second<<min(f.tries, 5))
	if f.head == nil && len(f.pending.byN) == 0 {
		// Nothing says that the feed exists; a broker may have lost its head.
		wait = min(15*time.Minute, 15*wait)
	}
	if now.Sub(f.triedAt) < wait && !now.Before(f.triedAt) {
		return false
	}
	f.triedAt = now
	f.tries++
	if f.tries > 1 {
		f.level = min(f.level+1, 2)
	}
	return true
}

// purge drops what was heard at or after since, of a revoked node.
func (f *follower) purge(since time.Time, fx *effects) {
	from := wire.Minutes(since)
	gone := f.set.removeIf(func(p *page, i int) bool { return p.saidOf(i) >= from }, func(*page) bool { return false })
	if len(gone) == 0 {
		return
	}
	f.sound = false
	f.emit(fx, nil, wire.Ended(gone))
	f.storeBase(fx)
}

// A join gathers the pieces of a whole state beside the one in force.
type join struct {
	chunks map[wire.Hash]*wire.Message
	built  bool
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
		f.startJoin(p)
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

// startJoin begins a join, with the pieces of one before that still count.
func (f *follower) startJoin(p *wire.Pieces) {
	j := &join{chunks: map[wire.Hash]*wire.Message{}, epoch: f.headEpoch, from: wire.HashOf(p.Append(nil))}
	old := map[wire.Hash]*wire.Message{}
	if f.join != nil {
		old = f.join.chunks
	}
	for i, c := range p.Chunks {
		if m := old[c.Hash]; m != nil {
			j.chunks[c.Hash] = m
			continue
		}
		if f.set.count == 0 {
			continue
		}
		// What our own state says in this range may be just this chunk.
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
		checked = j.gc != f.head.GC || j.set.fingerprint() == f.head.Fingerprint
	}
	if !checked || j.set.count > wire.MaxFeedClaims {
		f.failJoin(fx)
		return false
	}
	var up []wire.Entry
	var down []wire.Withdrawal
	from := len(fx.changes)
	difference(&f.set, &j.set, func(e *wire.Entry) {
		if up = append(up, *e); len(up) == applyMost {
			f.emit(fx, up, nil)
			up = up[:0]
		}
	}, func(k *ban.Key) { down = append(down, wire.Withdrawal{Key: *k}) })
	f.emit(fx, up, down)
	if f.epoch == 0 { // nothing was heard of it before
		f.whole(fx, from)
	}
	f.epoch, f.n, f.gc, f.set, f.sound = f.headEpoch, j.n, j.gc, j.set, true
	f.recent, f.join, f.level, f.tries = j.hashes, nil, 0, 0
	f.storeBase(fx)
	return true
}

// failJoin gives up pieces that do not add up to what the head says.
func (f *follower) failJoin(fx *effects) {
	f.badState++
	f.join = nil
	f.wanted = []wire.Name{f.name(wire.KindHead, 0)}
}

// status says how the feed stands, in a closed set of words.
func (f *follower) status(now time.Time) string {
	switch {
	case f.halted != nil:
		return f.haltedWord()
	case f.frozen > 0 && f.frozen >= f.headEpoch:
		return StatusEquivocating
	case f.tooLarge:
		return StatusTooLarge
	case f.head == nil && !f.sound:
		return StatusUnseen
	case f.head == nil || now.After(f.headIssued.Add(f.head.TTL)):
		return StatusStale
	case f.behind() && f.tries > 2:
		return StatusWithheld
	case f.behind():
		return StatusJoining
	}
	return StatusSynced
}

func (f *follower) haltedWord() string {
	switch f.halted {
	case wire.ErrRevoked:
		return StatusRevoked
	}
	return StatusUncertified
}

// Words for how a feed stands.
const (
	StatusSynced       = "synced"       // the author's own state
	StatusJoining      = "joining"      // pieces are on their way
	StatusUnseen       = "unseen"       // no broker has anything of it
	StatusStale        = "stale"        // the author, or a broker, has been silent for too long
	StatusWithheld     = "withheld"     // a head names pieces that no broker hands out
	StatusEquivocating = "equivocating" // the key has signed two different stories
	StatusTooLarge     = "too-large"    // it is beyond the limits
	StatusRevoked      = "revoked"      // the operator has revoked the node
	StatusUncertified  = "uncertified"  // the operator's card does not certify the node, or no longer
	StatusCloned       = "cloned"       // own feed: somebody else writes with our key
	StatusWriting      = "writing"      // own feed: as it should be
	StatusPrivate      = "private"      // own feed: kept, not published
)

// feedKey is the prefix of a feed's records in the store.
func feedKey(network string, f ban.Feed) string { return fmt.Sprintf("%s/%s/", network, f) }
