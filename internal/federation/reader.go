package federation

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/store"
	"banmesh/internal/wire"
)

// A reader follows the feeds of all nodes of the operators that are listened
// to. The session's lock is held over every method.
type reader struct {
	network string
	own     ban.Operator
	node    func() ban.Node // this machine's, whose feeds are written and not read
	store   *store.Store
	log     *slog.Logger
	opener  *opener
	cards   *cards

	following []Following
	followers map[ban.Feed]*follower
	accounts  map[ban.Operator]*account
	// narrow are operators that are listened to by the names of their feeds
	// alone, for the messages that they sent beside them.
	narrow     map[ban.Operator]bool
	unfollowed map[ban.Operator]*allowance
	narrowed   bool // since the last reconcile
	// most says that most of those whom a broker has are followed here, so that
	// whole topics are listened to; crowded that this cost too much once.
	most, crowded bool
	strangers     allowance
	certified     map[ban.Operator]bool // whose card was known at the last reconcile
	released      map[ban.Operator]bool // whose quarantines end with the next reconcile
}

// Following is a topic in which an operator is listened to.
type Following struct {
	Topic    ban.Topic
	Operator ban.Operator
}

// listensTo says whether an operator's card is wanted.
func (r *reader) listensTo(o ban.Operator) bool {
	if o == r.own {
		return true
	}
	for _, f := range r.following {
		if f.Operator == o {
			return true
		}
	}
	return false
}

// hear takes a message of a feed. One that is not followed is dropped before a byte
// of the payload is read, and pieces that were not asked for before they cost a
// signature.
func (r *reader) hear(n wire.Name, p packet, fx *effects) {
	counts := r.opener.counts
	w := r.followers[n.Feed()]
	switch {
	case w == nil:
		counts.refuse(refusedUnknown)
		return
	case w.quarantined != "":
		counts.refuse(refusedQuarantined)
		return
	case w.halted != nil:
		counts.refuse(refusedStanding)
		return
	case len(p.payload) == 0:
		// Anybody can erase a retained message at a broker without rules. It
		// says nothing about the feed.
		counts.refuse(refusedEmpty)
		return
	case n.Kind.IsPiece() && !w.wants(n):
		counts.refuse(refusedUnasked)
		return
	}
	m, fresh, ok := r.opener.open(n, p, fx.now)
	if !ok {
		return
	}
	if fresh && !w.afford(n.Kind, p.payload, fx.now) {
		counts.refuse(refusedRate)
		return
	}
	if err := r.believable(m, fx.now); err != nil {
		counts.refuse(reasonOf(err))
		return
	}
	w.via = p.link
	before, wrong := w.replays, w.wrongStates
	if d, ok := m.Body.(*wire.Dispute); ok {
		w.onDispute(m, d, fx)
	} else {
		w.receive(m, fx)
	}
	if w.replays > before {
		counts.refuse(refusedReplay)
	}
	if w.wrongStates > wrong {
		// Nobody signed the state behind a head: it is the broker's word, and each
		// other one makes the same head cost a signature again.
		r.opener.bad(p, wire.ErrFormat, fx.now)
	}
}

// believable checks date and certificate of a verified message of a feed.
func (r *reader) believable(m *wire.Message, now time.Time) error {
	h := m.Header
	if h.Ahead(now) {
		return wire.ErrFuture
	}
	if h.Kind.IsPiece() {
		return nil // only pieces that a certified head names are ever used
	}
	c := r.cards.of(h.Operator)
	if c == nil {
		return wire.ErrUncertified
	}
	return c.Certifies(h.Signer, h.Issued)
}

