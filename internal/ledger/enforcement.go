package ledger

import (
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Enforcement is the wanted state of the enforcers, and its changes.
type Enforcement struct{ *book }

// enforced is the end that enforcers should know, or 0.
func (rec *record) enforced(now time.Time) uint32 {
	if rec.action == policy.Ban && int64(rec.until) > now.Unix() {
		return rec.until
	}
	return 0
}

// Enforced is a ban that enforcers should hold.
type Enforced struct {
	Topic  ban.Topic
	Target ban.Target
	Until  time.Time
	// Class is the kind of offence of the claim that lasts longest, this node's
	// own first. Own says that this node claims it. Both are for readers of lists.
	Class ban.Class
	Own   bool
}

// enforcedAs describes a record that is to be banned until then.
func (l *Enforcement) enforcedAs(r uint32, until time.Time) Enforced {
	e := Enforced{Topic: l.table.topicName(r), Target: l.table.target(r), Until: until}
	var longest uint32
	now := l.now()
	for v := range l.table.votesOf(r) {
		if !v.inForce(now) {
			continue
		}
		if isOwn(v.feed) && !e.Own {
			e.Class, e.Own, longest = v.class(), true, v.end
		} else if isOwn(v.feed) == e.Own && v.end >= longest {
			e.Class, longest = v.class(), v.end
		}
	}
	return e
}

// An Origin is on whose word a ban in force rests.
type Origin struct {
	Own bool // this node's
	// Operators are those whose claims meet the rule, longest first.
	Operators []ban.Operator
}

// Origin says on whose word a ban in force rests; it is empty where there is
// none. It is the enforcers' question, asked once a ban, and costs one verdict.
func (l *Enforcement) Origin(name ban.Topic, target ban.Target) (o Origin) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	topic, ok := l.table.topics[name]
	if !ok {
		return o
	}
	r, ok := l.table.find(topic, target)
	if !ok {
		return o
	}
	v := l.policy.Judge(l.question(r, l.now(), nil))
	if v.Action != policy.Ban {
		return o
	}
	return Origin{Own: v.Why == policy.ReasonLocal, Operators: v.By}
}

// InForce gives up to most bans of a topic that enforcers hold or will.
func (l *Enforcement) InForce(name ban.Topic, most int) (list []Enforced) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	topic, ok := l.table.topics[name]
	if !ok {
		return nil
	}
	now := l.now()
	for r := range l.table.records(topic) {
		if len(list) == most {
			break
		}
		if until := l.table.all.at(r).enforced(now); until != 0 {
			list = append(list, l.enforcedAs(r, time.Unix(int64(until), 0)))
		}
	}
	return list
}

// A Change is a step of the desired state. With Ban the target is to be banned
// until Until, whether or not it is banned already; without, it is to be free.
type Change struct {
	Enforced
	Ban bool
	// Was is the end that enforcers knew before, zero where the ban is new. Why is
	// the reason of the verdict now: of a ban that ended, the reason that it is
	// none any longer.
	Was time.Time
	Why policy.Reason
}

// Desired gives the whole desired state. From then on [Enforcement.Take] gives the
// changes after it.
func (l *Enforcement) Desired() []Enforced {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	list := make([]Enforced, 0, l.banned(now))
	for topic := range l.table.byTopic {
		for r := range l.table.records(topic) {
			rec := l.table.all.at(r)
			rec.dirty = false
			rec.told = rec.enforced(now)
			if rec.told != 0 {
				list = append(list, l.enforcedAs(r, time.Unix(int64(rec.told), 0)))
			} else if rec.votes == 0 {
				l.table.drop(r)
			}
		}
	}
	l.dirty = nil
	return list
}

// Changed receives a value when there may be something to [Enforcement.Take].
func (l *Enforcement) Changed() <-chan struct{} { return l.changed }

// Take gives up to most changes of the desired state since the last Take or
// [Enforcement.Desired]. Several changes of a target are one. A ban that lapses by
// itself is given too, as freed.
func (l *Enforcement) Take(most int) []Change {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	var changes []Change
	i := 0
	for ; i < len(l.dirty) && len(changes) < most; i++ {
		r := l.dirty[i]
		rec := l.table.all.at(r)
		if !rec.dirty {
			continue
		}
		rec.dirty = false
		if want := rec.enforced(now); want != rec.told {
			change := Change{Ban: want != 0, Was: timeOf(rec.told), Why: rec.why, Enforced: Enforced{Topic: l.table.topicName(r), Target: l.table.target(r)}}
			if change.Ban {
				change.Enforced = l.enforcedAs(r, time.Unix(int64(want), 0))
			}
			rec.told = want
			changes = append(changes, change)
		}
		if rec.votes == 0 && rec.told == 0 {
			l.table.drop(r)
		}
	}
	l.dirty = l.dirty[i:]
	if len(l.dirty) == 0 {
		l.dirty = nil // let a burst's memory go
	} else {
		l.notify()
	}
	return changes
}

// timeOf gives the time of the ledger's seconds, zero for 0.
func timeOf(s uint32) time.Time {
	if s == 0 {
		return time.Time{}
	}
	return time.Unix(int64(s), 0)
}

// notify wakes whoever waits for changes. The lock is held.
func (l *book) notify() {
	if len(l.dirty) > 0 {
		select {
		case l.changed <- struct{}{}:
		default: // a wake-up is pending already
		}
	}
}
