package federation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A Session shares bans with a network: it writes the node's own feeds, reads
// those of the operators that are followed, and holds the connections to all
// brokers. It never calls itself an authority on anything: what it hands on is
// who said what, verified.
type Session struct {
	o     Options
	links []*link
	in    chan packet
	up    chan *link
	kick  chan struct{}
	own   ban.Operator
	node  ban.Node

	mu        sync.Mutex
	following []Following
	topics    map[ban.Topic]bool // opted in to publish
	authors   map[ban.Topic]*author
	followers map[ban.Feed]*follower
	cards     map[ban.Operator]*cardState
	library   library
	verified  wire.Verifier
	fences    map[fence]*sightings
	restarts  map[ban.Topic]uint64 // epochs of ours that we forgot
	counts    Counts
	fx        effects
	base      map[string]int
	baseGen   int
	dirty     bool // what is followed, published or certified has changed
	refresh   bool // what lies beside the keys is to be read again
	lastLook  time.Time
	nextCheck time.Time
	nextAudit time.Time
}

// Options are what a [Session] needs.
type Options struct {
	Network  string
	Brokers  []Broker
	Identity *keys.Identity
	Store    *store.Store
	// Commit makes what protects against replays durable, by calling write in one
	// transaction with its own records of verified changes of followed feeds, in
	// order per feed. write is nil where there is nothing of that kind. Where it
	// fails the same changes come again, with later ones. It is never called by
	// two goroutines at once. May be nil where Apply is given.
	Commit func(ctx context.Context, write func(store.Tx) error, changes iter.Seq[ban.Change]) error
	// Apply is called with every change after it is durable. An error ends Run.
	// May be nil where Commit is given.
	Apply func(context.Context, ban.Change) error
	// Disputed is called with all that a followed feed's node disputes, as
	// often as that changes. May be nil.
	Disputed func(context.Context, ban.Feed, []ban.Claim) error
	// Trusted says whether the node knows an operator, and by what name. It is
	// for display only: Follow says whom to listen to. May be nil.
	Trusted func(ban.Operator) (name string, ok bool)
	Now     func() time.Time // nil for time.Now
	Log     *slog.Logger     // nil for none
}

// Following is a topic in which an operator is listened to.
type Following struct {
	Topic    ban.Topic
	Operator ban.Operator
}

// Counts are totals since the session was made.
type Counts struct {
	Received    uint64            `json:"received"`     // messages that brokers delivered
	Refused     map[string]uint64 `json:"refused"`      // by reason, a closed set of words
	Published   uint64            `json:"published"`    // messages handed to brokers, by broker
	Applied     uint64            `json:"applied"`      // changes handed on
	StoreErrors uint64            `json:"store_errors"` // transactions that failed
}

// cardState is the newest card of an operator.
type cardState struct {
	card *wire.Card
	raw  []byte
}

// How the session keeps time.
const (
	tickEvery = 250 * time.Millisecond
	// fenceWait is how long after subscribing to its own feeds an author
	// listens for what a broker holds, before it publishes there: an author
	// that was restored from a backup must not contradict itself.
	fenceWait = time.Second
	// auditEvery is how often everything is published again: a broker that
	// expires retained messages usually does so after a day.
	auditEvery = 12 * time.Hour
	// batchMost is how many messages share one durable transaction.
	batchMost = 256
	inMost    = 1024
)

// bucketCards keeps the newest card of each operator, verbatim.
const bucketCards = "cards"

