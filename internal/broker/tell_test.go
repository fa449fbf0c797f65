package broker

import (
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/wire"
)

// An author whose messages are acknowledged and not kept hears why, and nobody
// else does.
func TestTheRefusedAreToldWhy(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	b := community(t, func(o *Options) {
		o.Limits.FeedMessages = 1
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	a, e := newAuthor("alice"), newAuthor("eve")
	pub, other := a.join(t, b), e.join(t, b)
	for _, c := range []*client{pub, other} {
		if q := c.subscribe(wire.RefusalTopic, 0); q != 0 {
			t.Fatalf("granted %#x", q)
		}
	}
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	topic, chunk := a.chunk(0, 1)
	pub.publish(topic, chunk, 2, true)
	topic, chunk = a.chunk(1, 1)
	for range 3 {
		pub.refusedFor(b, refusedQuota, topic, chunk, true)
	}
	heard := func(count int) {
		t.Helper()
		where, notice, p := pub.message()
		r, err := wire.ParseRefusal([]byte(notice))
		if err != nil || where != wire.RefusalTopic || p.flags != 0 || r != (wire.Refusal{Reason: "quota", Topic: topic, Count: count}) {
			t.Errorf("heard %s %s: %v", where, notice, err)
		}
	}
	heard(1)
	pub.wantNothing() // once in a while is enough
	ahead.Store(int64(tellEvery))
	pub.refusedFor(b, refusedQuota, topic, chunk, true)
	heard(4)
	other.wantNothing()
	// Nobody else says anything there.
	other.refusedFor(b, refusedTopic, wire.RefusalTopic, "x", true)
	pub.wantNothing()
}

// Two machines with one key take each other's place for ever; one whose network
// broke does it once.
func TestWhoTakesAnothersPlaceAgainAndAgainIsTold(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	b := community(t, func(o *Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	a, e := newAuthor("alice"), newAuthor("eve")
	join := func(x *author, told int) {
		t.Helper()
		c := x.join(t, b)
		if q := c.subscribe(wire.RefusalTopic, 0); q != 0 {
			t.Fatalf("granted %#x", q)
		}
		if told == 0 {
			c.wantNothing()
			return
		}
		where, notice, _ := c.message()
		r, err := wire.ParseRefusal([]byte(notice))
		if err != nil || where != wire.RefusalTopic || r != (wire.Refusal{Reason: wire.RefusedTaken, Topic: wire.RefusalTopic, Count: told}) {
			t.Errorf("heard %s %s: %v", where, notice, err)
		}
	}
	for range takenTold {
		join(a, 0)
	}
	join(a, takenTold)
	join(e, 0) // nobody else hears of it
	join(a, takenTold+1)
	ahead.Store(int64(takenWithin))
	join(a, 0)
}
