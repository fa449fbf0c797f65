package ledger

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// feeds numbers the feeds of peers and keeps the decisions about them: whose
// claims wait, who is quarantined, how much of its budget each operator used.
type feeds struct {
	bounds    bounds
	numbers   map[ban.Feed]uint16
	list      []feedState // the first [ownFeeds] are those of our own sources
	free      []uint16    // numbers in the list that nothing on disk mentions
	nodes     map[ban.Operator]int
	budgets   map[budgetKey]*budget
	self      ban.Operator // whose other nodes have budgets of their own
	operators map[ban.Operator]*operator
	journal   journal
	known     map[ban.Feed]arrivals // of feeds that were not replayed yet, from before the start
	away      time.Duration         // how long this node heard nothing before Open
	opened    time.Time
	pending   pending
}

type feedState struct {
	feed ban.Feed
	live int // claims, those that do not count included
	// waiting counts those that wait for a person or for room, rejected those
	// that a person rejected.
	waiting, rejected int
	// dropped counts claims beyond the capacity of an operator, since the feed
	// was last heard whole.
	dropped     int
	generation  bool
	quarantined bool
	changed     bool // to be written
	replayed    bool // it was heard since Open
	// reset is how the claims of a Reset came that is not over; nil otherwise.
	reset *arrival
}

// turn puts a vote of the feed into a state.
func (s *feedState) turn(v *vote, h hold) {
	s.count(v.hold(), -1)
	v.setHold(h)
	s.count(h, 1)
}

// count takes votes in a state into account, or out of it.
func (s *feedState) count(h hold, n int) {
	switch h {
	case queued, guarded:
		s.waiting += n
	case rejected:
		s.rejected += n
	}
}

// forget is how long the journal's knowledge waits for a feed to be replayed
// after a start.
const forget = 15 * time.Minute

const (
	arrivalsBucket  = "ledger.peers"     // journal: when claims arrived, and whether they wait
	feedsBucket     = "ledger.feeds"     // one record a feed
	operatorsBucket = "ledger.operators" // one record an operator
	budgetsBucket   = "ledger.budgets"   // one record an operator and topic
	clockBucket     = "ledger.clock"     // when the ledger last wrote
)

func (f *feeds) init(b bounds) {
	f.bounds = b
	f.numbers = map[ban.Feed]uint16{}
	f.list = make([]feedState, ownFeeds)
	f.nodes = map[ban.Operator]int{}
	f.budgets = map[budgetKey]*budget{}
	f.operators = map[ban.Operator]*operator{}
	f.known = map[ban.Feed]arrivals{}
	f.journal = journal{bucket: arrivalsBucket, weigh: weighArrivals}
}

// number gives a feed's number, which it keeps over restarts, or why it can
// have none.
func (f *feeds) number(feed ban.Feed) (n uint16, full QuarantineReason) {
	if n, ok := f.numbers[feed]; ok {
		return n, ""
	}
	if len(f.list) >= f.bounds.feeds && len(f.free) == 0 || f.nodes[feed.Operator] >= f.bounds.nodes {
		return 0, QuarantineFeeds
	}
	state := feedState{feed: feed, replayed: true, quarantined: f.quarantined(feed.Operator)}
	if last := len(f.free) - 1; last >= 0 {
		n, f.free = f.free[last], f.free[:last]
		f.list[n] = state
	} else {
		n = uint16(len(f.list))
		f.list = append(f.list, state)
	}
	f.numbers[feed] = n
	f.nodes[feed.Operator]++
	f.pending.feed(n, f)
	return n, ""
}

func (f *feeds) quarantined(o ban.Operator) bool {
	known := f.operators[o]
	return known != nil && known.Quarantine != nil
}

// own counts the claims of our own sources.
func (f *feeds) own() (claims int) {
	for i := range f.list[:ownFeeds] {
		claims += f.list[i].live
	}
	return claims
}

// peers gives the feeds of peers and their numbers.
func (f *feeds) peers(yield func(uint16, *feedState) bool) {
	for i := ownFeeds; i < len(f.list); i++ {
		if f.list[i].feed.Topic != "" && !yield(uint16(i), &f.list[i]) {
			return
		}
	}
}

// feedRecord is a feed on disk.
type feedRecord struct {
	Number uint16 `json:"number"`
}

// load reads the records on disk. None of them is the bytes of others: those come back
// with [Peers.ApplyAll].
func (f *feeds) load(tx store.Tx, now time.Time) error {
	used, err := f.loadJournal(tx)
	if err != nil {
		return err
	}
	if err := f.loadOperators(tx); err != nil {
		return err
	}
	if err := f.loadBudgets(tx); err != nil {
		return err
	}
	if err := tx.Each(feedsBucket, "", func(key string, value []byte) error {
		feed, err := parseFeed(key)
		var r feedRecord
		if err != nil || json.Unmarshal(value, &r) != nil || isOwn(r.Number) || int(r.Number) >= f.bounds.feeds {
			return fmt.Errorf("feed %q: %w", key, ErrCorrupt)
		}
		a, says := used[r.Number]
		if !says {
			f.pending.forgotten = append(f.pending.forgotten, key)
			return nil // it says nothing, and its number is free again
		}
		for int(r.Number) >= len(f.list) {
			f.list = append(f.list, feedState{})
		}
		f.list[r.Number] = feedState{feed: feed, quarantined: f.quarantined(feed.Operator)}
		f.numbers[feed], f.known[feed] = r.Number, a.settle()
		f.nodes[feed.Operator]++
		return nil
	}); err != nil {
		return err
	}
	for n := ownFeeds; n < len(f.list); n++ {
		if _, says := used[uint16(n)]; !says && f.list[n].feed.Topic == "" {
			f.free = append(f.free, uint16(n))
		}
	}
	f.opened = now
	f.away = f.pending.loadClock(tx, now)
	return nil
}

// loadJournal reads when claims arrived, by feed number.
func (f *feeds) loadJournal(tx store.Tx) (used map[uint16]arrivals, err error) {
	used = map[uint16]arrivals{}
	err = f.journal.replay(tx, func(b []byte) error {
		return eachArrival(b, func(n uint16, a arrived) { used[n] = append(used[n], a) })
	})
	return used, err
}

func (f *feeds) loadOperators(tx store.Tx) error {
	return tx.Each(operatorsBucket, "", func(key string, value []byte) error {
		id, err := ban.ParseOperator(key)
		o := &operator{}
		if err != nil || json.Unmarshal(value, o) != nil {
			return fmt.Errorf("operator %q: %w", key, ErrCorrupt)
		}
		f.operators[id] = o
		return nil
	})
}

func parseFeed(key string) (feed ban.Feed, err error) {
	topic, rest, _ := strings.Cut(key, "/")
	operator, node, _ := strings.Cut(rest, "/")
	if feed.Topic, err = ban.ParseTopic(topic); err != nil {
		return feed, err
	}
	if feed.Operator, err = ban.ParseOperator(operator); err != nil {
		return feed, err
	}
	feed.Node, err = ban.ParseNode(node)
	return feed, err
}
