package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// A Hold is claims of a feed that wait.
type Hold struct {
	Feed     string       `json:"feed"` // topic/operator/node
	Topic    ban.Topic    `json:"topic"`
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	Why      HoldReason   `json:"why"`
	// Since is when the guard began to hold, and Opens when it lets go by itself,
	// if it does.
	Since  time.Time    `json:"since,omitzero"`
	Opens  time.Time    `json:"opens,omitzero"`
	Claims int          `json:"claims"`
	Live   int          `json:"live"`   // claims of the feed that count
	Sample []ban.Target `json:"sample"` // some of those that wait
}

// A HoldReason is the thing that claims wait for. The set is closed.
type HoldReason string

// The reasons.
const (
	HoldGuard    HoldReason = "guard"    // the feed changes more than usual: a person's approval
	HoldBudget   HoldReason = "budget"   // room in the operator's budget
	HoldRejected HoldReason = "rejected" // a person rejected them: their withdrawal
	HoldCapacity HoldReason = "capacity" // more than is kept of an operator: they are not here
)

// Holds lists the claims that wait, by feed and reason.
func (l *Peers) Holds() []Hold {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	const sample = 5
	type key struct {
		feed uint16
		why  HoldReason
	}
	found := map[key]*Hold{}
	at := func(n uint16, why HoldReason) *Hold {
		h := found[key{n, why}]
		if h == nil {
			state := &l.feeds.list[n]
			h = &Hold{
				Feed: state.feed.String(), Topic: state.feed.Topic, Operator: state.feed.Operator, Name: l.nameOf(state.feed.Operator),
				Why: why, Live: state.live - state.waiting - state.rejected,
			}
			if why == HoldGuard {
				since := l.feeds.budget(state.feed).Guard.Since
				h.Since, h.Opens = since, since.Add(guardOpens)
			}
			found[key{n, why}] = h
		}
		return h
	}
	for r := range l.table.all.len() {
		for v := range l.table.votesOf(r) {
			if v.hold() == counted || !v.inForce(now) {
				continue
			}
			h := at(v.feed, [...]HoldReason{queued: HoldBudget, guarded: HoldGuard, rejected: HoldRejected}[v.hold()])
			h.Claims++
			if len(h.Sample) < sample {
				h.Sample = append(h.Sample, l.table.target(r))
			}
		}
	}
	for n, state := range l.feeds.peers {
		if state.dropped > 0 {
			at(n, HoldCapacity).Claims = state.dropped
		}
	}
	list := make([]Hold, 0, len(found))
	for _, h := range found {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b Hold) int {
		if c := strings.Compare(a.Feed, b.Feed); c != 0 {
			return c
		}
		return strings.Compare(string(a.Why), string(b.Why))
	})
	return list
}

// MaxApproval is the longest that [Peers.Approve] opens a guard for.
const MaxApproval = 30 * 24 * time.Hour

// Approve lets the waiting claims of an operator in a topic ("": every topic) count,
// whatever the guard and the hourly budget say; the budgets of live bans and
// of addresses stay. With a duration its claims until then count so, too. It is
// durable when nil is returned.
func (l *Peers) Approve(o ban.Operator, topic ban.Topic, duration time.Duration) (claims int, err error) {
	if duration < 0 || duration > MaxApproval {
		return 0, fmt.Errorf("an approval lasts at most %d days", MaxApproval/(24*time.Hour))
	}
	return l.decide(o, topic, counted, duration)
}

// Reject sees to it that the waiting claims of an operator in a topic never
// count: until their author withdraws them or they end. It is durable when nil is returned.
func (l *Peers) Reject(o ban.Operator, topic ban.Topic) (claims int, err error) {
	return l.decide(o, topic, rejected, 0)
}

func (l *Peers) decide(o ban.Operator, topic ban.Topic, to hold, open time.Duration) (claims int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	about := func(f ban.Feed) bool { return f.Operator == o && (topic == "" || f.Topic == topic) }
	for r := range l.table.all.len() {
		for v := range l.table.votesOf(r) {
			state := &l.feeds.list[v.feed]
			if h := v.hold(); h == counted || h == to || !about(state.feed) {
				continue
			}
			if to == counted {
				if !l.alsoCounts(r, v) && !l.feeds.budget(state.feed).Take(l.policy.LimitsOf(state.feed.Topic, state.feed.Operator), l.table.target(r), ban.BasisStrong, now) {
					continue
				}
				l.countsNow(voteAt{r, v.feed}, v)
			} else {
				state.turn(v, to)
				l.feeds.pending.arrivals = append(l.feeds.pending.arrivals, voteAt{r, v.feed})
				l.feeds.pending.touch(l.book, r)
			}
			claims++
		}
	}
	opened := 0
	for key, b := range l.feeds.budgets {
		if !about(ban.Feed{Topic: key.topic, Operator: key.operator}) || open == 0 && !b.Guard.Holds {
			continue
		}
		if open > 0 {
			b.Approved = now.Add(open)
		}
		if b.Guard.Holds {
			b.Guard.Approve(now)
		}
		l.feeds.pending.budget(key)
		opened++
	}
	if claims+opened == 0 {
		return 0, fmt.Errorf("something of %s that waits and has room in its budget: %w", l.nameOf(o), ErrUnknown)
	}
	err = l.save(now, nil)
	l.settle(now)
	return claims, err
}
