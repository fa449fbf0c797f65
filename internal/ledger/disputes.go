package ledger

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A Dispute is a peer's signed statement that a target should not be banned.
type Dispute struct {
	Target ban.Target
	End    time.Time
}

// maxDisputes bounds the disputes of one operator in a topic at a time.
const maxDisputes = 10_000

// disputes are found by target, and by feed to be replaced.
type disputes struct {
	of map[place]map[ban.Feed]time.Time
	by map[ban.Feed][]Dispute
}

func (d *disputes) init() {
	d.of, d.by = map[place]map[ban.Feed]time.Time{}, map[ban.Feed][]Dispute{}
}

// replace sets the disputes of a feed and gives the targets of the old and the new.
func (d *disputes) replace(feed ban.Feed, list []Dispute) (touched []ban.Target) {
	for _, old := range d.by[feed] {
		touched = append(touched, old.Target)
		p := place{feed.Topic, old.Target}
		delete(d.of[p], feed)
		if len(d.of[p]) == 0 {
			delete(d.of, p)
		}
	}
	delete(d.by, feed)
	for _, x := range list {
		touched = append(touched, x.Target)
		p := place{feed.Topic, x.Target}
		if d.of[p] == nil {
			d.of[p] = map[ban.Feed]time.Time{}
		}
		d.of[p][feed] = x.End
	}
	if len(list) > 0 {
		d.by[feed] = list
	}
	return touched
}

// beside counts the disputes of an operator's other nodes in a feed's topic.
func (d *disputes) beside(feed ban.Feed) (n int) {
	for other, list := range d.by {
		if other != feed && other.Operator == feed.Operator && other.Topic == feed.Topic {
			n += len(list)
		}
	}
	return n
}

// Dispute replaces the disputes of a feed. It is not stored: the federation
// replays it at start. An operator that disputes more than [maxDisputes] targets
// in a topic is quarantined, and the feed then disputes nothing.
func (l *Peers) Dispute(feed ban.Feed, list []Dispute) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var kept []Dispute
	if len(list)+l.disputes.beside(feed) > maxDisputes {
		l.quarantineFor(feed, QuarantineDisputes, now)
	} else {
		for _, d := range list {
			if !d.Target.IsZero() && d.End.After(now) {
				kept = append(kept, d)
			}
		}
	}
	before := l.disputes.by[feed]
	for _, t := range l.disputes.replace(feed, kept) {
		if r, ok := l.recordAt(place{feed.Topic, t}); ok {
			l.evaluate(r, now)
		}
	}
	l.tellDisputes(feed, before, kept)
	if l.feeds.pending.all {
		if err := l.save(now, nil); err != nil {
			return err
		}
	}
	l.settle(now)
	return nil
}

// disputesOf gives the disputes about a target.
func (l *book) disputesOf(topic int, target ban.Target) (list []policy.Dispute) {
	if len(l.disputes.of) == 0 {
		return nil
	}
	for feed, end := range l.disputes.of[place{l.table.byTopic[topic].name, target}] {
		list = append(list, policy.Dispute{Operator: feed.Operator, End: end})
	}
	return list
}

// tellDisputes notes the new disputes of targets that somebody claims.
func (l *Peers) tellDisputes(feed ban.Feed, before, now []Dispute) {
	known := make(map[ban.Target]bool, len(before))
	for _, d := range before {
		known[d.Target] = true
	}
	for _, d := range now {
		if _, claimed := l.recordAt(place{feed.Topic, d.Target}); claimed && !known[d.Target] {
			l.tell(Note{Kind: NoteDispute, Operator: feed.Operator, Topic: feed.Topic, Target: d.Target, Until: d.End, Why: "says that it should not be banned"})
		}
	}
}
