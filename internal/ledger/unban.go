package ledger

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// Unban is [Exemptions.Add] for one target in every topic.
func (l *Exemptions) Unban(target ban.Target, duration time.Duration, comment string) (lifted []Local, err error) {
	return l.Add([]Exemption{{Target: target, Comment: comment}}, duration)
}

// Add withdraws, as a mistake, this node's own bans of each exemption's target in
// its topic, of targets inside it and of prefixes around it, and shields it from
// the claims of others for a while ([DefaultUnban] if duration is 0). It gives the
// own bans that were lifted. All of them are durable when nil is returned, in one step;
// with an error none is in force.
func (l *Exemptions) Add(list []Exemption, duration time.Duration) (lifted []Local, err error) {
	if duration <= 0 {
		duration = DefaultUnban
	}
	now := l.now()
	list = slices.Clone(list)
	for i := range list {
		list[i].Allow, list[i].Until = false, now.Add(duration)
	}
	return l.shield(list, now)
}

// Allow shields a target from every ban, those in force included, until a time
// (zero: until it is removed). It gives the own bans that were lifted.
func (l *Exemptions) Allow(target ban.Target, until time.Time, comment string) (lifted []Local, err error) {
	now := l.now()
	return l.shield([]Exemption{{Target: target, Allow: true, Until: until, Comment: comment}}, now)
}

// check refuses an exemption that cannot be kept.
func (e Exemption) check(now time.Time) error {
	switch {
	case e.Target.IsZero():
		return ban.ErrTarget
	case e.over(now):
		return ErrEnded
	case len(e.Comment) > maxComment:
		return fmt.Errorf("a comment has at most %d bytes", maxComment)
	}
	return nil
}

func (l *Exemptions) shield(list []Exemption, now time.Time) (lifted []Local, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	values := map[string][]byte{}
	room := maxExemptions - len(l.exempt.of)
	for i := range list {
		e := &list[i]
		e.Since = now
		if err := e.check(now); err != nil {
			return nil, err
		}
		if _, known := l.exempt.of[e.key()]; !known && values[e.key()] == nil {
			room--
		}
		if values[e.key()], err = json.Marshal(e); err != nil {
			return nil, fmt.Errorf("writing an exemption: %w", err)
		}
	}
	if room < 0 {
		return nil, fmt.Errorf("%w: %d exemptions", ErrTooMany, maxExemptions)
	}
	records, lifted := l.ownUnder(list)
	if err := l.own.commit(records, now, func(tx store.Tx) error {
		for key, value := range values {
			if err := tx.Put(exemptBucket, key, value); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	for _, e := range list {
		l.exempt.of[e.key()] = e
	}
	l.exempt.build(now)
	for _, e := range list {
		l.eachUnder(e, func(_ int, r uint32) {
			l.credit(r, false, nil)
			l.evaluate(r, now)
		})
	}
	l.notify()
	sortLocal(lifted)
	return lifted, nil
}

// eachUnder calls f for the records that an exemption is about. f may drop the
// record.
func (l *Exemptions) eachUnder(e Exemption, f func(topic int, r uint32)) {
	for topic, x := range l.table.byTopic {
		if e.Topic == "" || e.Topic == x.name {
			l.overlapping(topic, e.Target, func(r uint32) { f(topic, r) })
		}
	}
}

// ownUnder gives the removals of the own bans that exemptions lift, each once,
// and the bans.
func (l *Exemptions) ownUnder(list []Exemption) (records []ownRecord, lifted []Local) {
	seen := map[uint32]bool{}
	for _, e := range list {
		l.eachUnder(e, func(topic int, r uint32) {
			if seen[r] {
				return
			}
			seen[r] = true
			for v := range l.table.votesOf(r) {
				if isOwn(v.feed) {
					b := l.own.local(topic, r, v)
					lifted = append(lifted, b)
					records = append(records, b.removal(ban.ReasonMistake))
				}
			}
		})
	}
	return records, lifted
}

// overlapping calls f for the records of a topic whose targets overlap target.
// f may drop the record.
func (l *book) overlapping(topic int, target ban.Target, f func(uint32)) {
	var hits []uint32
	if r, ok := l.table.find(topic, target); ok {
		hits = append(hits, r)
	}
	l.table.around(topic, target, func(r uint32) { hits = append(hits, r) })
	l.table.inside(topic, target, func(r uint32) { hits = append(hits, r) })
	for _, r := range hits {
		if l.table.all.at(r).kind != ban.KindNone {
			f(r)
		}
	}
}

// Remove ends the exemptions of a target, allow says of which of the two
// kinds, an unban in whatever topic. It fails with [ErrUnknown] if there is none.
func (l *Exemptions) Remove(target ban.Target, allow bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var keys []string
	for key, e := range l.exempt.of {
		if e.Target == target && e.Allow == allow {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return fmt.Errorf("%s: %w", target, ErrUnknown)
	}
	if err := l.update(func(tx store.Tx) error {
		for _, key := range keys {
			if err := tx.Delete(exemptBucket, key); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("removing an exemption: %w", err)
	}
	for _, key := range keys {
		delete(l.exempt.of, key)
	}
	now := l.now()
	l.exempt.build(now)
	for topic := range l.table.byTopic {
		l.overlapping(topic, target, func(r uint32) { l.evaluate(r, now) })
	}
	l.notify()
	return nil
}

// List gives the unbans and allowances in force, sorted by target.
func (l *Exemptions) List() []Exemption {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	list := make([]Exemption, 0, len(l.exempt.of))
	for _, e := range l.exempt.of {
		if !e.over(now) {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b Exemption) int {
		if c := a.Target.Compare(b.Target); c != 0 {
			return c
		}
		if a.Allow != b.Allow {
			if a.Allow {
				return -1
			}
			return 1
		}
		return strings.Compare(string(a.Topic), string(b.Topic))
	})
	return list
}
