package ledger

import (
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Records measures every operator: its claims of addresses, weak ones left out,
// and how many of them are of guests of this node. It looks at every claim.
func (l *Peers) Records() map[ban.Operator]policy.Record {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.records()
}

func (l *book) records() map[ban.Operator]policy.Record {
	list := map[ban.Operator]policy.Record{}
	now := l.now()
	var by []ban.Operator
	for r := range l.table.all.len() {
		rec := l.table.all.at(r)
		if rec.kind == ban.KindNone || rec.kind == ban.KindWallet {
			continue
		}
		by = by[:0]
		for v := range l.table.votesOf(r) {
			if isOwn(v.feed) || ban.Basis(v.flags&basisMask) == ban.BasisWeak || !v.inForce(now) {
				continue
			}
			if o := l.feeds.list[v.feed].feed.Operator; !slices.Contains(by, o) {
				by = append(by, o)
			}
		}
		if len(by) == 0 {
			continue
		}
		guest := false
		if l.guests != nil {
			_, guest = l.guests.Protects(l.table.target(r))
		}
		for _, o := range by {
			x := list[o]
			if x.Claims++; guest {
				x.Guests++
			}
			list[o] = x
		}
	}
	return list
}

// Suspend quarantines the operators whose claims are of guests far more often
// than those of the core ([policy.Mistaken]), and gives them. One that a person
// released from that is not suspended again. It is durable when nil is returned.
func (l *Peers) Suspend() (list []ban.Operator, err error) {
	mistaken := l.mistaken()
	if len(mistaken) == 0 {
		return nil, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, o := range mistaken {
		known := l.feeds.operator(o)
		if known.Quarantine != nil || known.Excused {
			continue
		}
		known.Quarantine = &Quarantine{Since: now, Reason: QuarantineGuests}
		l.feeds.markQuarantine(o, true)
		list = append(list, o)
	}
	if len(list) == 0 {
		return nil, nil
	}
	err = l.save(now, nil)
	l.feeds.pending.all = true
	l.settle(now)
	return list, err
}

// mistaken gives the operators whose claims are of guests too often. It looks at
// every claim, beside readers.
func (l *Peers) mistaken() []ban.Operator {
	l.mu.RLock()
	defer l.mu.RUnlock()
	var core []ban.Operator
	for topic := range l.policy.Source().Topics {
		core = append(core, l.policy.Core(ban.Topic(topic))...)
	}
	slices.SortFunc(core, func(a, b ban.Operator) int { return slices.Compare(a[:], b[:]) })
	return policy.Mistaken(l.records(), slices.Compact(core))
}
