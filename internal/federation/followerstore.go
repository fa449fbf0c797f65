package federation

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// bucketFeeds keeps, below "network/topic/operator/node/", the records of a reader:
//
//	mark      below which heads are replays
//	checked   how far the state was compared with its author's
//	quarantine  why nothing more is taken of the feed
//	head      the newest head, verbatim
//	base      the state at some batch: a record, and base/<i> with entries
//	log/<n>   the deltas and segments since, verbatim
const bucketFeeds = "feeds"

// When the log is rewritten as a base: when it is larger than half of it, and
// at least logLeast, so that small feeds are not rewritten all the time.
const logLeast = 32 << 10

// basePiece is how many entries a stored piece of a base has.
const basePiece = 8192

// storedMark is the record of the newest head that a reader has accepted. Losing it would let
// a broker replay; it is durable before anything is done with a message.
type storedMark struct {
	headEpoch, headNumber uint64
	headHash              wire.Hash
	frozen                uint64
	stolen                bool
}

// storedCheck is how far the state was compared with its author's.
type storedCheck struct {
	gc    uint32
	sound bool
}

func (f *follower) key(k string) string { return feedKey(f.network, f.feed) + k }

func (f *follower) storeMark(fx *effects) {
	if m := (storedMark{f.headEpoch, f.headNumber, f.headHash, f.frozen, f.stolen}); m != f.stored {
		f.stored = m
		b := binary.BigEndian.AppendUint64(nil, m.headEpoch)
		b = binary.BigEndian.AppendUint64(b, m.headNumber)
		b = append(b, m.headHash[:]...)
		b = binary.BigEndian.AppendUint64(b, m.frozen)
		fx.mark(bucketFeeds, f.key("mark"), appendBool(b, m.stolen))
	}
	if c := (storedCheck{f.gc, f.sound}); c != f.checked {
		f.checked = c
		fx.keep(f.feed, f.key("checked"), appendBool(binary.BigEndian.AppendUint32(nil, c.gc), c.sound))
	}
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func (f *follower) storeHead(fx *effects, m *wire.Message) {
	f.storeMark(fx)
	fx.mark(bucketFeeds, f.key("head"), m.Raw)
}

// storeLog keeps a delta or segment that leads to batch n.
func (f *follower) storeLog(fx *effects, n uint64, m *wire.Message) {
	if f.logBytes+len(m.Raw) > max(logLeast, f.baseBytes/2) {
		f.storeBase(fx)
		return
	}
	k := fmt.Sprintf("log/%016x", n)
	f.logKeys = append(f.logKeys, k)
	f.logBytes += len(m.Raw)
	fx.keep(f.feed, f.key(k), append(binary.BigEndian.AppendUint32(nil, wire.Minutes(fx.now)), m.Raw...))
}

// storeBase writes the whole state and forgets the log.
func (f *follower) storeBase(fx *effects) {
	for _, k := range f.logKeys {
		fx.keep(f.feed, f.key(k), nil)
	}
	f.logKeys, f.logBytes = nil, 0
	for i := range f.basePieces {
		fx.keep(f.feed, f.key(fmt.Sprintf("base/%06x", i)), nil)
	}
	f.basePieces, f.baseBytes = 0, 0
	var es []wire.Entry
	flush := func() {
		b := wire.AppendEntries(nil, es)
		for i := range es {
			b = binary.BigEndian.AppendUint32(b, es[i].Said)
		}
		fx.keep(f.feed, f.key(fmt.Sprintf("base/%06x", f.basePieces)), b)
		f.basePieces++
		f.baseBytes += len(b)
		es = es[:0]
	}
	f.set.each(func(e *wire.Entry) {
		if es = append(es, *e); len(es) == basePiece {
			flush()
		}
	})
	if len(es) > 0 {
		flush()
	}
	b := binary.BigEndian.AppendUint64(nil, f.epoch)
	b = binary.BigEndian.AppendUint64(b, f.n)
	b = binary.BigEndian.AppendUint32(b, f.gc)
	sum := f.set.fingerprint()
	b = append(b, sum[:]...)
	b = binary.BigEndian.AppendUint32(b, uint32(f.basePieces))
	fx.keep(f.feed, f.key("base"), b)
	f.storeMark(fx)
}

// drop deletes the state and disputes but keeps the mark: a message that was
// heard once is a replay for ever.
func (f *follower) drop(fx *effects) {
	f.set, f.sound, f.epoch, f.n, f.gc = set{}, false, 0, 0, 0
	f.disputeClaims = nil
	f.pending, f.join, f.segments, f.wanted = pendingDeltas{}, nil, nil, nil
	f.settle()
	f.storeBase(fx)
	fx.keep(f.feed, f.key("base"), nil)
	fx.keep(f.feed, f.key("dispute"), nil)
	fx.mark(bucketFeeds, f.key("head"), nil)
}

// forget is drop for a feed that is followed no longer; a quarantine ends.
func (f *follower) forget(fx *effects) {
	f.drop(fx)
	fx.keep(f.feed, f.key("quarantine"), nil)
}

// errFeedRecords says that a feed's records contradict each other; its marks
// may still be good.
var errFeedRecords = errors.New("the stored feed is damaged")

// load reads the feed back. After errFeedRecords the follower begins without a
// state, but with the marks where they could be read.
func (f *follower) load(tx store.Tx) error {
	if b := tx.Get(bucketFeeds, f.key("mark")); b != nil {
		d := wire.Decoder{B: b}
		m := storedMark{headEpoch: d.U64(), headNumber: d.U64()}
		copy(m.headHash[:], d.Take(len(m.headHash)))
		m.frozen, m.stolen = d.U64(), d.U8() == 1
		if err := d.End(); err != nil {
			return fmt.Errorf("%w: mark: %w", errFeedRecords, err)
		}
		f.stored = m
		f.headEpoch, f.headNumber, f.headHash, f.frozen, f.stolen = m.headEpoch, m.headNumber, m.headHash, m.frozen, m.stolen
	}
	if b := tx.Get(bucketFeeds, f.key("checked")); b != nil {
		d := wire.Decoder{B: b}
		f.checked = storedCheck{d.U32(), d.U8() == 1}
		if err := d.End(); err != nil {
			return fmt.Errorf("%w: checked: %w", errFeedRecords, err)
		}
	}
	f.quarantined = string(tx.Get(bucketFeeds, f.key("quarantine")))
	if raw := tx.Get(bucketFeeds, f.key("dispute")); raw != nil {
		if m, err := wire.Open(f.name(wire.KindDispute, 0), slices.Clone(raw)); err == nil {
			f.disputeEpoch, f.disputeNumber, f.disputeClaims = m.Header.Epoch, m.Header.Number, m.Body.(*wire.Dispute).Claims()
		}
	}
	if err := f.loadState(tx); err != nil {
		f.set, f.sound, f.epoch, f.n, f.gc = set{}, false, 0, 0, 0
		return fmt.Errorf("%w: %w", errFeedRecords, err)
	}
	if raw := tx.Get(bucketFeeds, f.key("head")); raw != nil {
		m, err := wire.Open(f.name(wire.KindHead, 0), slices.Clone(raw))
		if err != nil || m.Hash != f.headHash {
			return nil // asked for again from the brokers
		}
		f.head, f.headIssued = m.Body.(*wire.Head), m.Header.Issued
	}
	return nil
}

func (f *follower) loadState(tx store.Tx) error {
	b := tx.Get(bucketFeeds, f.key("base"))
	if b == nil {
		return nil
	}
	d := wire.Decoder{B: b}
	f.epoch, f.n, f.gc = d.U64(), d.U64(), d.U32()
	var want wire.Fingerprint
	copy(want[:], d.Take(len(want)))
	pieces := int(d.U32())
	if err := d.End(); err != nil {
		return err
	}
	for i := range pieces {
		b := tx.Get(bucketFeeds, f.key(fmt.Sprintf("base/%06x", i)))
		d := wire.Decoder{B: b}
		es := d.Entries(basePiece)
		for i := range es {
			es[i].Said = d.U32()
			f.set.put(&es[i])
		}
		if err := d.End(); err != nil {
			return err
		}
		f.baseBytes += len(b)
	}
	f.basePieces = pieces
	if f.set.fingerprint() != want {
		return errors.New("the fingerprint differs")
	}
	f.sound = f.checked.sound
	err := tx.Each(bucketFeeds, f.key("log/"), func(k string, raw []byte) error {
		return f.replay(k[len(f.key("")):], slices.Clone(raw))
	})
	if err != nil {
		return err
	}
	if f.checked.gc > f.gc {
		f.gc = f.checked.gc
		f.set.expire(f.gc)
	}
	return nil
}

// replay applies a stored delta or segment, verified again. The value is the
// minute in which it was heard, u32, and the payload.
func (f *follower) replay(k string, value []byte) error {
	d := wire.Decoder{B: value}
	said := d.U32()
	raw := d.B
	h, err := wire.Peek(raw)
	if err != nil {
		return err
	}
	m, err := wire.OpenAnySlot(f.name(h.Kind, 0), raw)
	if err != nil {
		return err
	}
	switch b := m.Body.(type) {
	case *wire.Delta:
		if h.Epoch != f.epoch || h.Number != f.n+1 {
			return fmt.Errorf("%s does not follow batch %d", k, f.n)
		}
		f.set.apply(b.GC, b.Up, b.Down, said)
		f.n, f.gc = f.n+1, max(f.gc, b.GC)
		f.remember(f.n, m.Hash)
		if f.set.fingerprint() != b.Fingerprint && f.sound {
			return fmt.Errorf("%s: the fingerprint differs", k)
		}
	case *wire.Segment:
		if h.Epoch != f.epoch || b.From > f.n || b.To <= f.n {
			return fmt.Errorf("%s does not follow batch %d", k, f.n)
		}
		f.set.apply(b.GC, b.Up, b.Down, said)
		f.n, f.gc = b.To, max(f.gc, b.GC)
	default:
		return fmt.Errorf("%s is a %v", k, h.Kind)
	}
	f.logKeys = append(f.logKeys, k)
	f.logBytes += len(raw)
	return nil
}
