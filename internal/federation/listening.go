package federation

import (
	"maps"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// listening is the MQTT filters that a link listens to all the time, with
// it asks for once when a filter is new.
type listening map[string]subscription

// A subscription holds the state of one filter.
type subscription struct {
	weight   int          // retained messages that the filter may bring
	operator ban.Operator // of a live filter
	catchUp  []string     // filters whose retained messages are wanted once
	weights  []int        // of catchUp
}

// always listens to a filter that brings retained messages.
func (l listening) always(filter string, weight int) { l[filter] = subscription{weight: weight} }

// live listens to a filter that brings none.
func (l listening) live(filter string, o ban.Operator) { l[filter] = subscription{operator: o} }

// once asks for retained messages when a live filter is new.
func (l listening) once(live, filter string, weight int) {
	h := l[live]
	h.catchUp, h.weights = append(h.catchUp, filter), append(h.weights, weight)
	l[live] = h
}

func (l listening) equal(other listening) bool {
	return maps.EqualFunc(l, other, func(a, b subscription) bool {
		return a.weight == b.weight && a.operator == b.operator && slices.Equal(a.catchUp, b.catchUp) && slices.Equal(a.weights, b.weights)
	})
}

// How many filters the reader takes. With filters by topic and operator nothing
// comes that nobody follows; where they would be more than filtersMost, an
// operator has one for all topics and nodes, and messages of those that are not
// followed are dropped before they are read.
const filtersMost = 1000

// An operator that sends more than its allowance of messages that nobody follows
// here is listened to by the names of its feeds alone from then on.
const (
	unfollowedBurst  = 4096
	unfollowedSecond = 20
)

// listen adds the MQTT filters that the reader listens to all the time.
func (r *reader) listen(base listening) {
	topics := map[ban.Operator][]ban.Topic{}
	for _, f := range r.following {
		if !slices.Contains(topics[f.Operator], f.Topic) {
			topics[f.Operator] = append(topics[f.Operator], f.Topic)
		}
	}
	total := 0
	for _, list := range topics {
		total += len(list) + 1
	}
	feeds := map[ban.Operator][]ban.Feed{}
	for feed, w := range r.followers {
		if w.halted == nil && w.quarantined == "" {
			feeds[feed.Operator] = append(feeds[feed.Operator], feed)
		}
	}
	for o, list := range topics {
		slices.Sort(list)
		switch {
		case total > filtersMost && r.most:
			r.listenToAll(base, list)
		case r.narrow[o]:
			r.listenByFeed(base, o, feeds[o])
		case total > filtersMost:
			r.listenByOperator(base, o, len(list), len(feeds[o]))
		default:
			r.listenByTopic(base, o, list)
		}
	}
}

// listenToAll hears everybody in the topics that are followed: for a reader who
// follows most of those whom the broker has.
func (r *reader) listenToAll(base listening, topics []ban.Topic) {
	none := ban.Operator{}
	cards := wire.Prefix + r.network + "/" + wire.OperatorsLevel + "/+/" + wire.KindCard.String()
	if _, ok := base[cards+"/live"]; !ok {
		base.live(cards+"/live", none)
		base.once(cards+"/live", cards, subscribeWeight)
	}
	for _, t := range topics {
		prefix := wire.Prefix + r.network + "/" + string(t) + "/+/+/"
		live := prefix + wire.KindLive.String()
		if _, ok := base[live]; ok {
			continue
		}
		base.live(live, none)
		if len(r.followers) > 0 {
			base.once(live, prefix+wire.KindHead.String(), subscribeWeight)
			base.once(live, prefix+wire.KindDispute.String(), subscribeWeight)
		}
	}
}

// listenByOperator hears all topics and nodes of an operator by one filter.
func (r *reader) listenByOperator(base listening, o ban.Operator, topics, feeds int) {
	prefix := wire.Prefix + r.network + "/+/" + o.String()
	live := prefix + "/+/" + wire.KindLive.String()
	base.live(live, o)
	base.once(live, cardName(r.network, o).String(), 1)
	if r.cards.of(o) == nil {
		return // nothing of its feeds is believed, nor heard, before its card
	}
	base.once(live, prefix+"/+/"+wire.KindHead.String(), max(feeds, topics))
	base.once(live, prefix+"/+/"+wire.KindDispute.String(), 1)
}

// listenByTopic hears all nodes of an operator in the topics that are followed.
func (r *reader) listenByTopic(base listening, o ban.Operator, topics []ban.Topic) {
	card := cardName(r.network, o)
	base.live(card.Live().String(), o)
	base.once(card.Live().String(), card.String(), 1)
	for _, t := range topics {
		prefix := wire.Prefix + r.network + "/" + string(t) + "/" + o.String() + "/+/"
		live := prefix + wire.KindLive.String()
		base.live(live, o)
		if r.cards.of(o) == nil {
			continue // nothing of its feeds is believed, nor heard, before its card
		}
		base.once(live, prefix+wire.KindHead.String(), 4)
		base.once(live, prefix+wire.KindDispute.String(), 1)
	}
}

// listenByFeed hears the feeds that are followed, and nothing else.
func (r *reader) listenByFeed(base listening, o ban.Operator, feeds []ban.Feed) {
	card := cardName(r.network, o)
	base.live(card.Live().String(), o)
	base.once(card.Live().String(), card.String(), 1)
	for _, f := range feeds {
		live := wire.FeedName(r.network, f, wire.KindLive, 0).String()
		base.live(live, o)
		base.once(live, wire.FeedName(r.network, f, wire.KindHead, 0).String(), 1)
		base.once(live, wire.FeedName(r.network, f, wire.KindDispute, 0).String(), 1)
	}
}

// follows says whether a live message's feed is followed, before a byte of it is
// read. Those of others cost their operator's allowance.
func (r *reader) follows(n wire.Name, now time.Time) bool {
	if r.followers[n.Feed()] != nil {
		return true
	}
	if r.most && !r.strangers.take(now, 1) {
		r.most, r.crowded, r.narrowed = false, true, true
		r.log.Warn("topics_narrowed", "why", "operators that are not followed here send many messages; only those that are followed are listened to")
	}
	if !r.listensTo(n.Operator) || r.narrow[n.Operator] {
		return false
	}
	a := r.unfollowed[n.Operator]
	if a == nil {
		a = &allowance{burst: unfollowedBurst, second: unfollowedSecond}
		if r.unfollowed == nil {
			r.unfollowed = map[ban.Operator]*allowance{}
		}
		r.unfollowed[n.Operator] = a
	}
	if !a.take(now, 1) {
		if r.narrow == nil {
			r.narrow = map[ban.Operator]bool{}
		}
		r.narrow[n.Operator] = true
		r.narrowed = true
		r.log.Warn("operator_narrowed", "operator", n.Operator, "why", "it sends many messages of topics or nodes that are not followed here; only its followed feeds are listened to")
	}
	return false
}

// filterOf gives the filter that hears a feed live.
func (r *reader) filterOf(f ban.Feed, base listening) string {
	for _, filter := range []string{
		wire.Prefix + r.network + "/" + string(f.Topic) + "/+/+/" + wire.KindLive.String(),
		wire.FeedName(r.network, f, wire.KindLive, 0).String(),
		wire.Prefix + r.network + "/" + string(f.Topic) + "/" + f.Operator.String() + "/+/" + wire.KindLive.String(),
		wire.Prefix + r.network + "/+/" + f.Operator.String() + "/+/" + wire.KindLive.String(),
	} {
		if _, ok := base[filter]; ok {
			return filter
		}
	}
	return ""
}

// indexLeast is from how many feeds on a broker is asked for its index first.
const indexLeast = 64

// compare asks for all that a broker's index shows to be other than it is here,
// and gives the operators whose retained messages are asked for by filters,
// because something of them was never heard. ok is false where that is most.
func (r *reader) compare(x *wire.Index, fx *effects) (unheard map[ban.Operator]bool, ok bool) {
	most := !r.crowded && x.Len() > 0 && x.Len() <= 2*len(r.following)
	r.narrowed = r.narrowed || most != r.most
	r.most = most
	unheard = map[ban.Operator]bool{}
	for _, f := range r.following {
		if r.cards.of(f.Operator) == nil {
			unheard[f.Operator] = true
		}
	}
	unseen, feeds := 0, 0
	for feed, w := range r.followers {
		if w.halted != nil || w.quarantined != "" {
			continue
		}
		feeds++
		if w.head == nil {
			unseen++
			unheard[feed.Operator] = true
		}
	}
	if feeds < indexLeast || unseen > feeds/4 {
		return nil, false
	}
	for feed, w := range r.followers {
		if w.head == nil || w.halted != nil || w.quarantined != "" || unheard[feed.Operator] {
			continue
		}
		n := w.head.N
		if w.sound && w.epoch == w.headEpoch {
			n = max(n, w.n)
		}
		if !x.Has(wire.IndexOfFeed(feed, w.headEpoch, n, w.disputeEpoch, w.disputeNumber)) {
			w.recheck, w.recheckDispute, w.tries = true, true, 0
			w.progress(fx)
		}
	}
	asked := map[ban.Operator]bool{}
	for _, f := range r.following {
		o := f.Operator
		if c := r.cards.of(o); c != nil && !asked[o] && !unheard[o] && !x.Has(wire.IndexOfCard(o, c.Serial)) {
			asked[o] = true
			r.cards.doubt(o, fx.now)
		}
	}
	return unheard, true
}
