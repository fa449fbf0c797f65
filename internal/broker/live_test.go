package broker

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// liveOf gives the MQTT topic of a message's live copy.
func liveOf(t *testing.T, topic string) string {
	t.Helper()
	n, err := wire.ParseTopicName(topic)
	if err != nil {
		t.Fatal(err)
	}
	return n.Live().String()
}

// Live copies reach who listens to an operator by one filter, and nobody who
// comes later.
func TestLiveCopiesAreHandedOnAndNotKept(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub, reader := a.join(t, b), newAuthor("bob").join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	filter := wire.Prefix + "net/+/" + a.feed.Operator.String() + "/+/live"
	if q := reader.subscribe(filter, 0); q != 0 {
		t.Fatalf("granted %#x", q)
	}
	pub.publish(liveOf(t, topic), card, 2, false)
	if where, payload, p := reader.message(); where != liveOf(t, topic) || payload != card || p.flags&1 != 0 {
		t.Errorf("heard %s, retained %v", where, p.flags&1 != 0)
	}
	at, head := a.head(1)
	pub.publish(at, head, 3, true)
	pub.publish(liveOf(t, at), head, 4, false)
	if where, payload, _ := reader.message(); where != liveOf(t, at) || payload != head {
		t.Errorf("heard %s", where)
	}
	reader.wantNothing() // the retained head matches no subscription
	late := newAuthor("carol").join(t, b)
	if q := late.subscribe(filter, 0); q != 0 {
		t.Fatalf("granted %#x", q)
	}
	late.wantNothing()
}

// A live copy is judged as the message that it is a copy of.
func TestLiveCopiesAreJudged(t *testing.T) {
	t.Parallel()
	b := community(t)
	a, e := newAuthor("alice"), newAuthor("eve")
	pub, thief := a.join(t, b), e.join(t, b)
	topic, card := a.card(t, 1)
	at, head := a.head(2)
	live := liveOf(t, at)
	pub.refusedFor(b, refusedCertificate, live, head, false)
	pub.publish(topic, card, 1, true)
	pub.refusedFor(b, refusedRetain, live, head, true)
	pub.refusedFor(b, refusedRetain, live, "", false)
	pub.refusedFor(b, refusedFormat, live, "no message", false)
	pub.refusedFor(b, refusedSignature, live, head[:len(head)-1]+"\x01", false)
	pub.refusedFor(b, refusedFormat, live, card, false) // a card is no node's
	other, foreign := e.head(1)
	pub.refusedFor(b, refusedPlacement, live, foreign, false)
	thief.refusedFor(b, refusedAccess, live, head, false)
	_ = other
	_, chunk := a.chunk(0, 1)
	pub.refusedFor(b, refusedFormat, live, chunk, false) // pieces have no copies
}

// The state behind a head is not signed, so that nobody may change it.
func TestNobodyChangesTheStateBehindAHead(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	at, head := a.head(1)
	pub.publish(at, head, 2, true)
	entry := []wire.Entry{{Key: ban.KeyOf(ban.MustTarget("192.0.2.1")), End: wire.Minutes(time.Now()) + 60}}
	pub.refusedFor(b, refusedStale, at, string(wire.AppendState([]byte(head), entry)), true)
}

// The index lists the states that are retained, and follows them.
func TestTheIndexListsTheStatesThatAreRetained(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	at, head := a.head(1)
	pub.publish(at, head, 2, true)
	ask := func(name string) *wire.Index {
		c := newAuthor(name).join(t, b)
		if q := c.subscribe(wire.IndexFilter("net"), 0); q != 0 {
			t.Fatalf("granted %#x", q)
		}
		where, payload, p := c.message()
		if !strings.HasPrefix(where, wire.IndexPrefix+"net/") || p.flags&1 == 0 {
			t.Errorf("heard %s with flags %#x", where, p.flags)
		}
		var x wire.Index
		if whole, err := x.Add([]byte(payload)); err != nil || !whole {
			t.Fatalf("%v %v", whole, err)
		}
		return &x
	}
	epoch := func(text string) uint64 {
		h, err := wire.Peek([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return h.Epoch
	}
	x := ask("bob")
	if x.Len() != 2 || !x.Has(wire.IndexOfCard(a.feed.Operator, 1)) || !x.Has(wire.IndexOfFeed(a.feed, epoch(head), 1, 0, 0)) {
		t.Errorf("%d entries; the card %v, the feed %v", x.Len(), x.Has(wire.IndexOfCard(a.feed.Operator, 1)), x.Has(wire.IndexOfFeed(a.feed, epoch(head), 1, 0, 0)))
	}
	at, head = a.head(2)
	pub.publish(at, head, 3, true)
	b.feedIndexes.mu.Lock()
	b.feedIndexes.of = nil // as after indexAge
	b.feedIndexes.mu.Unlock()
	if x = ask("carol"); !x.Has(wire.IndexOfFeed(a.feed, epoch(head), 2, 0, 0)) || x.Has(wire.IndexOfFeed(a.feed, epoch(head), 1, 0, 0)) {
		t.Error("the index is not of the newest head")
	}
	c := newAuthor("dave").join(t, b)
	for _, filter := range []string{wire.IndexFilter("other"), wire.IndexPrefix + "net/#", wire.IndexPrefix + "+/+", wire.IndexPrefix + "net/0"} {
		if q := c.subscribe(filter, 0); q != 0x80 {
			t.Errorf("%s is granted: %#x", filter, q)
		}
	}
}