// New makes a session. It reads the stored cards but starts nothing and calls
// nothing back.
func New(o Options) (*Session, error) {
	if err := wire.CheckNetwork(o.Network); err != nil {
		return nil, fmt.Errorf("network %w", err)
	}
	if o.Identity == nil || o.Store == nil || o.Apply == nil && o.Commit == nil {
		return nil, errors.New("a session needs an identity, a store, and Commit or Apply")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Session{
		o: o, in: make(chan packet, inMost), up: make(chan *link, len(o.Brokers)), kick: make(chan struct{}, 1),
		own: o.Identity.Operator(), node: o.Identity.Node(), topics: map[ban.Topic]bool{}, authors: map[ban.Topic]*author{},
		followers: map[ban.Feed]*follower{}, cards: map[ban.Operator]*cardState{}, library: newLibrary(),
		fences: map[fence]*sightings{}, restarts: map[ban.Topic]uint64{}, counts: Counts{Refused: map[string]uint64{}},
	}
	for i, b := range o.Brokers {
		l, err := newLink(i, b)
		if err != nil {
			return nil, err
		}
		l.login, l.now, l.log, l.in, l.up = o.Identity.Login, o.Now, o.Log, s.in, s.up
		s.links = append(s.links, l)
	}
	if err := s.loadCards(); err != nil {
		return nil, err
	}
	return s, s.loadDocuments()
}

func (s *Session) loadCards() error {
	err := s.o.Store.View(func(tx store.Tx) error {
		return tx.Each(bucketCards, "", func(k string, v []byte) error {
			raw := slices.Clone(v)
			card, err := wire.OpenCard(raw)
			if err != nil || card.Operator.String() != k {
				s.o.Log.Error("stored_card_damaged", "operator", k, "error", err)
				return nil // the brokers have it
			}
			s.cards[card.Operator] = &cardState{card, raw}
			return nil
		})
	})
	if card, raw := s.o.Identity.Card(); card != nil {
		s.cards[s.own] = &cardState{card, raw}
	}
	if err != nil {
		return fmt.Errorf("reading the cards: %w", err)
	}
	return nil
}

// Restore hands on what the stored feeds of all that is followed say, as
// changes that begin with a Reset, without any network. Call Follow first.
func (s *Session) Restore(ctx context.Context) error {
	s.mu.Lock()
	s.look()
	s.reconcile(&s.fx)
	s.mu.Unlock()
	return s.handOn(ctx)
}

// Run connects to the brokers and keeps everything in step until ctx ends; it
// waits for every goroutine that it started. Brokers that are down, at the
// start or later, are normal. It returns nil when ctx ends.
func (s *Session) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	s.mu.Lock()
	s.dirty, s.refresh = true, true
	s.nextAudit = s.o.Now().Add(auditEvery)
	s.mu.Unlock()
	for _, l := range s.links {
		wg.Go(func() {
			if l.broker.wait(ctx) {
				l.run(ctx)
			}
		})
	}
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		if err := s.step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case p := <-s.in:
			s.receive(p)
		case l := <-s.up:
			s.connected(l)
		case <-s.kick:
		case <-ticker.C:
			if err := s.tick(); err != nil {
				s.o.Log.Error("feed_not_kept", "error", err)
			}
		}
	}
}

// receive takes a message and those that wait behind it.
func (s *Session) receive(p packet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
	s.packet(p, &s.fx)
	for range batchMost {
		select {
		case p := <-s.in:
			s.packet(p, &s.fx)
		default:
			return
		}
	}
}

