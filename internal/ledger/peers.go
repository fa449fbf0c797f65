package ledger

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// peer is what is remembered of an operator.
type peer struct {
	Strikes    []Strike    `json:"strikes,omitempty"`
	Total      int         `json:"strikes_total,omitempty"`
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Met        int         `json:"met,omitempty"`       // offenders here that it had claimed before
	Overruled  int         `json:"overruled,omitempty"` // claims that a person unbanned here

	changed bool
}

// A Strike is an operator's claim of something that must never be banned.
type Strike struct {
	Target ban.Target `json:"target"`
	Topic  ban.Topic  `json:"topic"`
	At     time.Time  `json:"at"`
	Why    string     `json:"why"`
}

// Quarantine is why an operator's claims count for nothing, though it is
// trusted.
type Quarantine struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// maxStrikes is how many strikes are kept to be shown.
const maxStrikes = 20

func (l *Ledger) peer(o ban.Operator) *peer {
	p := l.feeds.operators[o]
	if p == nil {
		p = &peer{}
		l.feeds.operators[o] = p
	}
	return p
}

// strike keeps a strike, unless it is one that is known: the same target
// within a day is one strike, also over a restart.
func (p *peer) strike(s Strike) bool {
	for _, old := range p.Strikes {
		if old.Target == s.Target && s.At.Sub(old.At) < policy.StrikeWindow {
			return false
		}
	}
	if len(p.Strikes) >= maxStrikes {
		p.Strikes = p.Strikes[1:]
	}
	p.Strikes = append(p.Strikes, s)
	p.Total++
	p.changed = true
	return true
}

func (p *peer) recent(now time.Time) (n int) {
	for _, s := range p.Strikes {
		if now.Sub(s.At) < policy.StrikeWindow {
			n++
		}
	}
	return n
}

func (l *Ledger) markQuarantine(o ban.Operator, on bool) {
	l.peer(o).changed = true
	for i := range l.feeds.list {
		if i != ownFeed && l.feeds.list[i].feed.Operator == o {
			l.feeds.list[i].quarantined = on
		}
	}
}

// Undo quarantines an operator by hand: nothing that it claimed counts any
// longer, in any topic, until [Ledger.Release]. It is durable when nil is
// returned, and gives how many bans were lifted.
func (l *Ledger) Undo(o ban.Operator, why string) (lifted int, err error) {
	if len(why) > maxComment {
		return 0, fmt.Errorf("a comment has at most %d bytes", maxComment)
	}
	if why == "" {
		why = "undone by hand"
	}
	return l.quarantine(o, &Quarantine{Since: l.now(), Why: why})
}

// Release ends an operator's quarantine and forgets its strikes. It fails with
// [ErrUnknown] if there is none.
func (l *Ledger) Release(o ban.Operator) error {
	_, err := l.quarantine(o, nil)
	return err
}

func (l *Ledger) quarantine(o ban.Operator, q *Quarantine) (lifted int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	before := l.banned(now)
	p := l.peer(o)
	if q == nil && p.Quarantine == nil {
		return 0, fmt.Errorf("a quarantine of %s: %w", l.nameOf(o), ErrUnknown)
	}
	old := *p
	p.Quarantine = q
	if q == nil {
		p.Strikes = nil
	}
	l.markQuarantine(o, q != nil)
	if err := l.save(now); err != nil {
		*p = old
		l.markQuarantine(o, old.Quarantine != nil)
		return 0, err
	}
	l.evaluateAll(now)
	return before - l.banned(now), nil
}

// banned counts the bans in force.
func (l *Ledger) banned(now time.Time) (n int) {
	for i := range l.table.all.len() {
		if rec := l.table.all.at(i); rec.kind != ban.KindNone && rec.enforced(now) != 0 {
			n++
		}
	}
	return n
}

