package federation

import (
	"maps"
	"slices"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// listening is the MQTT filters that a link listens to all the time, with what
// it asks for once when a filter is new.
type listening map[string]subscription

// A subscription is what belongs to one filter.
type subscription struct {
	weight  int      // retained messages that the filter may bring
	catchUp []string // filters whose retained messages are wanted once
	weights []int    // of catchUp
}

// always listens to a filter that brings retained messages.
func (l listening) always(filter string, weight int) { l[filter] = subscription{weight: weight} }

// live listens to a filter that brings none.
func (l listening) live(filter string) { l[filter] = subscription{} }

// once asks for retained messages when a live filter is new.
func (l listening) once(live, filter string, weight int) {
	h := l[live]
	h.catchUp, h.weights = append(h.catchUp, filter), append(h.weights, weight)
	l[live] = h
}

func (l listening) equal(other listening) bool {
	return maps.EqualFunc(l, other, func(a, b subscription) bool {
		return a.weight == b.weight && slices.Equal(a.catchUp, b.catchUp) && slices.Equal(a.weights, b.weights)
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
		case r.narrow[o]:
			r.listenByFeed(base, o, feeds[o])
		case total > filtersMost:
			r.listenByOperator(base, o, len(list), len(feeds[o]))
		default:
			r.listenByTopic(base, o, list)
		}
	}
}

// listenByOperator hears all topics and nodes of an operator by one filter.
func (r *reader) listenByOperator(base listening, o ban.Operator, topics, feeds int) {
	prefix := wire.Prefix + r.network + "/+/" + o.String()
	live := prefix + "/+/" + wire.KindLive.String()
	base.live(live)
	base.once(live, cardName(r.network, o).String(), 1)
	base.once(live, prefix+"/+/"+wire.KindHead.String(), max(feeds, topics))
	base.once(live, prefix+"/+/"+wire.KindDispute.String(), 1)
}

// listenByTopic hears all nodes of an operator in the topics that are followed.
func (r *reader) listenByTopic(base listening, o ban.Operator, topics []ban.Topic) {
	card := cardName(r.network, o)
	base.live(card.Live().String())
	base.once(card.Live().String(), card.String(), 1)
	for _, t := range topics {
		prefix := wire.Prefix + r.network + "/" + string(t) + "/" + o.String() + "/+/"
		live := prefix + wire.KindLive.String()
		base.live(live)
		base.once(live, prefix+wire.KindHead.String(), 4)
		base.once(live, prefix+wire.KindDispute.String(), 1)
	}
}

// listenByFeed hears the feeds that are followed, and nothing else.
func (r *reader) listenByFeed(base listening, o ban.Operator, feeds []ban.Feed) {
	card := cardName(r.network, o)
	base.live(card.Live().String())
	base.once(card.Live().String(), card.String(), 1)
	for _, f := range feeds {
		live := wire.FeedName(r.network, f, wire.KindLive, 0).String()
		base.live(live)
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
