package federation

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// How an author writes its feed.
const (
	// ring is the slots of deltas. A reader that missed fewer needs no more
	// than them; with 64 a small feed would join slower.
	ring = 32
	// sealAfter is how many deltas may be in the ring alone: a quarter of the
	// ring is left for readers who are slow to hear of the segment.
	sealAfter = ring * 3 / 4
	// coalesce is how long a ban after the first waits for company.
	coalesce = time.Second
	// headTTL is the freshness limit that heads announce.
	headTTL = 3 * time.Hour
	// headIdle is when a quiet author says that it is alive, headBusy when one
	// that said something does.
	headIdle = headTTL / 3
	headBusy = time.Minute
	// deltaCost bounds a delta's bytes as [cost] reckons them.
	deltaCost = 32 << 10
	// bulkDeltas is from how many deltas on a change is written as a new
	// snapshot instead.
	bulkDeltas = 8
	// chunkCost is a chunk's bytes when it is cut, chunkMost the bytes beyond
	// which one is cut again: [MaxSent] and the envelope are above.
	chunkCost = 32 << 10
	chunkMost = wire.MaxSent - 1024
	// segmentMost is where a segment is full.
	segmentMost = 48 << 10
	// A snapshot is due when the segments since the last are above a quarter
	// of it and above snapshotLeast; old segments are kept up to half of it or
	// twice snapshotLeast, for readers that come back.
	snapshotLeast = 2 << 10
)

// restartsMost is how often an author begins again in one process before it
// takes the messages that it hears for those of another machine with its key.
const restartsMost = 3

// bucketOwn keeps, below "network/topic/", the records that an author must not lose: its
// state record, its pending changes and every retained message verbatim.
const bucketOwn = "own"

// outgoing is a message to publish: retained, unless its name is live. A nil
// payload erases the slot.
type outgoing struct {
	name    wire.Name
	payload []byte
}

// An author writes one feed: the node's own in one topic. Every change is
// durable before it says it. Its methods may be called from several goroutines.
type author struct {
	network   string
	feed      ban.Feed
	key       ed25519.PrivateKey
	store     *store.Store
	card      func() *wire.Card // the operator's newest, which heads name; may give nil
	started   time.Time         // of this process
	restarts  int
	restarted time.Time // when last

	// speaking is held over a change and handing its messages to the links, so
	// that they leave in order. It is taken before the session's lock.
	speaking sync.Mutex

	mu sync.Mutex // taken last
	authorState
}

// authorState is the state that a failed transaction throws away and reads again.
type authorState struct {
	epoch, n, headNumber uint64
	gc                   uint32
	set                  set
	pieces               wire.Pieces
	snapshotN            uint64
	snapshotGC           uint32
	dirty                []bool // by chunk: it differs from the set
	stale                []int  // by chunk: entries that have ended
	weight               []int  // by chunk: entries when it was written
	unsealed             []*wire.Delta
	slots                [2]slots // of chunks and of segments
	pending              changes
	pendingRecords       int
	lastDelta            time.Time
	head                 *wire.Head
	headIssued           time.Time
	headHash             wire.Hash
	toldN                uint64    // the batch of the last head that was told live
	toldAt               time.Time // and when
	public               publicity
	stopped              string // why the author says nothing any more
	writes               map[string][]byte
	out                  []outgoing
}

// openAuthor reads the feed's state back, or begins one. An author whose own
// records contradict each other begins a new epoch with no claims; the caller
// then says its claims again.
func openAuthor(network string, topic ban.Topic, operator ban.Operator, node ed25519.PrivateKey, card func() *wire.Card, s *store.Store, now time.Time) (*author, error) {
	a := &author{network: network, key: node, card: card, store: s, started: now}
	a.feed = ban.Feed{Topic: topic, Operator: operator, Node: ban.NodeOf(node.Public().(ed25519.PublicKey))}
	err := a.load()
	if errors.Is(err, errOwnRecords) {
		a.authorState = authorState{epoch: a.epoch}
		err = s.Update(func(tx store.Tx) error { return tx.DeletePrefix(bucketOwn, a.prefix()) })
		if err == nil {
			err = a.commit(func() { a.newEpoch(now, a.epoch) })
		}
	}
	if err == nil && a.epoch == 0 {
		err = a.commit(func() { a.newEpoch(now, 0) })
	}
	if err != nil {
		return nil, fmt.Errorf("opening the feed of %s: %w", topic, err)
	}
	return a, nil
}

