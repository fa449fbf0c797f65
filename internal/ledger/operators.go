package ledger

import (
	"fmt"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// operator is the record of one.
type operator struct {
	Strikes    []Strike    `json:"strikes,omitempty"`
	Total      int         `json:"strikes_total,omitempty"`
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Met        int         `json:"met,omitempty"`       // offenders here that it had claimed before
	Overruled  int         `json:"overruled,omitempty"` // claims that a person unbanned here
	// Withdrawn counts the claims that it withdrew before they ended, by reason.
	Withdrawn map[ban.Reason]int `json:"withdrawn,omitempty"`
	// Excused says that a person released it from [QuarantineGuests].
	Excused bool `json:"excused,omitempty"`
}

// withdrew counts a withdrawal; a reason that this version does not know is
// [ban.ReasonEnded], so there are few.
func (o *operator) withdrew(reason ban.Reason) {
	if reason > ban.ReasonAppeal {
		reason = ban.ReasonEnded
	}
	if o.Withdrawn == nil {
		o.Withdrawn = map[ban.Reason]int{}
	}
	o.Withdrawn[reason]++
}

// A Strike is an operator's claim of something that must never be banned.
type Strike struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	At     time.Time  `json:"at"`
	Why    string     `json:"why"`
}

// Quarantine is why an operator's claims count for nothing, though it is
// trusted.
type Quarantine struct {
	Since  time.Time        `json:"since"`
	Reason QuarantineReason `json:"reason"`
	// Feed names the feed ("topic/operator/node") that exceeded a limit.
	Feed    string `json:"feed,omitempty"`
	Comment string `json:"comment,omitempty"` // a person's
}

// A QuarantineReason says why an operator is quarantined. The set is closed.
type QuarantineReason string

// The reasons.
const (
	QuarantineByHand   QuarantineReason = "by-hand"
	QuarantineStrikes  QuarantineReason = "strikes"  // it claimed targets that must never be banned
	QuarantineDisputes QuarantineReason = "disputes" // a feed disputes more targets than any may
	QuarantineFeeds    QuarantineReason = "feeds"    // it has more feeds than any may
	QuarantineTargets  QuarantineReason = "targets"  // the ledger is full
	QuarantineTopics   QuarantineReason = "topics"   // the ledger has no room for another topic
	QuarantineGuests   QuarantineReason = "guests"   // its claims are of guests far more often than the core's
)

// A Trouble is an operator that is quarantined, or claims more than is kept.
type Trouble struct {
	Operator   ban.Operator
	Quarantine *Quarantine // nil: none
	Dropped    int         // claims that are not kept
}

// Troubles lists the operators in trouble that the rules name or that are heard,
// by identity. It costs a look at every feed and none at the claims.
func (l *Peers) Troubles() (list []Trouble) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	found := map[ban.Operator]*Trouble{}
	at := func(o ban.Operator) *Trouble {
		if found[o] == nil {
			found[o] = &Trouble{Operator: o}
		}
		return found[o]
	}
	for _, state := range l.feeds.peers {
		if state.dropped > 0 {
			at(state.feed.Operator).Dropped += state.dropped
		}
	}
	for o, known := range l.feeds.operators {
		if _, named := l.policy.Name(o); known.Quarantine != nil && (named || l.feeds.nodes[o] > 0) {
			at(o).Quarantine = known.Quarantine
		}
	}
	for _, t := range found {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b Trouble) int { return slices.Compare(a.Operator[:], b.Operator[:]) })
	return list
}

// maxStrikes is how many strikes are kept to be shown.
const maxStrikes = 20

func (f *feeds) operator(o ban.Operator) *operator {
	p := f.operators[o]
	if p == nil {
		p = &operator{}
		f.operators[o] = p
	}
	return p
}

// strike keeps a strike, unless it is one that is known: the same target
// within a day is one strike, also over a restart.
func (o *operator) strike(s Strike) bool {
	for _, old := range o.Strikes {
		if old.Target == s.Target && s.At.Sub(old.At) < policy.StrikeWindow {
			return false
		}
	}
	if len(o.Strikes) >= maxStrikes {
		o.Strikes = o.Strikes[1:]
	}
	o.Strikes = append(o.Strikes, s)
	o.Total++
	return true
}

func (o *operator) recent(now time.Time) (n int) {
	for _, s := range o.Strikes {
		if now.Sub(s.At) < policy.StrikeWindow {
			n++
		}
	}
	return n
}

func (f *feeds) markQuarantine(o ban.Operator, on bool) {
	f.pending.operator(o)
	for _, state := range f.peers {
		if state.feed.Operator == o {
			state.quarantined = on
		}
	}
}

// quarantineFor quarantines the operator of a feed, for a reason that no person
// gave. One that is quarantined already stays so for the first reason.
func (l *Peers) quarantineFor(feed ban.Feed, reason QuarantineReason, now time.Time) {
	o := l.feeds.operator(feed.Operator)
	if o.Quarantine != nil {
		return
	}
	o.Quarantine = &Quarantine{Since: now, Reason: reason, Feed: feed.String()}
	l.feeds.markQuarantine(feed.Operator, true)
	l.feeds.pending.all = true
	l.tell(Note{Kind: NoteQuarantine, Operator: feed.Operator, Topic: feed.Topic, Why: string(reason)})
	l.log.Warn("an operator is quarantined", "operator", l.nameOf(feed.Operator), "reason", string(reason), "feed", feed.String())
}

// Undo quarantines an operator by hand: nothing that it claimed counts any
// longer, in any topic, until [Peers.Release]. It is durable when nil is
// returned, and gives how many bans were lifted.
func (l *Peers) Undo(o ban.Operator, comment string) (lifted int, err error) {
	if len(comment) > maxComment {
		return 0, fmt.Errorf("a comment has at most %d bytes", maxComment)
	}
	return l.quarantine(o, &Quarantine{Since: l.now(), Reason: QuarantineByHand, Comment: comment})
}

// Release ends an operator's quarantine and forgets its strikes. It fails with
// [ErrUnknown] if there is none.
func (l *Peers) Release(o ban.Operator) error {
	_, err := l.quarantine(o, nil)
	return err
}

func (l *Peers) quarantine(o ban.Operator, q *Quarantine) (lifted int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	before := l.banned(now)
	p := l.feeds.operator(o)
	if q == nil && p.Quarantine == nil {
		return 0, fmt.Errorf("a quarantine of %s: %w", l.nameOf(o), ErrUnknown)
	}
	old := *p
	if q == nil && p.Quarantine.Reason == QuarantineGuests {
		p.Excused = true
	}
	p.Quarantine = q
	if q == nil {
		p.Strikes = nil
	}
	l.feeds.markQuarantine(o, q != nil)
	if err := l.save(now, nil); err != nil {
		*p = old
		l.feeds.markQuarantine(o, old.Quarantine != nil)
		return 0, err
	}
	l.feeds.pending.all = true
	l.settle(now)
	return before - l.banned(now), nil
}

// banned counts the bans in force.
func (l *book) banned(now time.Time) (n int) {
	for i := range l.table.all.len() {
		if rec := l.table.all.at(i); rec.kind != ban.KindNone && rec.enforced(now) != 0 {
			n++
		}
	}
	return n
}
