package federation

import (
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// applyMost is how many claims a change that is emitted has at most, so that
// a join of a million claims needs no second copy of them.
const applyMost = 4096

// effects are the consequences of messages, in the order in which they happen:
// marks become durable, then changes are handed on, then contents become
// durable. So nothing is used before a replay of it would be known, and nothing
// foreign is stored before the ledger has judged it.
type effects struct {
	now      time.Time
	marks    map[place][]byte // nil deletes
	changes  []change
	disputes []disputed
	contents map[ban.Feed]map[place][]byte
	news     bool // a document has changed
}

// place is a key of the store.
type place struct{ bucket, key string }

// mark writes a record that protects against replays, or is our own word.
func (fx *effects) mark(bucket, key string, v []byte) {
	if fx.marks == nil {
		fx.marks = map[place][]byte{}
	}
	fx.marks[place{bucket, key}] = v
}

// keep writes content of a feed; nil deletes.
func (fx *effects) keep(f ban.Feed, key string, v []byte) {
	if fx.contents == nil {
		fx.contents = map[ban.Feed]map[place][]byte{}
	}
	if fx.contents[f] == nil {
		fx.contents[f] = map[place][]byte{}
	}
	fx.contents[f][place{bucketFeeds, key}] = v
}

// putAll writes or deletes in a transaction.
func putAll(tx store.Tx, writes map[place][]byte) error {
	for k, v := range writes {
		var err error
		if v == nil {
			err = tx.Delete(k.bucket, k.key)
		} else {
			err = tx.Put(k.bucket, k.key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
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

// disputed is all that a feed's node disputes now.
type disputed struct {
	feed   ban.Feed
	claims []ban.Claim
}

// emit hands a step on in pieces: additions first, so that nobody who is
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

// emitAll hands the whole state on. Claims that it repeats stay in force
// meanwhile.
func (f *follower) emitAll(fx *effects) {
	i := len(fx.changes)
	var es []wire.Entry
	f.set.each(func(e *wire.Entry) {
		if es = append(es, *e); len(es) == applyMost {
			f.emit(fx, es, nil)
			es = es[:0]
		}
	})
	f.emit(fx, es, nil)
	f.whole(fx, i)
}

// whole says that the changes from i on are the feed's whole state.
func (f *follower) whole(fx *effects, i int) {
	if len(fx.changes) == i {
		fx.changes = append(fx.changes, change{feed: f.feed})
	}
	fx.changes[i].reset = true
	for ; i < len(fx.changes)-1; i++ {
		fx.changes[i].more = true
	}
}