// reconcile makes the followers those of the feeds that are followed and
// certified now.
func (r *reader) reconcile(fx *effects) {
	wanted := map[ban.Feed]bool{}
	for _, f := range r.following {
		for _, feed := range r.feedsOf(f) {
			wanted[feed] = true
		}
	}
	for feed, w := range r.followers {
		if !wanted[feed] {
			w.forget(fx)
			fx.changes = append(fx.changes, change{feed: feed, reset: true})
			fx.disputes = append(fx.disputes, disputed{feed, nil})
			delete(r.followers, feed)
		}
	}
	for feed := range wanted {
		w := r.followers[feed]
		if w == nil {
			w = r.follow(feed, fx)
		}
		if r.released[feed.Operator] && w.quarantined != "" {
			w.forget(fx)
			w.quarantined = ""
		}
		r.standing(w, fx)
	}
	clear(r.released)
	r.certified = map[ban.Operator]bool{}
	for _, f := range r.following {
		if r.cards.of(f.Operator) != nil {
			r.certified[f.Operator] = true
		}
	}
}

// feedsOf gives the feeds of all nodes that an operator certifies, or of which
// there is something in the store.
func (r *reader) feedsOf(f Following) (out []ban.Feed) {
	seen := map[ban.Node]bool{}
	if f.Operator == r.own {
		seen[r.node()] = true
	}
	add := func(n ban.Node) {
		if !seen[n] {
			seen[n] = true
			out = append(out, ban.Feed{Topic: f.Topic, Operator: f.Operator, Node: n})
		}
	}
	if c := r.cards.of(f.Operator); c != nil {
		for _, x := range c.Certificates {
			add(x.Node())
		}
	}
	prefix := fmt.Sprintf("%s/%s/%s/", r.network, f.Topic, f.Operator)
	err := r.store.View(func(tx store.Tx) error {
		return tx.Each(bucketFeeds, prefix, func(k string, _ []byte) error {
			node, record, _ := strings.Cut(k[len(prefix):], "/")
			if n, err := ban.ParseNode(node); err == nil && (record == "base" || record == "quarantine") {
				add(n)
			}
			return nil
		})
	})
	if err != nil {
		r.log.Error("stored_feeds_not_listed", "error", err)
	}
	return out
}

// follow begins to follow a feed with the state that the store has of it.
func (r *reader) follow(feed ban.Feed, fx *effects) *follower {
	w := newFollower(r.network, feed)
	w.account = r.accountOf(feed.Operator)
	err := r.store.View(func(tx store.Tx) error { return w.load(tx) })
	if err != nil {
		r.log.Error("stored_feed_damaged", "feed", feed, "error", err)
		stored, why := w.stored, w.quarantined
		w.set, w.pending, w.join = set{}, pendingDeltas{}, nil
		w.settle()
		*w = *newFollower(r.network, feed)
		w.account = r.accountOf(feed.Operator)
		w.stored, w.quarantined = stored, why
		w.headEpoch, w.headNumber, w.headHash, w.frozen, w.stolen = stored.headEpoch, stored.headNumber, stored.headHash, stored.frozen, stored.stolen
		w.drop(fx)
	}
	r.followers[feed] = w
	if r.certified[feed.Operator] && w.head == nil {
		// A node that was certified after its operator's feeds were asked for.
		w.tries, w.triedAt = 1, fx.now
	}
	w.emitAll(fx)
	if w.disputeClaims != nil {
		fx.disputes = append(fx.disputes, disputed{feed, w.disputeClaims})
	}
	w.progress(fx)
	return w
}

// standing halts a feed whose node may not speak, and purges a revoked one.
func (r *reader) standing(w *follower, fx *effects) {
	was := w.halted
	w.halted = wire.ErrUncertified
	if c := r.cards.of(w.feed.Operator); c != nil {
		if since, ok := c.RevokedSince(w.feed.Node); ok {
			w.halted = wire.ErrRevoked
			w.purge(since, fx)
		} else {
			for _, x := range c.Certificates {
				if x.Node() == w.feed.Node && c.Certifies(x.Key, fx.now) == nil {
					w.halted = nil
				}
			}
		}
	}
	if w.halted != was {
		w.recheck = w.halted == nil
		r.log.Info("feed_standing", "feed", w.feed, "status", w.status(fx.now))
	}
	w.progress(fx)
}

