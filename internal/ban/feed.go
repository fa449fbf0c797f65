package ban

import (
	"cmp"
	"fmt"
)

// A Feed names the claims of one node in one topic.
type Feed struct {
	Topic    Topic
	Operator Operator
	Node     Node
}

// String gives "topic/operator/node".
func (f Feed) String() string { return fmt.Sprintf("%s/%s/%s", f.Topic, f.Operator, f.Node) }

// Compare orders feeds by topic, operator and node.
func (f Feed) Compare(g Feed) int {
	return cmp.Or(
		cmp.Compare(f.Topic, g.Topic),
		cmp.Compare(string(f.Operator[:]), string(g.Operator[:])),
		cmp.Compare(string(f.Node[:]), string(g.Node[:])),
	)
}

// A Change is a verified step of a feed: claims that its author did not make
// before. A change with Reset replaces all that the feed said.
type Change struct {
	Feed Feed
	// Reset says that Claims is the feed's whole state, together with those of
	// the changes that follow, up to the first without More.
	Reset bool
	More  bool
	// Claims were added, or replace the feed's claim of the same target.
	Claims []Claim
	// Withdrawn are the claims that the author ended. Empty with Reset.
	Withdrawn []Withdrawal
}

// Withdraw gives withdrawals of targets for one reason.
func Withdraw(reason Reason, targets ...Target) []Withdrawal {
	out := make([]Withdrawal, len(targets))
	for i, t := range targets {
		out[i] = Withdrawal{Target: t, Reason: reason}
	}
	return out
}