// errOwnRecords says that an author's records contradict each other.
var errOwnRecords = errors.New("the feed's own records are damaged")

func (a *author) prefix() string { return a.network + "/" + string(a.feed.Topic) + "/" }

func (a *author) name(k wire.Kind, slot int) wire.Name {
	return wire.FeedName(a.network, a.feed, k, slot)
}

// storeKey is where a message of ours is kept.
func (a *author) storeKey(k wire.Kind, slot int) string {
	if k.HasSlot() {
		return fmt.Sprintf("%s%v/%d", a.prefix(), k, slot)
	}
	return a.prefix() + k.String()
}

// commit runs f, which changes the state and collects writes, and makes them
// durable together with the state record. If the store fails, the state is
// that of the store.
func (a *author) commit(f func()) error {
	a.writes, a.out = map[string][]byte{}, nil
	f()
	a.writes[a.prefix()+"state"] = a.record()
	err := a.store.Update(func(tx store.Tx) error {
		for k, v := range a.writes {
			var err error
			if v == nil {
				err = tx.Delete(bucketOwn, k)
			} else {
				err = tx.Put(bucketOwn, k, v)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	a.writes = nil
	if err != nil {
		if back := a.load(); back != nil {
			return errors.Join(err, back)
		}
		return fmt.Errorf("keeping the feed of %s: %w", a.feed.Topic, err)
	}
	return nil
}

// taken gives the messages that the last commit wants published.
func (a *author) taken() []outgoing {
	out := a.out
	a.out = nil
	return out
}

// record is the state record: epoch u64, n u64, head number u64, gc u32,
// fingerprint 32, limbo lists, publicity u8.
func (a *author) record() []byte {
	b := binary.BigEndian.AppendUint64(nil, a.epoch)
	b = binary.BigEndian.AppendUint64(b, a.n)
	b = binary.BigEndian.AppendUint64(b, a.headNumber)
	b = binary.BigEndian.AppendUint32(b, a.gc)
	sum := a.set.fingerprint()
	b = append(b, sum[:]...)
	for i := range a.slots {
		b = binary.AppendUvarint(b, uint64(len(a.slots[i].limbo)))
		for _, s := range a.slots[i].limbo {
			b = binary.AppendUvarint(b, uint64(s))
		}
	}
	return append(b, byte(a.public))
}

// send signs a message and has it kept and published.
func (a *author) send(slot int, number uint64, now time.Time, body wire.Body) []byte {
	text := body.Append(nil)
	n := a.name(body.Kind(), slot)
	payload := wire.Seal(a.key, wire.Header{
		Kind: n.Kind, Network: a.network, Topic: a.feed.Topic, Operator: a.feed.Operator, Epoch: a.epoch, Number: number, Issued: now,
	}, text)
	if h, ok := body.(*wire.Head); ok && !h.Stolen && a.set.count > 0 && a.set.count <= wire.MaxState/4 {
		payload = wire.AppendState(payload, a.set.between("", ""))
	}
	a.writes[a.storeKey(n.Kind, slot)] = payload
	// Readers who listen hear it first; it is retained for those who come.
	if n.Kind.HasLive() && n.Kind != wire.KindHead {
		a.out = append(a.out, outgoing{n.Live(), payload})
	}
	a.out = append(a.out, outgoing{n, payload})
	return text
}

// tellHead says the newest head to those who listen.
func (a *author) tellHead(now time.Time, payload []byte) {
	a.out = append(a.out, outgoing{a.name(wire.KindLive, 0), wire.BareHead(payload)})
	a.toldN, a.toldAt = a.n, now
}

// erase forgets a slot here and at the brokers.
func (a *author) erase(k wire.Kind, slot int) {
	a.writes[a.storeKey(k, slot)] = nil
	a.out = append(a.out, outgoing{a.name(k, slot), nil})
}

// tick publishes all that is due: gathered changes, or, where anybody listens, a
// head.
func (a *author) tick(now time.Time, heard bool) ([]outgoing, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dated(now) {
		err := a.commit(func() { a.newEpoch(now, 0) })
		return a.taken(), err
	}
	flush := len(a.pending) > 0 && (now.Before(a.lastDelta) || now.Sub(a.lastDelta) >= coalesce)
	age, told := now.Sub(a.headIssued), now.Sub(a.toldAt)
	head := heard && (a.head == nil || age < 0 || age >= headIdle || a.namesOldCard())
	tell := heard && a.toldN != a.n && (told < 0 || told >= headBusy)
	if !flush && !head && !tell {
		return nil, nil
	}
	err := a.commit(func() {
		if flush {
			a.advance(now, nil, nil)
		}
		switch {
		case a.headIssued == now && a.toldAt == now:
		case head || tell:
			a.sendHead(now)
		}
	})
	return a.taken(), err
}

// namesOldCard says whether the newest head names another card than the one
// that the operator has now.
func (a *author) namesOldCard() bool {
	c := a.card()
	return a.head != nil && c != nil && (c.Serial != a.head.CardSerial || c.Hash != a.head.CardHash)
}

// dated says whether the last message that we signed is so far in the future, now that the
// clock was put right, that no reader would take it.
func (a *author) dated(now time.Time) bool {
	last := now.Add(wire.MaxAhead / 2)
	return a.headIssued.After(last) || a.lastDelta.After(last)
}

// newEpoch begins again above seen, with the state as it is.
func (a *author) newEpoch(now time.Time, seen uint64) {
	a.epoch = nextEpoch(now, max(seen, a.epoch))
	a.gc = wire.Minutes(now) // a clock that was fast must not end claims for ever
	a.n, a.headNumber, a.stopped, a.lastDelta = 0, 0, "", time.Time{}
	a.unsealed = nil
	for slot := range ring {
		if a.own(wire.KindDelta, slot) != nil {
			a.erase(wire.KindDelta, slot)
		}
	}
	a.dropSegments()
	for _, c := range a.pieces.Chunks {
		a.slots[ofChunks].drop(c.Slot)
	}
	a.pieces.Chunks, a.dirty, a.stale, a.weight = nil, nil, nil, nil
	a.setGC(now)
	a.snapshot(now)
	a.sendPieces(now)
	a.sendHead(now)
}

// nextEpoch gives an epoch above seen. The low bits are random, so that a
// machine that forgot an epoch does not begin the same one again.
func nextEpoch(now time.Time, seen uint64) uint64 {
	var b [4]byte
	rand.Read(b[:]) // never fails (Go 1.24)
	low := uint64(binary.BigEndian.Uint32(b[:])) >> (32 - wire.EpochShift)
	return max(uint64(wire.Seconds(now)), seen>>wire.EpochShift+1)<<wire.EpochShift | low
}

// sendHead commits to the state, and tells those who listen.
func (a *author) sendHead(now time.Time) {
	a.keepHead(now)
	a.tellHead(now, a.writes[a.storeKey(wire.KindHead, 0)])
}

// keepHead commits to the state for readers who come: the newest delta is never
// newer than the head that the broker has.
func (a *author) keepHead(now time.Time) {
	a.setGC(now)
	h := &wire.Head{SnapshotN: a.snapshotN, SnapshotGC: a.snapshotGC}
	if a.inline() {
		h.Pieces = &a.pieces
	} else {
		text := a.pieces.Append(nil)
		h.Manifest, h.Size = wire.HashOf(text), uint32(len(text))
	}
	a.sendHeadOf(now, h)
}

// sendHeadOf sends a head after adding the state and the card to it.
func (a *author) sendHeadOf(now time.Time, h *wire.Head) {
	a.headNumber++
	h.N, h.TTL, h.GC, h.Count, h.Fingerprint, h.Ring = a.n, headTTL, a.gc, uint32(a.set.count), a.set.fingerprint(), ring
	if c := a.card(); c != nil {
		h.CardSerial, h.CardHash = c.Serial, c.Hash
	}
	a.headHash = wire.HashOf(a.send(0, a.headNumber, now, h))
	a.head, a.headIssued = h, now
}

func (a *author) inline() bool {
	return len(a.pieces.Chunks) <= wire.MaxInlinePieces && len(a.pieces.Segments) <= wire.MaxInlinePieces
}

// sendPieces publishes the list of pieces after it changed, and erases the
// slots that the list before this one had freed: a reader who holds the head
// before this one still finds all that it names.
func (a *author) sendPieces(now time.Time) {
	for i, k := range [...]wire.Kind{ofChunks: wire.KindChunk, ofSegments: wire.KindSegment} {
		for _, slot := range a.slots[i].turn() {
			a.erase(k, slot)
		}
	}
	if !a.inline() {
		a.send(0, a.headNumber+1, now, &wire.Manifest{Pieces: a.pieces})
	}
}