// missingCards gives the operators of whom a head that is believed names a card
// that nobody has delivered: until it comes, a revocation may be in it.
func (r *reader) missingCards() map[ban.Operator]bool {
	out := map[ban.Operator]bool{}
	for feed, w := range r.followers {
		if w.halted == nil && w.head != nil && r.cards.lacks(feed.Operator, w.head.CardSerial, w.head.CardHash) {
			out[feed.Operator] = true
		}
	}
	return out
}

// quarantine ends a feed whose content this node cannot take: its claims leave
// and nothing more is heard of it, until a person begins anew with it.
func (r *reader) quarantine(feed ban.Feed, why error, fx *effects) {
	w := r.followers[feed]
	if w == nil || w.quarantined != "" {
		return
	}
	r.log.Error("feed_quarantined", "feed", feed, "error", why, "hint", "its claims are not in force; agent undo OPERATOR --release begins anew with it")
	w.quarantined = why.Error()
	w.drop(fx)
	fx.mark(bucketFeeds, w.key("quarantine"), []byte(w.quarantined))
	fx.changes = append(fx.changes, change{feed: feed, reset: true})
	fx.disputes = append(fx.disputes, disputed{feed, nil})
}

// retry makes new plans where a feed has waited long enough. It says whether
// anything has been missing for long that somebody said,
// and whether there are feeds or cards of which nothing was ever seen.
func (r *reader) retry(fx *effects) (missing, unseen bool) {
	for _, w := range r.followers {
		if w.halted != nil || w.quarantined != "" {
			continue
		}
		w.wake(fx)
		if w.retry(fx.now) {
			w.progress(fx)
		}
		unseen = unseen || w.unseen() && w.tries > 0
		missing = missing || len(w.wanted) > 0 && w.tries > 2 && !w.unseen()
	}
	for _, f := range r.following {
		unseen = unseen || r.cards.of(f.Operator) == nil
	}
	return missing, unseen
}

// fetch gives each link the topics to ask for now, with the attempt.
func (r *reader) fetch(links []*link, now time.Time) []map[string]int {
	var live []*link
	for _, l := range links {
		if l.alive() {
			live = append(live, l)
		}
	}
	fetch := make([]map[string]int, len(links))
	for i := range fetch {
		fetch[i] = map[string]int{}
	}
	missing := r.cards.ask(r.missingCards(), now)
	if len(live) == 0 {
		return fetch
	}
	for o, tries := range missing {
		// Everywhere at once: a broker that withholds a card must not delay it.
		for _, l := range live {
			fetch[l.index][cardName(r.network, o).String()] = 1 + tries
		}
	}
	for _, w := range r.followers {
		if len(w.wanted) == 0 || w.halted != nil || w.quarantined != "" || w.unseen() && !w.asksUnseen(now) {
			continue
		}
		// First ask where the feed was last heard, then everywhere in turn.
		at := 0
		for i, l := range live {
			if l == w.via {
				at = i
			}
		}
		l := live[(at+w.tries)%len(live)]
		for _, n := range w.wanted {
			fetch[l.index][n.String()] = w.tries
		}
	}
	return fetch
}

// cardName names an operator's card.
func cardName(network string, o ban.Operator) wire.Name {
	return wire.Name{Network: network, Kind: wire.KindCard, Operator: o}
}

// statuses gives how all that is followed stands, in no order.
func (r *reader) statuses(now time.Time) []FeedStatus {
	missing := r.missingCards()
	out := make([]FeedStatus, 0, len(r.followers))
	for feed, w := range r.followers {
		v := w.feedStatus(now)
		if v.Status == StatusSynced && missing[feed.Operator] {
			v.Status, v.Why = StatusWithheld, "a head names a newer card of the operator than any broker delivers: a revocation may be in it"
		}
		if c := r.cards.of(feed.Operator); c != nil {
			v.Name = c.Name
		}
		out = append(out, v)
	}
	return out
}