// A Hold is claims of a feed that wait.
type Hold struct {
	Feed     string       `json:"feed"` // topic/operator/node
	Topic    ban.Topic    `json:"topic"`
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	// Why is "changes more than usual", "over budget" or "rejected".
	Why string `json:"why"`
	// Since is when the guard began to hold, if it does.
	Since  time.Time    `json:"since,omitzero"`
	Claims int          `json:"claims"`
	Live   int          `json:"live"`   // claims of the feed that count
	Sample []ban.Target `json:"sample"` // some of those that wait
}

// Reasons of a [Hold].
const (
	HoldGuard    = "changes more than usual"
	HoldBudget   = "over budget"
	HoldRejected = "rejected"
)

// Holds lists what waits, by feed and reason.
func (l *Ledger) Holds() []Hold {
	l.mu.RLock()
	defer l.mu.RUnlock()
	const sample = 5
	type key struct {
		feed uint16
		hold hold
	}
	found := map[key]*Hold{}
	for r := range l.table.all.len() {
		for i := l.table.all.at(r).votes; i != 0; i = l.table.votes.at(i - 1).next {
			v := l.table.votes.at(i - 1)
			if v.hold() == counted {
				continue
			}
			state := &l.feeds.list[v.feed]
			h := found[key{v.feed, v.hold()}]
			if h == nil {
				h = &Hold{
					Feed: state.feed.String(), Topic: state.feed.Topic, Operator: state.feed.Operator, Name: l.nameOf(state.feed.Operator),
					Why: [...]string{"", HoldBudget, HoldGuard, HoldRejected}[v.hold()], Live: state.live - state.held,
				}
				if v.hold() == guarded {
					h.Since = state.guard.Since
				}
				found[key{v.feed, v.hold()}] = h
			}
			h.Claims++
			if len(h.Sample) < sample {
				h.Sample = append(h.Sample, l.table.target(r))
			}
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
		return strings.Compare(a.Why, b.Why)
	})
	return list
}

// Approve lets what waits of an operator in a topic ("": every topic) count,
// whatever the guard and the hourly budget say; the budgets of live bans and
// of addresses stay. It is durable when nil is returned.
func (l *Ledger) Approve(o ban.Operator, topic ban.Topic) (claims int, err error) {
	return l.settle(o, topic, counted)
}

// Reject sees to it that what waits of an operator in a topic never counts:
// until its author withdraws it or it ends. It is durable when nil is returned.
func (l *Ledger) Reject(o ban.Operator, topic ban.Topic) (claims int, err error) {
	return l.settle(o, topic, rejected)
}

func (l *Ledger) settle(o ban.Operator, topic ban.Topic, to hold) (claims int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for r := range l.table.all.len() {
		for i := l.table.all.at(r).votes; i != 0; i = l.table.votes.at(i - 1).next {
			v := l.table.votes.at(i - 1)
			state := &l.feeds.list[v.feed]
			if h := v.hold(); h == counted || h == to || state.feed.Operator != o || topic != "" && state.feed.Topic != topic {
				continue
			}
			if to == counted {
				if !l.budget(state.feed).Take(l.policy.Limits(state.feed.Topic), l.table.target(r), false, now) {
					continue
				}
				state.held--
			}
			v.setHold(to)
			l.note(r, v.feed)
			claims++
		}
	}
	if claims == 0 {
		return 0, fmt.Errorf("something of %s that waits and has room in its budget: %w", l.nameOf(o), ErrUnknown)
	}
	for i := range l.feeds.list {
		state := &l.feeds.list[i]
		if i != ownFeed && state.feed.Operator == o && (topic == "" || state.feed.Topic == topic) && state.guard.Holds {
			state.guard.Approve(state.live-state.held, now)
			state.changed = true
		}
	}
	err = l.save(now)
	l.evaluateAll(now)
	return claims, err
}

