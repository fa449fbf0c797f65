package federation

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A follower is the reading side of one feed: its author's claims, as far as
// verified messages tell. It needs no clock but the one it is handed and no
// network: messages come in, and its plan is the messages that it would like to hear.
type follower struct {
	network string
	feed    ban.Feed

	// The author's claims, up to batch n of epoch. sound says that it is the
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
	gathered map[wire.Hash]*wire.Message // by a join that has to begin anew
	joinNext time.Time                   // no join begins before
	joinWait time.Duration
	segments map[wire.Hash]*wire.Message // fetched for a reader that was away

	level          int // how the plan closes a gap: 0 deltas, 1 segments, 2 chunks
	tries          int
	triedAt        time.Time
	recheckDispute bool // and the disputes
	recheck        bool // the head is asked for: messages may have passed unheard
	wanted         []wire.Name
	asked          map[wire.Name]bool // wanted, as a set

	// frozen is the epoch in which the author contradicted itself. Nothing of
	// that epoch is believed any more.
	frozen      uint64
	stolen      bool // the author has said that somebody else has its key
	tooLarge    bool
	halted      error  // revoked or expired
	quarantined string // why this node takes nothing more of it; durable
	replays     int
	badState    int
	wrongStates int // behind heads, whoever put them there

	account *account // of the operator
	counted account  // this feed's share of it

	allowed allowance // of verified heads, deltas and disputes
	pieced  allowance // of verified pieces
	joins   allowance
	epochs  epochs
	via     *link // where the feed was last heard

	disputeEpoch, disputeNumber uint64
	disputeClaims               []ban.Claim

	logKeys    []string
	logBytes   int
	basePieces int
	baseBytes  int
	stored     storedMark
	checked    storedCheck
}

// pendingDeltas are deltas that wait for the one before them, of one epoch.
type pendingDeltas struct {
	epoch uint64
	byN   map[uint64]*wire.Message
	bytes int
	last  uint64
}

// receive takes a verified message of the feed whose signer is certified.
func (f *follower) receive(m *wire.Message, fx *effects) {
	f.epochs.notice(f, m, fx.now)
	if f.stolen || f.frozen >= m.Header.Epoch && f.frozen > 0 {
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
	f.recheck = false
	if h.Stolen {
		f.stolen = true
		f.freeze(m.Header.Epoch, fx)
		return
	}
	switch c := cmp.Or(cmp.Compare(m.Header.Epoch, f.headEpoch), cmp.Compare(m.Header.Number, f.headNumber)); {
	case c < 0:
		f.replays++
		return
	case c == 0 && f.head != nil:
		if m.Hash != f.headHash {
			f.freeze(m.Header.Epoch, fx)
			return
		}
		f.takeState(m, fx)
		return
	case c == 0 && m.Hash != f.headHash:
		f.freeze(m.Header.Epoch, fx)
		return
	}
	if f.head != nil && m.Header.Epoch == f.headEpoch && h.N < f.head.N {
		f.freeze(m.Header.Epoch, fx)
		return
	}
	if m.Header.Epoch > f.headEpoch && !f.epochs.begin(m, f.headEpoch == 0, fx.now) {
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
	f.takeState(m, fx)
}

// checkHead compares the state with the head that is about it.
func (f *follower) checkHead(fx *effects) {
	if f.head.GC > f.gc {
		f.gc = f.head.GC
		f.expire(fx, f.gc)
		f.storeMark(fx)
	}
	switch {
	case f.gc > f.head.GC:
		// Claims that the author has ended it ended before this head. A head that says
		// otherwise could not be compared, and two readers could hold different
		// states under it.
		f.freeze(f.headEpoch, fx)
	case f.set.fingerprint() != f.head.Fingerprint:
		f.unsound(fx)
	}
}

// expire takes out the claims that have ended by the author's clock. Where that is ahead
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

// freeze keeps the present state and believes nothing more of the epoch.
func (f *follower) freeze(epoch uint64, fx *effects) {
	f.frozen = max(f.frozen, epoch)
	f.pending = pendingDeltas{}
	f.join, f.segments, f.gathered = nil, nil, nil
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
	for !f.roomForDelta(memoryOf(m)) || len(p.byN) >= wire.MaxRing {
		least := n
		for k := range p.byN {
			least = min(least, k)
		}
		if least == n {
			return
		}
		p.bytes -= memoryOf(p.byN[least])
		delete(p.byN, least)
	}
	p.byN[n], p.bytes, p.last = m, p.bytes+memoryOf(m), max(p.last, n)
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
	defer f.settle()
	before := f.wanted
	for range 4 {
		f.drain(fx)
		f.wanted = f.plan(fx)
		if f.advanceSegments(fx) || f.advanceJoin(fx) {
			continue
		}
		break
	}
	clear(f.asked)
	for _, n := range f.wanted {
		if f.asked == nil {
			f.asked = map[wire.Name]bool{}
		}
		f.asked[n] = true
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
		} else if !f.roomForClaims(f.set.count) {
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
			p.bytes -= memoryOf(m)
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

func (f *follower) name(k wire.Kind, slot int) wire.Name {
	return wire.FeedName(f.network, f.feed, k, slot)
}

// purge drops claims that were heard at or after since, of a revoked node.
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

// feedKey is the prefix of a feed's records in the store.
func feedKey(network string, f ban.Feed) string { return fmt.Sprintf("%s/%s/", network, f) }

func newFollower(network string, feed ban.Feed) *follower {
	return &follower{
		network: network, feed: feed, account: &account{}, allowed: allowance{burst: rateBurst, second: rateSecond}, pieced: allowance{burst: pieceBurst, second: pieceSecond},
		epochs: epochs{allowed: allowance{burst: epochBurst, second: epochSecond}}, joins: allowance{burst: joinBurst, second: joinSecond},
	}
}

// onDispute takes a newer list of disputes.
func (f *follower) onDispute(m *wire.Message, d *wire.Dispute, fx *effects) {
	f.recheckDispute = false
	e, n := m.Header.Epoch, m.Header.Number
	switch {
	case e < f.disputeEpoch || e == f.disputeEpoch && n < f.disputeNumber:
		f.replays++
		return
	case e == f.disputeEpoch && n == f.disputeNumber:
		return
	}
	f.disputeEpoch, f.disputeNumber, f.disputeClaims = e, n, d.Claims()
	fx.keep(f.feed, f.key("dispute"), m.Raw)
	fx.disputes = append(fx.disputes, disputed{f.feed, f.disputeClaims})
}

// wants says whether a message of this name is asked for now.
func (f *follower) wants(n wire.Name) bool { return f.asked[n] }

// wake goes on with a head or join that had to wait.
func (f *follower) wake(fx *effects) {
	if m := f.epochs.due(fx.now); m != nil {
		f.receive(m, fx)
	}
	if j := f.join; j != nil && fx.now.Sub(j.began).Abs() > joinMostOf {
		f.join, f.segments = nil, nil
		f.joinNext = fx.now.Add(joinMost)
		f.settle()
	}
	if !f.joinNext.IsZero() && !fx.now.Before(f.joinNext) {
		f.joinNext = time.Time{}
		f.progress(fx)
	}
}

// afford charges a verified message that was not heard before.
func (f *follower) afford(k wire.Kind, payload []byte, now time.Time) bool {
	if k.IsPiece() {
		return f.pieced.take(now, 1)
	}
	return f.allowed.take(now, messageCost(payload))
}
