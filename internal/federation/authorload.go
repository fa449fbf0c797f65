package federation

import (
	"errors"
	"fmt"
	"slices"

	"banmesh/internal/store"
	"banmesh/internal/wire"
)

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
	if m, err := a.opened(wire.KindHead, 0); err == nil && m.Body.(*wire.Head).Stolen {
		// Nobody believes this key any more, so nothing is said with it.
		a.head, a.headIssued, a.headHash, a.stopped = m.Body.(*wire.Head), m.Header.Issued, m.Hash, stoppedCloned
		return nil
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
