package federation

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A Session shares bans with a network. It holds the connections to all brokers
// and one lock, and hands every message to the part that it is for: a publisher
// for the node's own feeds, a reader for those that are followed, the cards and
// the documents. It never calls itself an authority on anything: it hands on who
// said which claim, verified.
type Session struct {
	o     Options
	links []*link
	in    chan packet
	up    chan *link
	kick  chan struct{}

	mu        sync.Mutex
	opener    *opener
	cards     *cards
	documents *documentStore
	publisher *publisher
	reader    *reader
	counts    Counts
	fx        effects
	base      listening // filters of every link; replaced, never changed
	baseGen   int
	running   bool // Run was called
	dirty     bool // followed, published or certified feeds have changed
	refresh   bool // the files beside the keys are to be read again
	lastLook  time.Time
	nextCheck time.Time
	nextAudit time.Time
}

// Options are the inputs of a [Session].
type Options struct {
	Network  string
	Brokers  []Broker
	Identity *keys.Identity
	Store    *store.Store
	// Commit judges verified changes of followed feeds, in order per feed, and
	// makes its own records of them durable in one transaction with those that
	// write writes. write is nil where there is nothing of that kind. Where it
	// fails the same changes come again, with later ones. It is never called by
	// two goroutines at once. May be nil where Apply is given.
	Commit func(ctx context.Context, write func(store.Tx) error, changes iter.Seq[ban.Change]) error
	// Apply is called with every verified change, after the marks that protect
	// against replays are durable and before the content is. An error that wraps
	// [ban.ErrLimit] quarantines the feed; any other ends Run. May be nil where
	// Commit is given.
	Apply func(context.Context, ban.Change) error
	// Disputed is called with all that a followed feed's node disputes, as
	// often as that changes; errors are as those of Apply. May be nil.
	Disputed func(context.Context, ban.Feed, []ban.Claim) error
	// Trusted says whether the node knows an operator, and by which name. It is
	// for display only: Follow says whom to listen to. May be nil.
	Trusted func(ban.Operator) (name string, ok bool)
	Now     func() time.Time // nil for time.Now
	Log     *slog.Logger     // nil for none
}

// How the session keeps time.
const (
	tickEvery = 250 * time.Millisecond
	// checkEvery is how often certificates are looked at without a reason.
	checkEvery = time.Minute
	// auditEvery is how often everything is published again: a broker that
	// expires retained messages usually does so after a day.
	auditEvery = 12 * time.Hour
	// clockStep is from where on a clock that goes back is a step: claims that
	// had ended by the clock before are in force again, so all is handed on again.
	clockStep = time.Minute
	// clockJump is from where on a clock that goes forward was set right, or the
	// machine slept.
	clockJump = 10 * time.Minute
	// batchMost is how many messages share one durable transaction.
	batchMost = 256
	inMost    = 1024
)

// New makes a session. It reads the stored cards and documents but starts
// nothing and calls nothing back.
func New(o Options) (*Session, error) {
	if err := wire.CheckNetwork(o.Network); err != nil {
		return nil, fmt.Errorf("network %w", err)
	}
	if o.Identity == nil || o.Store == nil || o.Apply == nil && o.Commit == nil {
		return nil, errors.New("a session needs an identity, a store and Commit or Apply")
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Session{
		o: o, in: make(chan packet, inMost), up: make(chan *link, len(o.Brokers)), kick: make(chan struct{}, 1),
		counts: Counts{Refused: map[string]uint64{}},
	}
	for i, b := range o.Brokers {
		l, err := newLink(i, b)
		if err != nil {
			return nil, err
		}
		l.login, l.now, l.log, l.in, l.up, l.compare = o.Identity.Login, o.Now, o.Log, s.in, s.up, s.index
		l.indexTopic = wire.IndexPrefix + o.Network + "/"
		s.links = append(s.links, l)
	}
	return s, s.makeParts()
}

// makeParts makes the parts that the session hands messages to.
func (s *Session) makeParts() (err error) {
	o := &s.o
	own := o.Identity.Operator()
	s.opener = &opener{counts: &s.counts}
	if s.cards, err = newCards(o); err != nil {
		return err
	}
	if s.documents, err = newDocumentStore(o, s.opener); err != nil {
		return err
	}
	s.publisher = &publisher{
		network: o.Network, own: own, identity: o.Identity, store: o.Store, log: o.Log, opener: s.opener, links: s.links, now: o.Now, mu: &s.mu,
		topics: map[ban.Topic]bool{}, authors: map[ban.Topic]*author{}, holdings: map[holding]*sightings{}, restarts: map[ban.Topic]uint64{},
	}
	s.reader = &reader{
		network: o.Network, own: own, node: o.Identity.Node, store: o.Store, log: o.Log, opener: s.opener, cards: s.cards,
		followers: map[ban.Feed]*follower{}, strangers: allowance{burst: unfollowedBurst, second: 5 * unfollowedSecond},
	}
	return nil
}

// Restore hands on the claims of the stored feeds of all that is followed, as
// changes that begin with a Reset, without any network. Call Follow first.
func (s *Session) Restore(ctx context.Context) error {
	s.mu.Lock()
	s.look()
	s.reconcile()
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
	s.dirty, s.refresh, s.running = true, true, true
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
			s.mu.Lock()
			s.publisher.onConnected(l, s.o.Now(), fenceWait)
			s.mu.Unlock()
		case <-s.kick:
		case <-ticker.C:
			if err := s.tick(); err != nil {
				s.o.Log.Error("feed_not_kept", "error", err)
			}
		}
	}
}

