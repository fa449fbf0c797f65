package ledger

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
)

// Own is the claims of this node, durable, by source.
type Own struct{ *book }

const ownBucket = "ledger.own"

// Evidence is why this node banned a target. It is for people and never leaves
// the node.
type Evidence struct {
	By     string `json:"by,omitempty"`     // the filter, or who
	Source string `json:"source,omitempty"` // which log
	Sample string `json:"sample,omitempty"` // a line of it
}

// evidence keeps the newest pieces of evidence, bounded.
type evidence struct {
	of    map[ownPlace]Evidence
	order []ownPlace
}

// ownPlace names an own claim.
type ownPlace struct {
	place
	source uint16
}

// maxEvidence is how many own bans can be shown with a log line.
const maxEvidence = 10_000

func (e *evidence) init() { e.of = map[ownPlace]Evidence{} }

func (e *evidence) put(p ownPlace, proof Evidence) {
	if proof == (Evidence{}) {
		return
	}
	if _, ok := e.of[p]; !ok {
		if len(e.order) >= maxEvidence {
			delete(e.of, e.order[0])
			e.order = e.order[1:]
		}
		e.order = append(e.order, p)
	}
	e.of[p] = proof
}

// Local is a decision of this node.
type Local struct {
	Topic    ban.Topic
	Source   Source // "": [SourceDetection]
	Claim    ban.Claim
	At       time.Time // when the offence was that it rests on; zero: now
	Evidence Evidence
}

// Ban bans a target by this node's own decision. It is durable when nil is
// returned. It fails with [ErrNeverBan], [ErrAllowed], [ErrUnbanned] or
// [ErrEnded], wrapped, for a target that cannot be banned. A claim of its source is only
// ever lengthened; its hits are the greater of the two.
func (l *Own) Ban(b Local) error {
	refused, err := l.BanAll([]Local{b})
	if err == nil && len(refused) > 0 {
		err = refused[0].Err
	}
	return err
}

// Refused is a ban of a list that was not made.
type Refused struct {
	Index int // of the ban in the list
	Err   error
}

// BanAll is [Own.Ban] for many in one durable step. It gives those that
// cannot be banned; with an error none is.
func (l *Own) BanAll(bans []Local) (refused []Refused, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	records := make([]ownRecord, 0, len(bans))
	for i := range bans {
		o, err := l.recordOf(bans[i], now)
		if err != nil {
			refused = append(refused, Refused{i, fmt.Errorf("%s: %w", bans[i].Claim.Target, err)})
			continue
		}
		records = append(records, o)
	}
	return refused, l.commit(records, now, nil)
}

// recordOf gives the record of a ban, or why it cannot be made. The lock is held.
func (l *Own) recordOf(b Local, now time.Time) (o ownRecord, err error) {
	if b.Source == "" {
		b.Source = SourceDetection
	}
	if b.At.IsZero() || b.At.After(now) {
		b.At = now
	}
	if err := l.mayBan(&b, now); err != nil {
		return o, err
	}
	o = ownRecord{topic: b.Topic, source: b.Source, claim: b.Claim, since: seconds(b.At), proof: b.Evidence}
	if v := l.voteOf(o.place(), b.Source); v != nil && v.inForce(b.At) {
		old := v.claim(b.Claim.Target)
		if old.End.After(o.claim.End) {
			o.claim.End = old.End
		}
		o.claim.Hits = max(o.claim.Hits, old.Hits)
		o.claim.Established = o.claim.Established || old.Established
		o.since = min(o.since, v.since)
	}
	return o, nil
}

// mayBan refuses targets that local decisions cannot ban.
func (l *Own) mayBan(b *Local, now time.Time) error {
	t, end := b.Claim.Target, b.Claim.End
	if t.IsZero() {
		return ban.ErrTarget
	}
	if _, err := ban.ParseTopic(string(b.Topic)); err != nil {
		return err
	}
	if _, err := ParseSource(string(b.Source)); err != nil {
		return err
	}
	if _, err := l.sources.number(b.Source); err != nil {
		return err
	}
	if l.table.topic(b.Topic) < 0 {
		return fmt.Errorf("%w: more than %d topics", ErrTooMany, l.table.bounds.topics)
	}
	if b.Source == SourceSighting {
		end = b.At.Add(claimsCount)
	}
	if !end.After(now) || !end.Before(endOfTime) {
		return ErrEnded
	}
	if l.never != nil {
		if why, ok := l.never.Protects(t); ok {
			return fmt.Errorf("%w: %s", ErrNeverBan, why)
		}
	}
	if why, ok := l.exempt.allowed.Protects(t); ok {
		return fmt.Errorf("%w: %s", ErrAllowed, why)
	}
	return l.forgiven(b)
}

// forgiven refuses a target that a person unbanned. A person bans it again, and so
// does an offence after the unban; another program's ban or a list does not while
// the unban lasts: it may rest on forgiven offences.
func (l *Own) forgiven(b *Local) error {
	if b.Source == SourceHand {
		return nil
	}
	at := l.exempt.unbannedAt(b.Topic, b.Claim.Target)
	if at.IsZero() || (b.Source == SourceDetection || b.Source == SourceNamed || b.Source == SourceSighting) && b.At.After(at) {
		return nil
	}
	return fmt.Errorf("%w at %s", ErrUnbanned, at.UTC().Format(time.RFC3339))
}

// A Selection names own claims.
type Selection struct {
	Targets []ban.Target // nil: every target
	Topic   ban.Topic    // "": every topic
	Source  Source       // "": every source
}

// Withdraw ends own claims and nothing else: it shields nobody. It gives those
// that it ended; the claims of other sources stay. Readers are told the reason.
// It is durable when nil is returned.
func (l *Own) Withdraw(w Selection, reason ban.Reason) (withdrawn []Local, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var records []ownRecord
	take := func(topic int, r uint32) {
		for v := range l.table.votesOf(r) {
			if !isOwn(v.feed) || w.Source != "" && l.sources.names[v.feed] != w.Source {
				continue
			}
			b := l.local(topic, r, v)
			withdrawn = append(withdrawn, b)
			records = append(records, b.removal(reason))
		}
	}
	for topic, x := range l.table.byTopic {
		if w.Topic != "" && w.Topic != x.name {
			continue
		}
		if w.Targets == nil {
			for r := range l.table.records(topic) {
				take(topic, r)
			}
		}
		seen := map[ban.Target]bool{}
		for _, t := range w.Targets {
			if r, ok := l.table.find(topic, t); ok && !seen[t] {
				seen[t] = true
				take(topic, r)
			}
		}
	}
	if err := l.commit(records, l.now(), nil); err != nil {
		return nil, err
	}
	sortLocal(withdrawn)
	return withdrawn, nil
}

// removal gives the record that ends a decision.
func (b *Local) removal(reason ban.Reason) ownRecord {
	return ownRecord{topic: b.Topic, source: b.Source, claim: ban.Claim{Target: b.Claim.Target}, removed: true, reason: reason}
}

// local gives an own vote as the decision that it came from.
func (l *Own) local(topic int, r uint32, v *vote) Local {
	p := place{l.table.byTopic[topic].name, l.table.target(r)}
	return Local{
		Topic: p.topic, Source: l.sources.names[v.feed], Claim: v.claim(p.target), At: time.Unix(int64(v.since), 0),
		Evidence: l.proof.of[ownPlace{p, v.feed}],
	}
}
