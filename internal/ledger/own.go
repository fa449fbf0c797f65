package ledger

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

const ownBucket = "ledger.own"

// Evidence is why this node banned a target. It is for people and never leaves
// the node.
type Evidence struct {
	By     string `json:"by,omitempty"`     // the filter, "manual", the name of a list
	Source string `json:"source,omitempty"` // which log
	Sample string `json:"sample,omitempty"` // a line of it
}

// evidence keeps the newest pieces of evidence, bounded.
type evidence struct {
	of    map[place]Evidence
	order []place
}

// maxEvidence is how many own bans can be shown with a log line.
const maxEvidence = 10_000

func (e *evidence) init() { e.of = map[place]Evidence{} }

func (e *evidence) put(p place, proof Evidence) {
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
	Claim    ban.Claim
	Evidence Evidence
}

// BanLocal bans a target by this node's own decision. It is durable when nil
// is returned. It fails with [ErrNeverBan], [ErrAllowed] or [ErrEnded],
// wrapped, for what cannot be banned. A ban of a target that is banned already
// is only ever lengthened; its hits are the greater of the two.
func (l *Ledger) BanLocal(topic ban.Topic, claim ban.Claim, proof Evidence) error {
	refused, err := l.BanAll([]Local{{topic, claim, proof}})
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

// BanAll is [Ledger.BanLocal] for many in one durable step. It gives those that
// cannot be banned; with an error none is.
func (l *Ledger) BanAll(bans []Local) (refused []Refused, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	records := make([]ownRecord, 0, len(bans))
	for i, b := range bans {
		err := l.mayBan(b.Claim.Target, b.Claim.End, now)
		if err == nil {
			_, err = ban.ParseTopic(string(b.Topic))
		}
		if err != nil {
			refused = append(refused, Refused{i, fmt.Errorf("%s: %w", b.Claim.Target, err)})
			continue
		}
		o := ownRecord{place: place{b.Topic, b.Claim.Target}, end: seconds(b.Claim.End), since: seconds(now), hits: b.Claim.Hits, proof: b.Evidence}
		v := vote{}
		v.setClass(b.Claim.Class)
		v.set(flagEstablished, b.Claim.Established)
		o.flags = v.flags
		if old := l.ownVote(o.place); old != nil {
			o.end, o.hits = max(o.end, old.end), max(o.hits, old.hits)
			o.flags |= old.flags & flagEstablished
		}
		records = append(records, o)
	}
	return refused, l.commitOwn(records, now, nil)
}

// mayBan refuses what local decisions cannot ban.
func (l *Ledger) mayBan(t ban.Target, end, now time.Time) error {
	if t.IsZero() {
		return ban.ErrTarget
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
	return nil
}

func (l *Ledger) ownVote(p place) *vote {
	topic, ok := l.table.topics[p.topic]
	if !ok {
		return nil
	}
	r, ok := l.table.find(topic, p.target)
	if !ok {
		return nil
	}
	return l.table.vote(r, ownFeed)
}

// commitOwn makes own records durable, together with what also writes, then
// lets them take effect.
func (l *Ledger) commitOwn(records []ownRecord, now time.Time, also func(store.Tx) error) error {
	encoded := make([][]byte, len(records))
	for i := range records {
		encoded[i] = records[i].append(nil)
	}
	next := l.own
	err := l.update(func(tx store.Tx) (err error) {
		if also != nil {
			if err := also(tx); err != nil {
				return err
			}
		}
		next, err = l.own.write(tx, encoded, l.feeds.list[ownFeed].live, func(b []byte) []byte { return l.stillTrue(b, now) })
		return err
	})
	if err != nil {
		return fmt.Errorf("writing own bans: %w", err)
	}
	l.own = next
	wide := map[int]bool{}
	for i := range records {
		if err := l.takeOwn(&records[i], now, wide); err != nil {
			return err
		}
	}
	for topic := range wide {
		l.evaluateTopic(topic, now)
	}
	l.notify()
	l.notifyOwn()
	return nil
}

// stillTrue gives a journal record back if it is what the ledger holds now.
// A removal has done its work when it is in the oldest page: what it removed
// is older.
func (l *Ledger) stillTrue(b []byte, now time.Time) []byte {
	var o ownRecord
	if o.decode(b) != nil || o.removed {
		return nil
	}
	v := l.ownVote(o.place)
	if v == nil || v.end != o.end || v.since != o.since || v.hits != o.hits || int64(v.end) <= now.Unix() {
		return nil
	}
	if l.proof.of[o.place] != o.proof {
		o.proof = l.proof.of[o.place]
		return o.append(nil)
	}
	return b
}

// takeOwn puts an own record in force.
func (l *Ledger) takeOwn(o *ownRecord, now time.Time, wide map[int]bool) error {
	topic := l.table.topic(o.topic)
	if topic < 0 {
		return fmt.Errorf("%w: more than %d topics", ErrTooMany, maxTopics)
	}
	if k := o.target.Kind(); k == ban.KindCIDR4 || k == ban.KindCIDR6 {
		wide[topic] = true
	}
	if o.removed {
		if r, ok := l.table.find(topic, o.target); ok && l.withdraw(r, ownFeed) {
			l.evaluate(r, now)
		}
	} else {
		r, err := l.table.put(topic, o.target)
		if err != nil {
			return err
		}
		if l.table.vote(r, ownFeed) == nil {
			l.credit(r, true)
			l.history.own(now, o)
		}
		l.setOwn(r, o)
		l.evaluate(r, now)
	}
	l.ownDirty[o.place] = struct{}{}
	return nil
}

func (l *Ledger) setOwn(r uint32, o *ownRecord) {
	v := l.table.vote(r, ownFeed)
	if v == nil {
		v = l.table.addVote(r, ownFeed)
		l.feeds.list[ownFeed].live++
	}
	v.end, v.since, v.hits = o.end, o.since, o.hits
	v.flags = o.flags
	l.proof.put(o.place, o.proof)
}

// loadOwn replays the journal. Verdicts are computed afterwards.
func (l *Ledger) loadOwn(tx store.Tx, now time.Time) error {
	return l.own.replay(tx, func(b []byte) error {
		var o ownRecord
		if err := o.decode(b); err != nil {
			return err
		}
		topic := l.table.topic(o.topic)
		if topic < 0 {
			return fmt.Errorf("%w: more than %d topics", ErrTooMany, maxTopics)
		}
		if o.removed || int64(o.end) <= now.Unix() {
			if r, ok := l.table.find(topic, o.target); ok && l.withdraw(r, ownFeed) {
				l.table.drop(r)
			}
			return nil
		}
		r, err := l.table.put(topic, o.target)
		if err == nil {
			l.setOwn(r, &o)
		}
		return err
	})
}

// Own gives this node's own claims in a topic that are in force, sorted: what
// its feed should say.
func (l *Ledger) Own(topic ban.Topic) []ban.Claim {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return nil
	}
	now := l.now().Unix()
	var claims []ban.Claim
	for r := range l.table.records(t) {
		if v := l.table.vote(r, ownFeed); v != nil && int64(v.end) > now {
			if target := l.table.target(r); l.mayTell(target) {
				claims = append(claims, v.claim(target))
			}
		}
	}
	slices.SortFunc(claims, ban.Claim.Compare)
	return claims
}

// mayTell says whether an own claim is for others' eyes: a private address that
// this node banned means nothing elsewhere, or someone else.
func (l *Ledger) mayTell(t ban.Target) bool {
	if l.peers == nil {
		return true
	}
	_, never := l.peers.Protects(t)
	return !never
}

func (v *vote) claim(t ban.Target) ban.Claim {
	return ban.Claim{Target: t, End: time.Unix(int64(v.end), 0), Class: v.class(), Hits: v.hits, Established: v.has(flagEstablished)}
}

// OwnChange is what changed of this node's own claims in a topic.
type OwnChange struct {
	Topic   ban.Topic
	Claims  []ban.Claim
	Removed []ban.Target
}

// OwnChanged receives a value when there is something for
// [Ledger.TakeOwn].
func (l *Ledger) OwnChanged() <-chan struct{} { return l.ownReady }

// TakeOwn gives what changed of the own claims since the last call, by topic
// and sorted. Claims that ended by themselves are not among it. What was taken
// and not published because of a crash shows as a difference to [Ledger.Own].
func (l *Ledger) TakeOwn() []OwnChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now().Unix()
	by := map[ban.Topic]*OwnChange{}
	for p := range l.ownDirty {
		c := by[p.topic]
		if c == nil {
			c = &OwnChange{Topic: p.topic}
			by[p.topic] = c
		}
		if v := l.ownVote(p); v != nil && int64(v.end) > now && l.mayTell(p.target) {
			c.Claims = append(c.Claims, v.claim(p.target))
		} else {
			c.Removed = append(c.Removed, p.target)
		}
	}
	clear(l.ownDirty)
	list := make([]OwnChange, 0, len(by))
	for _, c := range by {
		slices.SortFunc(c.Claims, ban.Claim.Compare)
		slices.SortFunc(c.Removed, ban.Target.Compare)
		list = append(list, *c)
	}
	slices.SortFunc(list, func(a, b OwnChange) int {
		if a.Topic < b.Topic {
			return -1
		}
		return 1
	})
	return list
}

func (l *Ledger) notifyOwn() {
	if len(l.ownDirty) > 0 {
		select {
		case l.ownReady <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}