// Release ends the quarantine of an operator's feeds, which begin anew with the
// messages that the brokers have, and gives how many there were. It is durable
// when nil is returned.
func (s *Session) Release(o ban.Operator) (int, error) {
	var keys []string
	s.mu.Lock()
	for feed, w := range s.reader.followers {
		if feed.Operator == o && w.quarantined != "" {
			keys = append(keys, w.key("quarantine"))
		}
	}
	s.mu.Unlock()
	if len(keys) == 0 {
		return 0, nil
	}
	err := s.o.Store.Update(func(tx store.Tx) error {
		for _, k := range keys {
			if err := tx.Delete(bucketFeeds, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("ending the quarantine of %v: %w", o, err)
	}
	s.mu.Lock()
	if s.reader.released == nil {
		s.reader.released = map[ban.Operator]bool{}
	}
	s.reader.released[o] = true
	s.mu.Unlock()
	s.changed()
	return len(keys), nil
}

// step makes the effects of received messages durable and hands them on, then
// brings the subscriptions up to date.
func (s *Session) step(ctx context.Context) error {
	s.mu.Lock()
	s.look()
	if s.dirty || s.reader.narrowed {
		s.reader.narrowed = false
		s.reconcile()
	}
	s.mu.Unlock()
	if err := s.handOn(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.subscribe()
	return nil
}

// reconcile makes followers and authors those of the settings and cards, and
// works out the filters to listen to. s.mu is held.
func (s *Session) reconcile() {
	s.dirty = false
	s.nextCheck = s.fx.now.Add(checkEvery)
	s.reader.reconcile(&s.fx)
	s.publisher.openAll()
	for _, l := range s.links {
		s.publisher.onConnected(l, s.fx.now, 2*fenceWait)
	}
	base := listening{}
	base.always(cardName(s.o.Network, s.o.Identity.Operator()).String(), 1)
	s.documents.listen(base)
	s.reader.listen(base)
	s.publisher.listen(base)
	if s.base == nil || !base.equal(s.base) {
		s.base = base
		s.baseGen++
	}
}

// subscribe tells the links which topics to subscribe to. s.mu is held.
func (s *Session) subscribe() {
	fetch := s.reader.fetch(s.links, s.fx.now)
	for i, l := range s.links {
		topics, attempt := l.readsBack()
		for _, t := range topics {
			fetch[i][t] = attempt
		}
		l.wantIfNew(s.base, s.baseGen, fetch[i])
	}
}

// tick does everything that is due by the clock.
func (s *Session) tick() error {
	s.mu.Lock()
	now := s.look()
	missing, unseen := s.reader.retry(&s.fx)
	for _, l := range s.links {
		l.move(missing, unseen, now)
	}
	for _, l := range s.links {
		l.leaveAvoided(now)
	}
	check := !now.Before(s.nextCheck)
	s.dirty = s.dirty || check
	check, s.refresh = check || s.refresh, false
	audit := !now.Before(s.nextAudit)
	if audit {
		s.nextAudit = now.Add(auditEvery)
	}
	gone := s.publisher.onReadBack(now)
	jobs := s.publisher.onJobs(now, audit)
	s.dirty = s.cards.refreshOwn() || s.dirty
	documents := s.documents.outgoing()
	s.mu.Unlock()
	// The card first: a broker that admits only certified nodes refuses a feed
	// whose card it has not seen.
	s.publisher.announce(documents, audit, now)
	if err := s.publisher.answerTheft(now); err != nil {
		return err
	}
	for _, j := range jobs {
		if err := s.publisher.serve(j, now, audit, gone); err != nil {
			return err
		}
	}
	if check {
		s.readFiles()
	}
	if renewed, err := s.o.Identity.Renew(now); err != nil {
		return err
	} else if renewed {
		s.o.Log.Info("certificate_renewed", "until", s.o.Identity.Expires())
	}
	return nil
}

// readFiles takes the card and documents that commands have put beside the keys.
func (s *Session) readFiles() {
	if err := s.o.Identity.Refresh(); err != nil {
		s.o.Log.Error("card_not_read", "error", err)
	}
	offered, err := s.o.Identity.Documents()
	s.mu.Lock()
	unheld := s.documents.unheld(offered)
	s.mu.Unlock()
	kept, fault := s.documents.keep(unheld)
	if err = errors.Join(err, fault); err != nil {
		s.o.Log.Error("documents_not_read", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range kept {
		s.documents.held[m.Name] = m
		s.documents.tellNews()
	}
}

// look reads the clock for the effects that follow. s.mu is held.
func (s *Session) look() time.Time {
	now := s.o.Now()
	s.fx.now = now
	if now.Before(s.lastLook.Add(-clockStep)) {
		s.o.Log.Warn("clock_stepped_back", "by", s.lastLook.Sub(now))
		for _, w := range s.reader.followers {
			w.emitAll(&s.fx)
		}
	}
	if !s.lastLook.IsZero() && now.Sub(s.lastLook) > clockJump {
		// Messages that seemed to be of the future were refused.
		for _, l := range s.links {
			l.reconnect(errClock)
		}
	}
	s.lastLook = now
	return now
}

// changed has the session reconcile soon.
func (s *Session) changed() {
	s.mu.Lock()
	s.dirty = true
	s.mu.Unlock()
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

// Follow sets whom to listen to, in which topics: the whole desired set. Feeds
// that are no longer in it are handed on as an empty Reset.
func (s *Session) Follow(f []Following) {
	s.mu.Lock()
	s.reader.following = slices.Clone(f)
	s.mu.Unlock()
	s.changed()
}
