package ledger

import (
	"maps"
	"slices"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// Peers is the claims of followed feeds, and all that is known of who makes them.
type Peers struct{ *book }

// A Peer is the ledger's knowledge of an operator: its claims, and their use
// here.
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
	Rejected     int `json:"rejected"` // by a person here
	// Dropped is how many claims are not even kept, because they are more than
	// its budget has room for.
	Dropped  int `json:"dropped"`
	Disputed int `json:"disputed"`
	// Met is how many offenders here it had claimed before they came, Overruled
	// how many of its claims a person unbanned here.
	Met       int `json:"met"`
	Overruled int `json:"overruled"`
	// Withdrawn counts the claims that it withdrew before they ended, by reason.
	Withdrawn  map[ban.Reason]int `json:"withdrawn,omitempty"`
	Strikes    int                `json:"strikes"` // within a day
	Total      int                `json:"strikes_total"`
	Recent     []Strike           `json:"recent_strikes,omitempty"`
	Quarantine *Quarantine        `json:"quarantine,omitempty"`
	// Record is how many of its claims, weak ones left out, are of guests here.
	Record    policy.Record `json:"record"`
	Probation time.Time     `json:"probation_until,omitzero"`
}

// List gives every operator that the rules name or that is heard, by name.
func (l *Peers) List() []Peer {
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
				p.Recent, p.Quarantine, p.Withdrawn = slices.Clone(known.Strikes), known.Quarantine, maps.Clone(known.Withdrawn)
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
	for _, state := range l.feeds.peers {
		if state.live > 0 {
			p := at(state.feed.Operator)
			p.Feeds++
			p.Claims += state.live
			p.Waiting += state.waiting
			p.Rejected += state.rejected
			p.Dropped += state.dropped
		}
	}
	for r := range l.table.all.len() {
		rec := l.table.all.at(r)
		var by []ban.Operator
		own := false
		for v := range l.table.votesOf(r) {
			if isOwn(v.feed) {
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
	for o, record := range l.records() {
		at(o).Record = record
	}
	list := make([]Peer, 0, len(found))
	for _, p := range found {
		list = append(list, *p)
	}
	slices.SortFunc(list, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// met counts for those that had claimed a target, or a prefix around it, that it
// offended here: they were right.
func (l *book) met(topic int, target ban.Target) {
	var seen []ban.Operator
	if r, ok := l.table.find(topic, target); ok {
		seen = l.credit(r, true, seen)
	}
	l.table.around(topic, target, func(wider uint32) { seen = l.credit(wider, true, seen) })
}

// credit counts for the peers that claim a record's target whether they were right:
// met says that it offended here, otherwise a person unbanned it. Those that were seen
// already are counted once; it gives all of them.
func (l *book) credit(r uint32, met bool, seen []ban.Operator) []ban.Operator {
	for v := range l.table.votesOf(r) {
		if isOwn(v.feed) {
			continue
		}
		o := l.feeds.list[v.feed].feed.Operator
		if slices.Contains(seen, o) {
			continue
		}
		seen = append(seen, o)
		p := l.feeds.operator(o)
		l.feeds.pending.operator(o)
		if met {
			p.Met++
		} else {
			p.Overruled++
		}
	}
	return seen
}

// Met tells the ledger that a target offended here, where that did not lead to
// a ban: for peers' usefulness.
func (l *Peers) Met(topic ban.Topic, target ban.Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.table.topics[topic]; ok {
		l.met(t, target)
	}
}
