package broker

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"
)

// Thirty days of a broker by moved clocks, with an upgrade every ten: an author
// that speaks daily stays, with its newest card and head; one that fell silent
// and strangers of a day go; logins work on each day with a proof of that day
// alone; nothing that is remembered grows with the days.
func TestABrokerKeepsWhatSpeaksThroughThirtyDays(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	dir, first := t.TempDir(), time.Now().Truncate(time.Second)
	var clock, uptime atomic.Int64 // since first, and since this run began
	now := func() time.Time { return first.Add(time.Duration(clock.Load())) }
	open := func() (*Broker, func()) {
		uptime.Store(0)
		b, err := New(Options{
			Network: "net", Keys: true, Names: []string{"broker.example"}, StateDir: dir, Now: now,
			Limits: Limits{DrainTime: time.Millisecond, FeedAge: 7 * day}, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		b.store.TestingOnlyElapsed(func() time.Duration { return time.Duration(uptime.Load()) })
		return b, run(t, b)
	}
	b, stop := open()
	defer func() { stop() }()
	daily, gone := newAuthor("daily"), newAuthor("gone")
	say := func(a *author, number uint64) {
		t.Helper()
		a.now = now()
		c := dial(t, b)
		defer c.nc.Close()
		c.connect(a.connecting(a.now.Add(time.Minute), "broker.example"))
		topic, card := a.card(t, number)
		c.publish(topic, card, 1, true)
		topic, head := a.head(number)
		c.publish(topic, head, 2, true)
		if m := b.store.Get(topic); m == nil || m.Number != number {
			t.Fatalf("day %d: the head is not retained", number)
		}
	}
	say(gone, 1)
	for d := uint64(1); d <= 30; d++ {
		yesterday := daily.connecting(now().Add(time.Minute), "broker.example")
		clock.Add(int64(day))
		uptime.Add(int64(day))
		b.store.Tick()
		say(daily, d)
		say(newAuthor(fmt.Sprint("stranger of day ", d)), d)
		old := dial(t, b)
		old.refusal(yesterday)
		for b.collectOnce() > 0 {
			continue
		}
		if n := b.store.Status().Messages; n > 2*(1+1+8) {
			t.Fatalf("day %d: %d messages are retained", d, n)
		}
		if n := len(b.admission.cards); n > 10 {
			t.Fatalf("day %d: %d cards are remembered", d, n)
		}
		if d%10 == 0 {
			stop()
			b, stop = open()
		}
	}
	if topic, _ := gone.head(1); b.store.Get(topic) != nil {
		t.Error("a feed of which nothing was heard for 30 days is retained")
	}
	if !b.admission.known(daily.feed.Operator) {
		t.Error("an operator of 30 days is not known")
	}
	reader := newAuthor("reader")
	reader.now = now()
	c := dial(t, b)
	c.connect(reader.connecting(reader.now.Add(time.Minute), "broker.example"))
	topic, want := daily.head(30)
	c.subscribe(topic, 1)
	if _, got, _ := c.message(); got != want {
		t.Error("a newcomer is not sent the newest head")
	}
}
