package ledger

import "banmesh/internal/ban"

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