// step makes the effects of what was received durable and hands them on, then
// brings the subscriptions up to date.
func (s *Session) step(ctx context.Context) error {
	s.mu.Lock()
	s.look()
	if s.dirty {
		s.reconcile(&s.fx)
	}
	s.mu.Unlock()
	if err := s.handOn(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscriptions()
	return nil
}

// handOn commits the gathered writes together with the changes that they bring.
// If the store fails, everything waits for the next time: nothing is used
// before its mark is kept.
func (s *Session) handOn(ctx context.Context) error {
	s.mu.Lock()
	writes, changes, said := s.fx.writes, s.fx.changes, s.fx.disputes
	s.mu.Unlock()
	if err := s.commit(ctx, writes, changes); err != nil {
		s.mu.Lock()
		s.counts.StoreErrors++
		s.mu.Unlock()
		s.o.Log.Error("state_not_kept", "error", err)
		return nil
	}
	s.mu.Lock()
	if s.fx.news {
		s.tellNews()
	}
	s.fx.writes, s.fx.changes, s.fx.disputes, s.fx.news = nil, nil, nil, false
	s.counts.Applied += uint64(len(changes))
	s.mu.Unlock()
	for i := range changes {
		if s.o.Apply == nil {
			break
		}
		c := &changes[i]
		if err := s.o.Apply(ctx, c.change()); err != nil {
			return fmt.Errorf("applying a change of %v: %w", c.feed, err)
		}
		*c = change{} // its memory is free for the next one's
	}
	for _, d := range said {
		if s.o.Disputed == nil {
			break
		}
		if err := s.o.Disputed(ctx, d.feed, d.claims); err != nil {
			return fmt.Errorf("applying disputes of %v: %w", d.feed, err)
		}
	}
	return nil
}

// commit makes writes durable, with what Commit makes of the changes in the same
// transaction.
func (s *Session) commit(ctx context.Context, writes map[place][]byte, changes []change) error {
	var write func(store.Tx) error
	if len(writes) > 0 {
		write = func(tx store.Tx) error { return putAll(tx, writes) }
	}
	switch {
	case s.o.Commit != nil && (write != nil || len(changes) > 0):
		return s.o.Commit(ctx, write, func(yield func(ban.Change) bool) {
			for i := range changes {
				if !yield(changes[i].change()) {
					return
				}
			}
		})
	case write != nil:
		return s.o.Store.Update(write)
	}
	return nil
}

func putAll(tx store.Tx, writes map[place][]byte) error {
	for k, v := range writes {
		var err error
		if v == nil {
			err = tx.Delete(k.bucket, k.key)
		} else {
			err = tx.Put(k.bucket, k.key, v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Follow sets whom to listen to, in which topics: the whole desired set. What
// is no longer in it is handed on as an empty Reset.
func (s *Session) Follow(f []Following) {
	s.mu.Lock()
	s.following = slices.Clone(f)
	s.mu.Unlock()
	s.changed()
}

// Publish sets the topics in which the node's own feeds are published: the
// whole desired set. Publishing is an opt-in. A feed that was published and is
// no longer is withdrawn: it is empty for whoever follows it, and here; call
// SaySnapshot before it is published again.
func (s *Session) Publish(topics []ban.Topic) {
	s.mu.Lock()
	clear(s.topics)
	for _, t := range topics {
		s.topics[t] = true
	}
	s.mu.Unlock()
	s.changed()
}

// Refresh looks at once for a card and documents that commands have put beside
// the node's keys; without it that takes up to a minute.
func (s *Session) Refresh() {
	s.mu.Lock()
	s.refresh = true
	s.mu.Unlock()
}

// Published gives the topics in which the node's own feeds are published.
func (s *Session) Published() []ban.Topic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.topics))
}

func (s *Session) changed() {
	s.mu.Lock()
	s.dirty = true
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Say changes the node's own feed of a topic. It is durable when Say returns,
// and published if the topic is. Only the node's own claims may be said: that
// nothing is ever passed on from others is by construction, because this
// package never calls Say with what it received.
func (s *Session) Say(topic ban.Topic, add []ban.Claim, withdraw []ban.Withdrawal) error {
	now := s.o.Now()
	down := make([]wire.Withdrawal, 0, len(withdraw))
	for _, w := range withdraw {
		if !w.Target.IsZero() {
			down = append(down, wire.WithdrawalOf(w))
		}
	}
	up, down := wire.Settle(wire.SortClaims(add, now), down)
	return s.speak(topic, func(a *author) ([]outgoing, error) { return a.say(now, up, down) })
}

// SaySnapshot makes the node's own feed say exactly these claims. Only the
// difference is written and published, so that the caller may repair after a
// crash whatever Say was not told.
func (s *Session) SaySnapshot(topic ban.Topic, claims []ban.Claim) error {
	now := s.o.Now()
	es := wire.SortClaims(claims, now)
	return s.speak(topic, func(a *author) ([]outgoing, error) { return a.sayAll(now, es) })
}

func (s *Session) speak(topic ban.Topic, f func(*author) ([]outgoing, error)) error {
	s.mu.Lock()
	a, err := s.author(topic)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	// The author's lock is held over the store and over handing the messages
	// to the links, so that they leave in the order of their numbers.
	a.speaking.Lock()
	defer a.speaking.Unlock()
	out, err := f(a)
	if err != nil {
		return err
	}
	s.spread(a, out)
	return nil
}

// ownCard gives the operator's newest card.
func (s *Session) ownCard() *wire.Card {
	c, _ := s.o.Identity.Card()
	return c
}

// author opens the node's own feed of a topic. s.mu is held.
func (s *Session) author(topic ban.Topic) (*author, error) {
	if a := s.authors[topic]; a != nil {
		return a, nil
	}
	if _, err := ban.ParseTopic(string(topic)); err != nil || topic == wire.OperatorsLevel {
		return nil, fmt.Errorf("no feed can be about %q: %w", topic, ban.ErrTopic)
	}
	a, err := openAuthor(s.o.Network, topic, s.own, s.o.Identity.Signer(), s.ownCard, s.o.Store, s.o.Now())
	if err != nil {
		return nil, err
	}
	s.authors[topic] = a
	return a, nil
}

func (s *Session) keepCard(card *wire.Card, raw []byte) error {
	err := s.o.Store.Update(func(tx store.Tx) error { return tx.Put(bucketCards, card.Operator.String(), raw) })
	if err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	return nil
}
