package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// pending are the records about peers that are not on disk yet: arrivals, and
// those that changed.
type pending struct {
	arrivals  []voteAt
	feeds     []uint16
	operators map[ban.Operator]struct{}
	budgets   map[budgetKey]struct{}
	forgotten []string // keys of feeds that say nothing any longer
	saved     time.Time
	// touched are records whose verdicts wait until the arrival of their claims
	// is on disk; topics those in which other targets are concerned too, and all
	// says that every verdict is due.
	touched []uint32
	topics  map[int]struct{}
	all     bool
}

// saveEvery is how often counters that decide nothing are written.
const saveEvery = time.Minute

func (p *pending) feed(n uint16, f *feeds) {
	if !f.list[n].changed {
		f.list[n].changed = true
		p.feeds = append(p.feeds, n)
	}
}

func (p *pending) operator(o ban.Operator) {
	if p.operators == nil {
		p.operators = map[ban.Operator]struct{}{}
	}
	p.operators[o] = struct{}{}
}

func (p *pending) budget(k budgetKey) {
	if p.budgets == nil {
		p.budgets = map[budgetKey]struct{}{}
	}
	p.budgets[k] = struct{}{}
}

// empty says that a write would change nothing but the clock.
func (p *pending) empty() bool {
	return len(p.arrivals)+len(p.feeds)+len(p.operators)+len(p.budgets)+len(p.forgotten) == 0
}

func (p *pending) loadClock(tx store.Tx, now time.Time) (away time.Duration) {
	if b := tx.Get(clockBucket, "saved"); len(b) == 8 {
		last := time.Unix(int64(binary.LittleEndian.Uint64(b)), 0)
		const most = 30 * 24 * time.Hour // a clock that jumped is no reason to believe everything
		away = min(max(0, now.Sub(last)), most)
	}
	p.saved = now
	return away
}

// save writes the pending records about peers, together with the writes of also, in
// one transaction. When it fails everything stays pending.
func (l *Peers) save(now time.Time, also func(store.Tx) error) error {
	f := &l.feeds
	p := &f.pending
	if l.store != nil {
		records := l.encodeArrivals(p.arrivals)
		next := f.journal
		err := l.store.Update(func(tx store.Tx) (err error) {
			if also != nil {
				if err := also(tx); err != nil {
					return err
				}
			}
			if err := l.saveRecords(tx, now); err != nil {
				return err
			}
			next, err = f.journal.write(tx, records, l.table.live-f.own(), l.stillArrived)
			return err
		})
		if err != nil {
			return fmt.Errorf("writing what is known of peers: %w", err)
		}
		f.journal = next
	}
	for _, n := range p.feeds {
		f.list[n].changed = false
	}
	p.arrivals, p.feeds, p.forgotten, p.saved = nil, p.feeds[:0], nil, now
	clear(p.operators)
	clear(p.budgets)
	return nil
}

// saveRecords writes the records of feeds, operators and budgets that changed.
func (l *Peers) saveRecords(tx store.Tx, now time.Time) error {
	p := &l.feeds.pending
	put := func(bucket, key string, record any) error {
		value, err := json.Marshal(record)
		if err != nil {
			return err
		}
		return tx.Put(bucket, key, value)
	}
	for _, key := range p.forgotten {
		if err := tx.Delete(feedsBucket, key); err != nil {
			return err
		}
	}
	for _, n := range p.feeds {
		state := &l.feeds.list[n]
		if err := put(feedsBucket, state.feed.String(), feedRecord{n}); err != nil {
			return err
		}
	}
	for o := range p.operators {
		if err := put(operatorsBucket, o.String(), l.feeds.operators[o]); err != nil {
			return err
		}
	}
	for k := range p.budgets {
		b := l.feeds.budgets[k]
		if err := put(budgetsBucket, k.String(), budgetRecord{&b.standing, &b.Spent}); err != nil {
			return err
		}
	}
	return tx.Put(clockBucket, "saved", binary.LittleEndian.AppendUint64(nil, uint64(max(0, now.Unix()))))
}

// touch remembers that a record's verdict is due after the next save.
func (p *pending) touch(l *book, r uint32) {
	if l.loading {
		return
	}
	if l.isWide(r) {
		if p.topics == nil {
			p.topics = map[int]struct{}{}
		}
		p.topics[int(l.table.all.at(r).topic)] = struct{}{}
	}
	if n := len(p.touched); n == 0 || p.touched[n-1] != r { // several feeds often say the same
		p.touched = append(p.touched, r)
	}
}

// settle lets saved claims take effect.
func (l *Peers) settle(now time.Time) {
	p := &l.feeds.pending
	touched, topics, all := p.touched, p.topics, p.all
	p.touched, p.topics, p.all = nil, nil, false
	if all {
		l.evaluateAll(now)
	} else {
		for _, r := range touched {
			if l.table.all.at(r).kind != ban.KindNone {
				l.evaluate(r, now)
			}
		}
		for topic := range topics {
			l.evaluateTopic(topic, now)
		}
	}
	l.notify()
}

// tidy lets claims in that waited for time or room, and writes pending records.
// The lock is held.
func (l *Peers) tidy(now time.Time) {
	f := &l.feeds
	if len(f.known) > 0 && now.Sub(f.opened) > forget {
		clear(f.known)
	}
	l.openGuards(now)
	for key, b := range f.budgets {
		if len(b.queue)+len(b.decisions) > 0 {
			l.release(key, b, now)
		}
	}
	if err := l.history.flush(); err != nil {
		l.log.Error("the history is not written", "error", err)
	}
	p := &f.pending
	if len(p.arrivals)+len(p.touched) > 0 || p.all || now.Sub(p.saved) >= saveEvery {
		if err := l.save(now, nil); err != nil {
			l.log.Error("what is known of peers is not written", "error", err)
			return
		}
		l.settle(now)
	}
}
