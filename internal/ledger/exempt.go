package ledger

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

const exemptBucket = "ledger.exempt"

// An Exemption shields a target, and everything that overlaps it.
type Exemption struct {
	Target ban.Target `json:"target"`
	// Topic is the only topic that an unban is about; "" is all of them.
	Topic ban.Topic `json:"topic,omitempty"`
	// Allow shields from every claim, this node's own detection included. An
	// unban (Allow false) shields from the claims of others: a new offence here
	// still bans.
	Allow bool `json:"allow"`
	// Dispute says that others are told, as a signed dispute.
	Dispute bool `json:"dispute,omitempty"`
	// Until is the end; the zero time is never.
	Until   time.Time `json:"until,omitzero"`
	Since   time.Time `json:"since"`
	Comment string    `json:"comment,omitempty"`
}

// Limits and defaults of exemptions.
const (
	// DefaultUnban is how long an unban beats the claims of others.
	DefaultUnban = 7 * 24 * time.Hour
	// maxExemptions bounds what people can allow by hand.
	maxExemptions = 100_000
	maxComment    = 500
)

func (e Exemption) key() string {
	if e.Allow {
		return "allow " + e.Target.String()
	}
	if e.Topic != "" {
		return "unban " + e.Target.String() + " " + string(e.Topic)
	}
	return "unban " + e.Target.String()
}

func (e Exemption) String() string {
	s := "unbanned here"
	if e.Allow {
		s = "allowed here"
	}
	s += ": " + e.Target.String()
	if e.Topic != "" {
		s += " in " + string(e.Topic)
	}
	if !e.Until.IsZero() {
		s += " until " + e.Until.UTC().Format(time.RFC3339)
	}
	if e.Comment != "" {
		s += " (" + e.Comment + ")"
	}
	return s
}

func (e Exemption) over(now time.Time) bool { return !e.Until.IsZero() && !e.Until.After(now) }

// exemptions are what people unbanned and allowed.
type exemptions struct {
	of                map[string]Exemption
	unbanned, allowed shields
	inTopic           map[ban.Topic]shields // unbanned in one topic only
	next              time.Time             // the first end, or zero
}

// shields find an exemption by target.
type shields struct {
	prefixes ban.Prefixes[Exemption]
	others   map[ban.Target]Exemption
}

// Protects implements policy.Protection.
func (s shields) Protects(t ban.Target) (string, bool) {
	if p, ok := t.Prefix(); ok {
		_, e, ok := s.prefixes.Overlaps(p)
		if !ok {
			return "", false
		}
		return e.String(), true
	}
	e, ok := s.others[t]
	if !ok {
		return "", false
	}
	return e.String(), true
}

func (x *exemptions) init() { x.of = map[string]Exemption{} }

func (x *exemptions) load(tx store.Tx, now time.Time) error {
	err := tx.Each(exemptBucket, "", func(key string, value []byte) error {
		var e Exemption
		if err := json.Unmarshal(value, &e); err != nil || e.key() != key {
			return fmt.Errorf("exemption %q: %w", key, ErrCorrupt)
		}
		x.of[key] = e
		return nil
	})
	x.build(now)
	return err
}

// build makes the tables anew, without what is over.
func (x *exemptions) build(now time.Time) {
	x.next = time.Time{}
	for key, e := range x.of {
		if e.over(now) {
			delete(x.of, key)
		} else if !e.Until.IsZero() && (x.next.IsZero() || e.Until.Before(x.next)) {
			x.next = e.Until
		}
	}
	pick := func(allow bool, topic ban.Topic) shields {
		s := shields{others: map[ban.Target]Exemption{}}
		s.prefixes = ban.NewPrefixes(func(yield func(netip.Prefix, Exemption) bool) {
			for _, e := range x.of {
				if e.Allow != allow || e.Topic != topic {
					continue
				}
				if p, ok := e.Target.Prefix(); !ok {
					s.others[e.Target] = e
				} else if !yield(p, e) {
					return
				}
			}
		})
		return s
	}
	x.unbanned, x.allowed = pick(false, ""), pick(true, "")
	x.inTopic = nil
	for _, e := range x.of {
		if _, ok := x.inTopic[e.Topic]; !ok && e.Topic != "" {
			if x.inTopic == nil {
				x.inTopic = map[ban.Topic]shields{}
			}
			x.inTopic[e.Topic] = pick(false, e.Topic)
		}
	}
}

// exempt gives what was unbanned in a topic, or everywhere.
func (x *exemptions) exempt(topic ban.Topic) policy.Protection {
	if s, ok := x.inTopic[topic]; ok {
		return both{s, x.unbanned}
	}
	return x.unbanned
}

// both shields what either does.
type both [2]shields

// Protects implements policy.Protection.
func (b both) Protects(t ban.Target) (string, bool) {
	if why, ok := b[0].Protects(t); ok {
		return why, true
	}
	return b[1].Protects(t)
}

// expire reports whether an exemption ended.
func (x *exemptions) expire(now time.Time) bool {
	if x.next.IsZero() || now.Before(x.next) {
		return false
	}
	x.build(now)
	return true
}

// Unban is [Exemptions.Add] for one target in every topic.
func (l *Exemptions) Unban(target ban.Target, duration time.Duration, comment string) (lifted []Local, err error) {
	return l.Add([]Exemption{{Target: target, Comment: comment}}, duration)
}

// Exempt withdraws, as a mistake, this node's own bans of each exemption's target in its topic, of
// what lies in it and of what it lies in, and shields it from the claims of
// others for a while ([DefaultUnban] if duration is 0). It gives the own bans
// that were lifted. All of them are durable when nil is returned, in one step;
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

// unbannedAt says when a person last lifted the bans of a target in a topic:
// what it did before then is forgiven. It is zero where nobody did.
func (x *exemptions) unbannedAt(topic ban.Topic, target ban.Target) (at time.Time) {
	if _, ok := x.exempt(topic).Protects(target); !ok {
		return at
	}
	// Several may overlap it, and the newest counts.
	prefix, isAddress := target.Prefix()
	for _, e := range x.of {
		if e.Allow || e.Topic != "" && e.Topic != topic || !e.Since.After(at) {
			continue
		}
		if p, ok := e.Target.Prefix(); e.Target == target || ok && isAddress && p.Overlaps(prefix) {
			at = e.Since
		}
	}
	return at
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
			l.credit(r, false)
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

// RemoveExemption ends the exemptions of a target, allow says of which of the two
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

// Exemptions lists what is unbanned and allowed, sorted by target.
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
