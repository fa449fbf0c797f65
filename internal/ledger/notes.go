package ledger

import (
	"cmp"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A Note is something that happened to a peer or to its claims, for a
// history that people read. Bans and their ends are in [Enforcement.Take].
type Note struct {
	Kind     NoteKind
	Operator ban.Operator
	Topic    ban.Topic
	Target   ban.Target // zero where it is about none
	Why      string     // for people
	Until    time.Time  // of a dispute
}

// A NoteKind is the sort of a note. The set is closed.
type NoteKind int

// The kinds.
const (
	NoteHold       NoteKind = iota // claims of a feed begin to wait
	NoteStrike                     // a claim of a target that must never be banned
	NoteQuarantine                 // an operator is quarantined
	NoteMistake                    // a claim was withdrawn as a mistake
	NoteDispute                    // a feed disputes a target that somebody claims here
)

// tell hands a note on. The lock is held: whoever listens must not call the
// ledger.
func (l *book) tell(n Note) {
	if l.noted != nil {
		l.noted(n)
	}
}

// A Disputed is a dispute of a target that this node claims.
type Disputed struct {
	Topic    ban.Topic
	Target   ban.Target
	Operator ban.Operator
	End      time.Time
}

// DisputedOwn lists the disputes of this node's own claims in force, by topic,
// target and operator.
func (l *Peers) DisputedOwn() (list []Disputed) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	for p, feeds := range l.disputes.of {
		r, ok := l.recordAt(p)
		if !ok {
			continue
		}
		if _, own := l.ownClaim(r, now); own {
			list = append(list, l.disputedBy(p, feeds, now)...)
		}
	}
	slices.SortFunc(list, func(a, b Disputed) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), a.Target.Compare(b.Target), slices.Compare(a.Operator[:], b.Operator[:]))
	})
	return list
}

// disputedBy gives the disputes of a target in force, one an operator.
func (l *book) disputedBy(p place, feeds map[ban.Feed]time.Time, now time.Time) (list []Disputed) {
	for feed, end := range feeds {
		if !end.After(now) {
			continue
		}
		if i := slices.IndexFunc(list, func(d Disputed) bool { return d.Operator == feed.Operator }); i >= 0 {
			if end.After(list[i].End) {
				list[i].End = end
			}
			continue
		}
		list = append(list, Disputed{p.topic, p.target, feed.Operator, end})
	}
	slices.SortFunc(list, func(a, b Disputed) int { return slices.Compare(a.Operator[:], b.Operator[:]) })
	return list
}
