package ledger

import (
	"errors"
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// voteOf gives this node's vote of a source, or nil.
func (l *Own) voteOf(p place, s Source) *vote {
	r, ok := l.recordAt(p)
	if !ok {
		return nil
	}
	n, ok := l.sources.numbers[s]
	if !ok {
		return nil
	}
	return l.table.vote(r, n)
}

func (l *book) recordAt(p place) (uint32, bool) {
	topic, ok := l.table.topics[p.topic]
	if !ok {
		return 0, false
	}
	return l.table.find(topic, p.target)
}

// commit makes own records durable, together with the writes of also, then
// lets them take effect.
func (l *Own) commit(records []ownRecord, now time.Time, also func(store.Tx) error) error {
	if len(records) == 0 && also == nil {
		return nil
	}
	encoded := make([][]byte, len(records))
	for i := range records {
		encoded[i] = records[i].append(nil)
	}
	l.journalMu.Lock()
	// Bans that were found before are older than this, and stand before it.
	batch := l.unwritten.take()
	encoded = append(encodedOf(batch), encoded...)
	next := l.ownJournal
	err := l.update(func(tx store.Tx) (err error) {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		next, err = l.ownJournal.write(tx, encoded, l.feeds.own(), func(b []byte) []byte { return l.stillTrue(b, now) })
		return err
	})
	if err == nil {
		l.ownJournal = next
	}
	l.unwritten.done(len(batch), err)
	l.journalMu.Unlock()
	if err != nil {
		return fmt.Errorf("writing own bans: %w", err)
	}
	l.tell(batch)
	wide := map[int]bool{}
	var errs []error
	for i := range records {
		errs = append(errs, l.put(&records[i], now, wide))
	}
	for topic := range wide {
		l.evaluateTopic(topic, now)
	}
	l.notify()
	l.notifyOwn()
	return errors.Join(errs...)
}

// stillTrue gives a journal record back if the ledger holds that claim now.
// A removal has done its work when it is in the oldest page: the record that it
// removed is older.
func (l *Own) stillTrue(b []byte, now time.Time) []byte {
	var o ownRecord
	if o.decode(b) != nil || o.removed {
		return nil
	}
	v := l.voteOf(o.place(), o.source)
	if v == nil || v.since != o.since || !v.says(o.claim) || !v.kept(now) {
		return nil
	}
	if proof := l.proof.of[ownPlace{o.place(), v.feed}]; proof != o.proof {
		o.proof = proof
		return o.append(nil)
	}
	return b
}

// put puts an own record in force.
func (l *Own) put(o *ownRecord, now time.Time, wide map[int]bool) error {
	source, err := l.sources.number(o.source)
	if err != nil {
		return err
	}
	topic := l.table.topic(o.topic)
	if topic < 0 {
		return fmt.Errorf("%w: more than %d topics", ErrTooMany, l.table.bounds.topics)
	}
	if k := o.claim.Target.Kind(); k == ban.KindCIDR4 || k == ban.KindCIDR6 {
		wide[topic] = true
	}
	if o.removed {
		if r, ok := l.table.find(topic, o.claim.Target); ok && l.withdraw(r, source) {
			l.evaluate(r, now)
		}
	} else {
		r, err := l.table.put(topic, o.claim.Target)
		if err != nil {
			return err
		}
		if source != sightingFeed && !l.bansHere(r, now) {
			l.met(topic, o.claim.Target)
			l.history.own(now, o.topic, o.claim)
		}
		l.set(r, source, o)
		l.evaluate(r, now)
	}
	l.ownDirty[o.place()] = o.reason
	return nil
}

func (l *Own) set(r uint32, source uint16, o *ownRecord) {
	v := l.table.vote(r, source)
	if v == nil {
		v = l.table.addVote(r, source)
		l.feeds.list[source].live++
	}
	v.setClaim(o.claim)
	v.since = o.since
	l.proof.put(ownPlace{o.place(), source}, o.proof)
}

// load replays the journal. Verdicts are computed afterwards.
func (l *Own) load(tx store.Tx, now time.Time) error {
	return l.ownJournal.replay(tx, func(b []byte) error {
		var o ownRecord
		if err := o.decode(b); err != nil {
			return err
		}
		topic := l.table.topic(o.topic)
		if topic < 0 {
			return fmt.Errorf("%w: more than %d topics", ErrTooMany, l.table.bounds.topics)
		}
		source, err := l.sources.number(o.source)
		if err != nil {
			return err
		}
		if o.removed || !o.keptAt(now) {
			if r, ok := l.table.find(topic, o.claim.Target); ok && l.withdraw(r, source) && l.table.all.at(r).votes == 0 {
				l.table.drop(r)
			}
			return nil
		}
		r, err := l.table.put(topic, o.claim.Target)
		if err == nil {
			l.set(r, source, &o)
		}
		return err
	})
}
