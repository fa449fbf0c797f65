package ledger

import (
	"encoding/binary"
	"fmt"
	"slices"

	"banmesh/internal/ban"
)

// arrived is an entry of the journal of arrivals, about a claim that a feed will
// repeat after a start: when it arrived, and whether it waits.
type arrived struct {
	key   ban.Key
	since uint32
	hold  hold
}

// arrivals are those of one feed, sorted by key once all are known.
type arrivals []arrived

// settle sorts the arrivals; of those of one key the last that was written
// counts.
func (a arrivals) settle() arrivals {
	slices.SortStableFunc(a, func(x, y arrived) int { return ban.CompareKeys(&x.key, &y.key) })
	kept := a[:0]
	for i := range a {
		if i+1 == len(a) || a[i+1].key != a[i].key {
			kept = append(kept, a[i])
		}
	}
	return slices.Clip(kept)
}

// find gives the arrival of a key.
func (a arrivals) find(k *ban.Key) (arrived, bool) {
	i, ok := slices.BinarySearchFunc(a, k, func(x arrived, k *ban.Key) int { return ban.CompareKeys(&x.key, k) })
	if !ok {
		return arrived{}, false
	}
	return a[i], true
}

// An arrival record is about claims of one feed that arrived in one second and
// wait, or do not, for the same: the feed's number, the second, the hold and a
// key for each.
const arrivalHead = 2 + 4 + 1

// voteAt names a vote.
type voteAt struct {
	record uint32
	feed   uint16
}

func appendArrivalHead(b []byte, feed uint16, since uint32, h hold) []byte {
	b = binary.LittleEndian.AppendUint16(b, feed)
	b = binary.LittleEndian.AppendUint32(b, since)
	return append(b, byte(h))
}

// eachArrival reads an arrival record.
func eachArrival(b []byte, f func(feed uint16, a arrived)) error {
	if len(b) <= arrivalHead || b[6] > byte(rejected) {
		return fmt.Errorf("an arrival: %w", ErrCorrupt)
	}
	feed := binary.LittleEndian.Uint16(b)
	a := arrived{since: binary.LittleEndian.Uint32(b[2:]), hold: hold(b[6])}
	for rest := b[arrivalHead:]; len(rest) > 0; {
		var ok bool
		if a.key, rest, ok = cutKey(rest); !ok {
			return fmt.Errorf("an arrival: %w", ErrCorrupt)
		}
		f(feed, a)
	}
	return nil
}

// weighArrivals counts the claims of an arrival record.
func weighArrivals(b []byte) (n int) {
	_ = eachArrival(b, func(uint16, arrived) { n++ }) // a damaged record was refused when it was read
	return n
}

// encodeArrivals gives the records for votes as they are now; those that are
// gone need none.
func (l *Peers) encodeArrivals(pending []voteAt) (records [][]byte) {
	var b []byte
	var head [arrivalHead]byte
	for _, p := range pending {
		rec := l.table.all.at(p.record)
		if rec.kind == ban.KindNone || l.table.topicName(p.record) != l.feeds.list[p.feed].feed.Topic {
			continue
		}
		v := l.table.vote(p.record, p.feed)
		if v == nil {
			continue
		}
		k := ban.KeyOf(l.table.target(p.record))
		now := [arrivalHead]byte(appendArrivalHead(nil, p.feed, v.since, v.hold()))
		if b == nil || now != head || len(b)+1+len(k.Bytes()) > maxEntry {
			if b != nil {
				records = append(records, b)
			}
			head = now
			b = append(make([]byte, 0, arrivalHead+1+len(k.Bytes())), head[:]...)
		}
		b = appendKey(b, &k)
	}
	if b != nil {
		records = append(records, b)
	}
	return records
}

// stillArrived gives the part of an arrival record that is still true: of claims
// that the ledger holds now, or that a feed not replayed yet will repeat.
func (l *Peers) stillArrived(b []byte) (kept []byte) {
	_ = eachArrival(b, func(n uint16, a arrived) { // it was checked when it was read or written
		if !l.knows(n, &a) {
			return
		}
		if kept == nil {
			kept = append(kept, b[:arrivalHead]...)
		}
		kept = appendKey(kept, &a.key)
	})
	return kept
}

func (l *Peers) knows(n uint16, a *arrived) bool {
	if int(n) >= len(l.feeds.list) {
		return false
	}
	feed := l.feeds.list[n].feed
	if waiting, ok := l.feeds.known[feed].find(&a.key); ok && waiting == *a {
		return true
	}
	topic, ok := l.table.topics[feed.Topic]
	if !ok {
		return false
	}
	target, err := a.key.Target()
	if err != nil {
		return false
	}
	r, ok := l.table.find(topic, target)
	if !ok {
		return false
	}
	v := l.table.vote(r, n)
	return v != nil && v.since == a.since && v.hold() == a.hold
}
