package ledger

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Watched says whether a target's first offence should ban it: it, or a prefix
// around it, is watched, or it is banned already.
func (l *Ledger) Watched(topic ban.Topic, target ban.Target) bool {
	return l.Action(topic, target) >= policy.Watch
}

// BannedAt says whether a ban of this node's own of a target, or of a prefix
// around it, was in force at a time, as far as it still is or has just ended.
func (l *Ledger) BannedAt(topic ban.Topic, target ban.Target, at time.Time) (banned bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return false
	}
	look := func(r uint32) {
		for v := range l.table.votesOf(r) {
			banned = banned || isOwn(v.feed) && int64(v.since) <= at.Unix() && v.inForce(at)
		}
	}
	if r, ok := l.table.find(t, target); ok {
		look(r)
	}
	l.table.around(t, target, look)
	return banned
}

// Suspected says whether a target's second offence should ban it.
func (l *Ledger) Suspected(topic ban.Topic, target ban.Target) bool {
	return l.Action(topic, target) == policy.Suspect
}

// Action gives the action on a target in a topic now: the strongest of
// its own verdict and those of the prefixes around it.
func (l *Ledger) Action(topic ban.Topic, target ban.Target) (action policy.Action) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	t, ok := l.table.topics[topic]
	if !ok {
		return policy.Ignore
	}
	now := l.now().Unix()
	look := func(r uint32) {
		if rec := l.table.all.at(r); int64(rec.until) > now {
			action = max(action, rec.action)
		}
	}
	if r, ok := l.table.find(t, target); ok {
		look(r)
		// A shield of the target itself stands above the prefixes around it.
		if why := l.table.all.at(r).why; why == policy.ReasonNeverBan || why == policy.ReasonExempt {
			return action
		}
	}
	l.table.around(t, target, look)
	return action
}