// A Peer is what the ledger knows of an operator: what it says, and of what
// use that was here.
type Peer struct {
	Operator ban.Operator `json:"operator"`
	Name     string       `json:"name"`
	Feeds    int          `json:"feeds"`
	Claims   int          `json:"claims"`
	// Banning is how many bans in force its claims are part of, Alone how many of
	// these nobody else claims, Corroborated how many of its claims another
	// operator or this node makes too.
	Banning      int `json:"banning"`
	Alone        int `json:"alone"`
	Corroborated int `json:"corroborated"`
	Waiting      int `json:"waiting"`
	Disputed     int `json:"disputed"`
	// Met is how many offenders here it had claimed before they came, Overruled
	// how many of its claims a person unbanned here.
	Met        int         `json:"met"`
	Overruled  int         `json:"overruled"`
	Strikes    int         `json:"strikes"` // within a day
	Total      int         `json:"strikes_total"`
	Recent     []Strike    `json:"recent_strikes,omitempty"`
	Quarantine *Quarantine `json:"quarantine,omitempty"`
	Probation  time.Time   `json:"probation_until,omitzero"`
}

// Peers lists every operator that the rules name or that is heard, by name.
func (l *Ledger) Peers() []Peer {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	found := map[ban.Operator]*Peer{}
	at := func(o ban.Operator) *Peer {
		p := found[o]
		if p == nil {
			p = &Peer{Operator: o, Name: l.nameOf(o)}
			if known := l.feeds.operators[o]; known != nil {
				p.Met, p.Overruled, p.Total, p.Strikes = known.Met, known.Overruled, known.Total, known.recent(now)
				p.Recent, p.Quarantine = slices.Clone(known.Strikes), known.Quarantine
			}
			if end := l.policy.Probation(o); end.After(now) {
				p.Probation = end
			}
			found[o] = p
		}
		return p
	}
	for name := range l.policy.Source().Operators {
		if o, ok := l.policy.Operator(name); ok {
			at(o)
		}
	}
	for i := 1; i < len(l.feeds.list); i++ {
		if state := &l.feeds.list[i]; state.live > 0 {
			p := at(state.feed.Operator)
			p.Feeds++
			p.Claims += state.live
			p.Waiting += state.held
		}
	}
	for r := range l.table.all.len() {
		rec := l.table.all.at(r)
		var by []ban.Operator
		own := false
		for i := rec.votes; i != 0; i = l.table.votes.at(i - 1).next {
			v := l.table.votes.at(i - 1)
			if v.feed == ownFeed {
				own = true
			} else if o := l.feeds.list[v.feed].feed.Operator; !slices.Contains(by, o) {
				by = append(by, o)
			}
		}
		for _, o := range by {
			p := at(o)
			if len(by) > 1 || own {
				p.Corroborated++
			}
			if rec.enforced(now) != 0 {
				p.Banning++
				if len(by) == 1 && !own {
					p.Alone++
				}
			}
			if len(by) > 0 && len(l.disputesOf(int(rec.topic), l.table.target(r))) > 0 {
				p.Disputed++
			}
		}
	}
	list := make([]Peer, 0, len(found))
	for _, p := range found {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// credit counts for the peers that claimed a target what happened here: met
// says that it offended, otherwise a person unbanned it.
func (l *Ledger) credit(r uint32, met bool) {
	var seen []ban.Operator
	for i := l.table.all.at(r).votes; i != 0; i = l.table.votes.at(i - 1).next {
		f := l.table.votes.at(i - 1).feed
		if f == ownFeed {
			continue
		}
		o := l.feeds.list[f].feed.Operator
		if slices.Contains(seen, o) {
			continue
		}
		seen = append(seen, o)
		p := l.peer(o)
		p.changed = true
		if met {
			p.Met++
		} else {
			p.Overruled++
		}
	}
}

// Met tells the ledger that a target offended here, where that did not lead to
// a ban: for peers' usefulness.
func (l *Ledger) Met(topic ban.Topic, target ban.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.table.topics[topic]; ok {
		if r, ok := l.table.find(t, target); ok {
			l.credit(r, true)
		}
	}
}
