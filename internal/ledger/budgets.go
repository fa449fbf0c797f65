package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// budgetKey names a budget: one for all nodes of a peer, and one for each other
// node of this node's operator, so that a stolen one uses up its own alone.
type budgetKey struct {
	topic    ban.Topic
	operator ban.Operator
	node     ban.Node // zero for a peer
}

func (k budgetKey) String() string {
	s := string(k.topic) + "/" + k.operator.String()
	if k.node != (ban.Node{}) {
		s += "/" + k.node.String()
	}
	return s
}

func parseBudgetKey(s string) (k budgetKey, err error) {
	topic, rest, _ := strings.Cut(s, "/")
	operator, node, own := strings.Cut(rest, "/")
	if k.topic, err = ban.ParseTopic(topic); err != nil {
		return k, err
	}
	if k.operator, err = ban.ParseOperator(operator); err != nil || !own {
		return k, err
	}
	k.node, err = ban.ParseNode(node)
	return k, err
}

// keyOf gives the name of a feed's budget.
func (f *feeds) keyOf(feed ban.Feed) budgetKey {
	k := budgetKey{topic: feed.Topic, operator: feed.Operator}
	if feed.Operator == f.self && f.self != (ban.Operator{}) {
		k.node = feed.Node
	}
	return k
}

// budget is an operator's budget in a topic, over all of its nodes, and who
// waits for room in it.
type budget struct {
	policy.Budget
	standing
	decisions []voteAt // decided claims that wait for their day
	queue     []voteAt
	credited  bool // for the time that this node was away
	stored    int  // claims of the operator in the topic, those that wait included
}

// budgetRecord is a budget on disk.
type budgetRecord struct {
	*standing
	*policy.Spent
}

// standing is the record of an operator in a topic that survives restarts.
type standing struct {
	// Joined is when the operator was first heard in the topic, and Free how many
	// claims came in at its join without counting against its rate.
	Joined time.Time `json:"joined,omitzero"`
	Free   int       `json:"free,omitempty"`
	// Approved is until when a person lets the operator's claims in without
	// asking the guard.
	Approved time.Time `json:"approved_until,omitzero"`
	// Guard measures the operator's usual additions, over all of its nodes.
	Guard policy.Guard `json:"guard"`
}

// joinWindow is how long after it was first heard the state that an operator's
// nodes had before counts without a rate: once, whatever its nodes are, and as
// many claims as may be live.
const joinWindow = time.Hour

// mayJoin says whether one more claim of a Reset is part of the operator's join.
func (b *budget) mayJoin(l policy.Limits, now time.Time) bool {
	return now.Sub(b.Joined) < joinWindow && b.Free < l.Live
}

// capacity is how many claims of an operator are kept in a topic. Those that
// wait are among them, so it is more than may be live.
func capacity(l policy.Limits) int { return l.Live + l.Live/4 + 1000 }

// budget gives an operator's budget in a feed's topic.
func (f *feeds) budget(feed ban.Feed) *budget {
	key := f.keyOf(feed)
	b := f.budgets[key]
	if b == nil {
		b = &budget{}
		f.budgets[key] = b
	}
	return b
}

func (f *feeds) loadBudgets(tx store.Tx) error {
	return tx.Each(budgetsBucket, "", func(key string, value []byte) error {
		k, err := parseBudgetKey(key)
		b := &budget{}
		if err != nil || json.Unmarshal(value, &budgetRecord{&b.standing, &b.Spent}) != nil {
			return fmt.Errorf("budget %q: %w", key, ErrCorrupt)
		}
		f.budgets[k] = b
		return nil
	})
}
