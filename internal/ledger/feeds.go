package ledger

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
	"banmesh/internal/store"
)

// feeds numbers the feeds; number 0 is this node's own. It also keeps what is
// decided about peers: what waits, who is quarantined, what they used up.
type feeds struct {
	numbers   map[ban.Feed]uint16
	list      []feedState
	budgets   map[budgetKey]*budget
	operators map[ban.Operator]*peer
	journal   journal
	pending   []pendingVote // to be written to the journal
	known     map[ban.Feed]map[ban.Target]knownVote
	away      time.Duration // how long this node heard nothing before Open
	opened    time.Time
	saved     time.Time // when changed feeds and peers were written last
	urgent    bool      // something waits that is not written
}

// ownFeed is the number of this node's own claims, in every topic.
const ownFeed = 0

type feedState struct {
	feed        ban.Feed
	live        int
	held        int
	generation  bool
	quarantined bool
	changed     bool // to be written
	guard       policy.Guard
	// base is when the feed was first heard. Claims that arrived then are not
	// in the journal.
	base uint32
	// replayed says that the feed was heard since Open; before that, allowed is
	// how many claims it may repeat that the journal does not know.
	replayed bool
	allowed  int
	// reset is how the claims of a Reset came that is not over; nil otherwise.
	reset *arrival
}

type budgetKey struct {
	topic    ban.Topic
	operator ban.Operator
}

// budget is an operator's budget in a topic and who waits for room in it.
type budget struct {
	policy.Budget
	queue []queuedVote
}

type queuedVote struct {
	record uint32
	feed   uint16
}

// pendingVote is a vote whose arrival or hold has to be written down.
type pendingVote struct {
	record uint32
	feed   uint16
}

// knownVote is what the journal knows of a claim that a feed will repeat.
type knownVote struct {
	since uint32
	hold  hold
}

const (
	peersBucket     = "ledger.peers"     // journal: when claims arrived, and whether they wait
	feedsBucket     = "ledger.feeds"     // one record a feed
	operatorsBucket = "ledger.operators" // one record an operator
	clockBucket     = "ledger.clock"     // when the ledger last wrote
)

// How often what is not urgent is written.
const (
	saveEvery = time.Minute
	flushAt   = 4096 // arrivals
	// forget is how long the journal's knowledge waits for a feed to be
	// replayed after a start.
	forget = 15 * time.Minute
)

func (f *feeds) init() {
	f.numbers = map[ban.Feed]uint16{}
	f.list = []feedState{{}}
	f.budgets = map[budgetKey]*budget{}
	f.operators = map[ban.Operator]*peer{}
	f.known = map[ban.Feed]map[ban.Target]knownVote{}
	f.journal.bucket = peersBucket
}

// number gives a feed's number, which it keeps over restarts.
func (l *Ledger) number(feed ban.Feed, now time.Time) (uint16, error) {
	f := &l.feeds
	if n, ok := f.numbers[feed]; ok {
		return n, nil
	}
	if len(f.list) == maxFeeds {
		return 0, fmt.Errorf("%w: more than %d feeds", ErrTooMany, maxFeeds)
	}
	n := uint16(len(f.list))
	f.numbers[feed] = n
	state := feedState{feed: feed, base: seconds(now), changed: true, replayed: true}
	if p := f.operators[feed.Operator]; p != nil {
		state.quarantined = p.Quarantine != nil
	}
	f.list = append(f.list, state)
	return n, nil
}

func (l *Ledger) budget(feed ban.Feed) *budget {
	key := budgetKey{feed.Topic, feed.Operator}
	b := l.feeds.budgets[key]
	if b == nil {
		b = &budget{}
		l.feeds.budgets[key] = b
	}
	return b
}

// feedRecord is a feed on disk.
type feedRecord struct {
	Number uint16       `json:"number"`
	Base   uint32       `json:"base"`
	Live   int          `json:"live"` // claims that counted
	Guard  policy.Guard `json:"guard"`
}

