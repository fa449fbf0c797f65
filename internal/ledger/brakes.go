package ledger

import (
	"cmp"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

// A FeedBrake is how a feed stands to its own turnover, and what its operator
// has used of its budget in the topic.
type FeedBrake struct {
	Feed   ban.Feed           `json:"feed"`
	Brake  policy.Brake       `json:"brake"`
	Budget policy.BudgetState `json:"budget"`
	// Waiting is how many claims of the feed wait, for whatever reason.
	Waiting int `json:"waiting"`
}

// Brakes gives the numbers of every feed of a peer, those of which something
// waits first.
func (l *Ledger) Brakes() []FeedBrake {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	list := make([]FeedBrake, 0, 8)
	for _, state := range l.feeds.peers {
		limits := l.policy.Limits(state.feed.Topic)
		f := FeedBrake{Feed: state.feed, Brake: state.guard.State(limits, now), Waiting: state.held}
		if b := l.feeds.budgets[budgetKey{state.feed.Topic, state.feed.Operator}]; b != nil {
			f.Budget = b.State(limits, now)
		}
		list = append(list, f)
	}
	slices.SortFunc(list, func(a, b FeedBrake) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(a.Feed.String(), b.Feed.String()))
	})
	return list
}
