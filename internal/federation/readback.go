package federation

import (
	"time"

	"banmesh/internal/wire"
)

// A broker that acknowledges a message may still not keep it: a NATS cluster
// that has just lost a node acknowledges retained messages which it then fails
// to store. So published messages are read back after a while, and those that the
// broker does not show is published again.
const (
	// readBackQuiet is how long nothing was published before it is read back.
	readBackQuiet = 15 * time.Second
	// readBackLate is how long it is put off while more is published.
	readBackLate = 5 * time.Minute
	// readBackLeast is the pause between two times; it doubles up to
	// readBackMost while the broker lacks something, so that one which retains
	// nothing is not sent everything over and over.
	readBackLeast = 15 * time.Second
	readBackMost  = time.Hour
	// readBackWait is how long a broker has to answer the subscriptions.
	readBackWait = 2 * time.Minute
	// readBackNames bounds the names that are remembered: a feed of a million bans and
	// the ring of each topic. Others wait for the audit.
	readBackNames = 4096
)

// readBack is the messages that were published in one connection and not seen since.
type readBack struct {
	sent         map[wire.Name]wire.Hash
	first, spoke time.Time // of the messages in sent

	asked           map[wire.Name]wire.Hash // read back now; nil between two times
	seen            map[wire.Name]wire.Hash
	attempt         int
	began, answered time.Time

	next  time.Time
	pause time.Duration
	lost  int // at the last time
}

// published notes the messages that are on their way to the broker.
func (r *readBack) published(out []outgoing, now time.Time) {
	if r.sent == nil {
		r.sent = map[wire.Name]wire.Hash{}
	}
	for _, o := range out {
		if o.name.Kind == wire.KindLive {
			continue // no broker keeps it
		}
		// A message that replaces or withdraws one that is read back just now says
		// nothing about whether the broker kept it.
		delete(r.asked, o.name)
		if len(o.payload) == 0 {
			delete(r.sent, o.name)
			continue
		}
		if _, ok := r.sent[o.name]; ok || len(r.sent) < readBackNames {
			r.sent[o.name] = wire.HashOf(o.payload)
		}
	}
	if r.first.IsZero() {
		r.first = now
	}
	r.spoke = now
}

// shown notes a retained message of ours that the broker hands out.
func (r *readBack) shown(n wire.Name, payload []byte) {
	if _, ok := r.asked[n]; ok {
		r.seen[n] = wire.HashOf(payload)
	}
}

// due begins to read back if it is time to.
func (r *readBack) due(now time.Time) bool {
	if r.asked != nil || len(r.sent) == 0 || now.Before(r.next) || now.Sub(r.spoke) < readBackQuiet && now.Sub(r.first) < readBackLate {
		return false
	}
	r.asked, r.seen, r.sent = r.sent, map[wire.Name]wire.Hash{}, nil
	r.first, r.began, r.answered = time.Time{}, now, time.Time{}
	r.attempt++
	return true
}

// end gives the messages that the broker does not show, once it had the time to.
func (r *readBack) end(now time.Time, answered bool) (lost map[wire.Name]wire.Hash) {
	if r.asked == nil {
		return nil
	}
	if answered && r.answered.IsZero() {
		r.answered = now
	}
	switch {
	case !r.answered.IsZero() && now.Sub(r.answered) >= fenceWait:
		lost = map[wire.Name]wire.Hash{}
		for n, hash := range r.asked {
			seen, ok := r.seen[n]
			if ok && !n.Kind.OfNode() {
				continue // other nodes of the operator publish it, too, and the newest stays
			}
			if seen != hash {
				lost[n] = hash
			}
		}
	case now.Sub(r.began) >= readBackWait:
		// No answer: ask for all of it another time.
		if r.sent == nil {
			r.sent = map[wire.Name]wire.Hash{}
		}
		for n, hash := range r.asked {
			if _, ok := r.sent[n]; !ok {
				r.sent[n] = hash
			}
		}
		r.first, r.spoke = now, now
	default:
		return nil
	}
	if lost != nil {
		r.lost = len(lost)
	}
	if lost != nil && r.lost == 0 {
		r.pause = readBackLeast
	} else {
		r.pause = min(readBackMost, max(readBackLeast, 2*r.pause))
	}
	r.asked, r.seen, r.next = nil, nil, now.Add(r.pause)
	return lost
}

// heard takes a retained message of ours.
func (l *link) heard(n wire.Name, payload []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.back.shown(n, payload)
}

// readsBack gives the topics to subscribe to for reading back.
func (l *link) readsBack() (topics []string, attempt int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for n := range l.back.asked {
		topics = append(topics, n.String())
	}
	return topics, l.back.attempt
}

// readBack begins and ends reading back, and gives the messages that the broker has lost.
func (l *link) readBack(now time.Time) (lost map[wire.Name]wire.Hash) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected || l.back.due(now) {
		return nil
	}
	answered := true
	for n := range l.back.asked {
		if l.answered[n.String()] < l.back.attempt {
			answered = false
			break
		}
	}
	lost = l.back.end(now, answered)
	for n := range lost {
		// Our card and documents: as if it had never been shown.
		delete(l.shown, n)
		delete(l.offered, n)
	}
	return lost
}