func (l *Ledger) loadFeeds(tx store.Tx, now time.Time) error {
	f := &l.feeds
	byNumber := map[uint16]ban.Feed{}
	highest := uint16(0)
	records := map[ban.Feed]feedRecord{}
	if err := tx.Each(feedsBucket, "", func(key string, value []byte) error {
		feed, err := parseFeed(key)
		var r feedRecord
		if err != nil || json.Unmarshal(value, &r) != nil || r.Number == ownFeed || r.Number >= maxFeeds {
			return fmt.Errorf("feed %q: %w", key, ErrCorrupt)
		}
		byNumber[r.Number], records[feed] = feed, r
		highest = max(highest, r.Number)
		return nil
	}); err != nil {
		return err
	}
	if err := tx.Each(operatorsBucket, "", func(key string, value []byte) error {
		o, err := ban.ParseOperator(key)
		p := &peer{}
		if err != nil || json.Unmarshal(value, p) != nil {
			return fmt.Errorf("operator %q: %w", key, ErrCorrupt)
		}
		f.operators[o] = p
		return nil
	}); err != nil {
		return err
	}
	f.list = make([]feedState, int(highest)+1)
	for n, feed := range byNumber {
		r := records[feed]
		f.numbers[feed] = n
		// What arrived in the last moments before a crash is not in the journal,
		// and is less than a guard lets pass in an hour.
		limits := l.policy.Limits(feed.Topic)
		f.list[n] = feedState{feed: feed, base: r.Base, guard: r.Guard, allowed: r.Live + max(limits.HoldFloor, r.Live*limits.HoldChange/100)}
		if p := f.operators[feed.Operator]; p != nil {
			f.list[n].quarantined = p.Quarantine != nil
		}
	}
	if err := f.journal.replay(tx, func(b []byte) error {
		n, target, k, err := decodeVote(b)
		if err != nil {
			return err
		}
		feed, ok := byNumber[n]
		if !ok {
			return nil // of a feed that was forgotten
		}
		if f.known[feed] == nil {
			f.known[feed] = map[ban.Target]knownVote{}
		}
		f.known[feed][target] = k
		return nil
	}); err != nil {
		return err
	}
	f.opened = now
	if b := tx.Get(clockBucket, "saved"); len(b) == 8 {
		last := time.Unix(int64(binary.LittleEndian.Uint64(b)), 0)
		const most = 30 * 24 * time.Hour // a clock that jumped is no reason to believe everything
		f.away = min(max(0, now.Sub(last)), most)
	}
	f.saved = now
	return nil
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

func encodeVote(n uint16, t ban.Target, k knownVote) []byte {
	b := binary.LittleEndian.AppendUint16(make([]byte, 0, 28), n)
	b = appendTarget(b, t)
	b = binary.LittleEndian.AppendUint32(b, k.since)
	return append(b, byte(k.hold))
}

func decodeVote(b []byte) (n uint16, t ban.Target, k knownVote, err error) {
	if len(b) < 2 {
		return 0, t, k, fmt.Errorf("a claim's arrival: %w", ErrCorrupt)
	}
	n = binary.LittleEndian.Uint16(b)
	t, rest, err := cutTarget(b[2:])
	if err != nil || len(rest) != 5 || rest[4] > byte(rejected) {
		return 0, t, k, fmt.Errorf("a claim's arrival: %w", ErrCorrupt)
	}
	return n, t, knownVote{binary.LittleEndian.Uint32(rest), hold(rest[4])}, nil
}

// note remembers to write down when a vote arrived and whether it waits.
func (l *Ledger) note(r uint32, f uint16) {
	l.feeds.pending = append(l.feeds.pending, pendingVote{r, f})
}

// save writes what is pending about peers. With nothing pending it writes
// nothing.
func (l *Ledger) save(now time.Time) error {
	f := &l.feeds
	var records [][]byte
	for _, p := range f.pending {
		if rec := l.table.all.at(p.record); rec.kind != ban.KindNone && rec.topicName(&l.table) == f.list[p.feed].feed.Topic {
			if v := l.table.vote(p.record, p.feed); v != nil {
				records = append(records, encodeVote(p.feed, l.table.target(p.record), knownVote{v.since, v.hold()}))
			}
		}
	}
	next := f.journal
	err := l.update(func(tx store.Tx) (err error) {
		for i := 1; i < len(f.list); i++ {
			state := &f.list[i]
			if !state.changed {
				continue
			}
			value, err := json.Marshal(feedRecord{uint16(i), state.base, state.live - state.held, state.guard})
			if err != nil {
				return err
			}
			if err := tx.Put(feedsBucket, state.feed.String(), value); err != nil {
				return err
			}
		}
		for o, p := range f.operators {
			if !p.changed {
				continue
			}
			value, err := json.Marshal(p)
			if err != nil {
				return err
			}
			if err := tx.Put(operatorsBucket, o.String(), value); err != nil {
				return err
			}
		}
		if err := tx.Put(clockBucket, "saved", binary.LittleEndian.AppendUint64(nil, uint64(max(0, now.Unix())))); err != nil {
			return err
		}
		next, err = f.journal.write(tx, records, l.table.live, l.stillKnown)
		return err
	})
	if err != nil {
		return fmt.Errorf("writing what is known of peers: %w", err)
	}
	f.journal, f.pending, f.saved, f.urgent = next, nil, now, false
	for i := range f.list {
		f.list[i].changed = false
	}
	for _, p := range f.operators {
		p.changed = false
	}
	return nil
}

func (rec *record) topicName(t *table) ban.Topic { return t.byTopic[rec.topic].name }

// stillKnown gives a record of the peers' journal back if it is what the
// ledger holds now, or what a feed that was not replayed yet will need.
func (l *Ledger) stillKnown(b []byte) []byte {
	n, target, k, err := decodeVote(b)
	if err != nil || int(n) >= len(l.feeds.list) {
		return nil
	}
	feed := l.feeds.list[n].feed
	if waiting, ok := l.feeds.known[feed][target]; ok && waiting == k {
		return b
	}
	topic, ok := l.table.topics[feed.Topic]
	if !ok {
		return nil
	}
	r, ok := l.table.find(topic, target)
	if !ok {
		return nil
	}
	if v := l.table.vote(r, n); v == nil || v.since != k.since || v.hold() != k.hold {
		return nil
	}
	return b
}

// tidy does what is due about peers; the lock is held.
func (l *Ledger) tidy(now time.Time) {
	f := &l.feeds
	if len(f.known) > 0 && now.Sub(f.opened) > forget {
		clear(f.known)
	}
	for key, b := range f.budgets {
		if len(b.queue) > 0 {
			l.release(key, b, now)
		}
	}
	if err := l.history.flush(); err != nil {
		l.log.Error("the history is not written", "error", err)
	}
	if len(f.pending) >= flushAt || f.urgent || now.Sub(f.saved) >= saveEvery {
		if err := l.save(now); err != nil {
			l.log.Error("what is known of peers is not written", "error", err)
			f.saved = now // again in a while, not at every tick
		}
	}
}
