package ledger

import (
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A Dispute is a peer's signed statement that a target should not be banned.
type Dispute struct {
	Target ban.Target
	End    time.Time
}

// maxDisputes bounds what one feed can dispute at a time.
const maxDisputes = 10_000

// Dispute replaces what a feed disputes. It is not stored: the federation
// replays it at start.
func (l *Ledger) Dispute(feed ban.Feed, disputes []Dispute) error {
	if len(disputes) > maxDisputes {
		return fmt.Errorf("%w: %s disputes %d targets, at most %d", ErrTooMany, feed, len(disputes), maxDisputes)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var touched []ban.Target
	for _, d := range l.disputed[feed] {
		touched = append(touched, d.Target)
		p := place{feed.Topic, d.Target}
		delete(l.disputes[p], feed)
		if len(l.disputes[p]) == 0 {
			delete(l.disputes, p)
		}
	}
	delete(l.disputed, feed)
	var kept []Dispute
	for _, d := range disputes {
		if d.Target.IsZero() || !d.End.After(now) {
			continue
		}
		kept = append(kept, d)
		touched = append(touched, d.Target)
		p := place{feed.Topic, d.Target}
		if l.disputes[p] == nil {
			l.disputes[p] = map[ban.Feed]time.Time{}
		}
		l.disputes[p][feed] = d.End
	}
	if len(kept) > 0 {
		l.disputed[feed] = kept
	}
	if topic, ok := l.table.topics[feed.Topic]; ok {
		for _, t := range touched {
			if r, ok := l.table.find(topic, t); ok {
				l.evaluate(r, now)
			}
		}
	}
	l.notify()
	return nil
}

// disputesOf gives the disputes about a target.
func (l *Ledger) disputesOf(topic int, target ban.Target) (list []policy.Dispute) {
	if len(l.disputes) == 0 {
		return nil
	}
	for feed, end := range l.disputes[place{l.table.byTopic[topic].name, target}] {
		list = append(list, policy.Dispute{Operator: feed.Operator, End: end})
	}
	return list
}
