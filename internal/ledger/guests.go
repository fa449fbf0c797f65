package ledger

import (
	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// either shields the targets that one of two protections does.
type either [2]policy.Protection

// Protects implements policy.Protection.
func (e either) Protects(t ban.Target) (string, bool) {
	for _, p := range e {
		if p == nil {
			continue
		}
		if why, ok := p.Protects(t); ok {
			return why, true
		}
	}
	return "", false
}

// beyondPeers gives the targets that no claim of others bans: those of the
// never-ban list, and guests. A claim of a guest is no strike.
func (l *Ledger) beyondPeers() policy.Protection {
	if l.guests == nil {
		return l.peers
	}
	return either{l.peers, l.guests}
}

// Reconsider judges a target, the prefixes around it and the targets in it
// again: it became a guest, or is none any more.
func (l *Ledger) Reconsider(t ban.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for topic := range l.table.byTopic {
		l.overlapping(topic, t, func(r uint32) { l.evaluate(r, now) })
	}
	l.notify()
}
