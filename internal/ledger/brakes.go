package ledger

import (
	"cmp"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A PeerBrake is how a peer stands to its own turnover in a topic, over all of
// its nodes, and how much of its budget there it has used.
type PeerBrake struct {
	Topic    ban.Topic          `json:"topic"`
	Operator ban.Operator       `json:"operator"`
	Node     ban.Node           `json:"node,omitzero"` // of another node of this operator
	Brake    policy.Brake       `json:"brake"`
	Budget   policy.BudgetState `json:"budget"`
	// Waiting is how many of its claims wait for a person or for room; Approved until
	// when a person lets all in.
	Waiting  int       `json:"waiting"`
	Approved time.Time `json:"approved_until,omitzero"`
}

// Brakes gives the numbers of every peer and topic, those of which something
// waits first.
func (l *Peers) Brakes() []PeerBrake {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	waiting := map[budgetKey]int{}
	for _, state := range l.feeds.peers {
		waiting[l.feeds.keyOf(state.feed)] += state.waiting
	}
	list := make([]PeerBrake, 0, len(l.feeds.budgets))
	for key, b := range l.feeds.budgets {
		limits := l.policy.LimitsOf(key.topic, key.operator)
		p := PeerBrake{Topic: key.topic, Operator: key.operator, Node: key.node, Brake: b.Guard.State(limits, now), Budget: b.State(limits, now), Waiting: waiting[key]}
		if b.Approved.After(now) {
			p.Approved = b.Approved
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b PeerBrake) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Topic, b.Topic), slices.Compare(a.Operator[:], b.Operator[:]), slices.Compare(a.Node[:], b.Node[:]))
	})
	return list
}
