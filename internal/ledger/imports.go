package ledger

import (
	"slices"

	"banmesh/internal/ban"
)

// Disown sees to it that claims of an import that are in force count for nothing,
// for a person says so: those of the targets, nil for all, in a topic, "" for every one.
// It holds until the import itself drops the claim. It gives them as they were, and is
// durable when nil is returned.
func (l *Peers) Disown(i ban.Import, topic ban.Topic, targets []ban.Target) (disowned []Local, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	take := func(r uint32, f uint16) {
		v := l.table.vote(r, f)
		if v == nil || !v.inForce(now) || v.hold() == rejected {
			return
		}
		disowned = append(disowned, Local{Topic: l.table.topicName(r), Source: Source(i), Claim: v.claim(l.table.target(r))})
		if v.hold() == counted {
			if !l.alsoCounts(r, v) {
				l.feeds.budget(l.feeds.list[f].feed).Give(l.table.target(r))
			}
		}
		l.feeds.list[f].turn(v, rejected)
		l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, voteAt{r, f})
		l.feeds.pending.touch(l.book, r)
	}
	for t, x := range l.table.byTopic {
		f, heard := l.feeds.numbers[i.Feed(x.name)]
		if !heard || topic != "" && topic != x.name {
			continue
		}
		if targets == nil {
			for r := range l.table.records(t) {
				take(r, f)
			}
		}
		for _, target := range targets {
			if r, ok := l.table.find(t, target); ok {
				take(r, f)
			}
		}
	}
	if len(disowned) == 0 {
		return nil, nil
	}
	if err := l.save(now, nil); err != nil {
		return nil, err
	}
	l.settle(now)
	sortLocal(disowned)
	return disowned, nil
}

// Imported gives the claims of an import in a topic that are in force, a person's
// rejections left out, sorted.
func (l *Peers) Imported(i ban.Import, topic ban.Topic) (list []ban.Claim) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, known := l.table.topics[topic]
	f, heard := l.feeds.numbers[i.Feed(topic)]
	if !known || !heard {
		return nil
	}
	now := l.now()
	for r := range l.table.records(t) {
		if v := l.table.vote(r, f); v != nil && v.inForce(now) && v.hold() != rejected {
			list = append(list, v.claim(l.table.target(r)))
		}
	}
	slices.SortFunc(list, ban.Claim.Compare)
	return list
}
