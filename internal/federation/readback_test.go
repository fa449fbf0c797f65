package federation

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

func TestPublishedMessagesAreReadBack(t *testing.T) {
	t.Parallel()
	a, b := wire.Name{Network: "n", Topic: "sshd", Kind: wire.KindHead}, wire.Name{Network: "n", Topic: "sshd", Kind: wire.KindDelta, Slot: 3}
	now := time.Unix(1_800_000_000, 0)
	var r readBack
	if r.due(now) || r.end(now, true) != nil {
		t.Error("it reads back before anything was published")
	}
	r.published([]outgoing{{a, []byte("one")}, {b, []byte("old")}}, now)
	r.published([]outgoing{{b, []byte("two")}}, now.Add(10*time.Second))
	if r.due(now.Add(20 * time.Second)) {
		t.Error("it reads back while more is published")
	}
	now = now.Add(10*time.Second + readBackQuiet)
	if !r.due(now) || r.due(now) {
		t.Error("it does not begin once when all is quiet")
	}
	r.shown(a, []byte("one"))
	r.published([]outgoing{{a, []byte("three")}}, now) // of the next time
	r.shown(b, []byte("old"))
	if lost := r.end(now.Add(time.Second), false); lost != nil {
		t.Errorf("lost %v before the broker has answered", lost)
	}
	if lost := r.end(now.Add(2*time.Second), true); lost != nil {
		t.Errorf("lost %v before the broker had the time to show it", lost)
	}
	lost := r.end(now.Add(2*time.Second+fenceWait), true)
	if len(lost) != 1 || lost[b] != wire.HashOf([]byte("two")) {
		t.Errorf("lost %v, want the second message", lost)
	}
	if len(r.sent) != 1 || r.sent[a] != wire.HashOf([]byte("three")) {
		t.Errorf("what was published meanwhile is %v", r.sent)
	}

	// A lost message is asked for again, and less and less often.
	for want := 2 * readBackLeast; want <= readBackMost; want *= 2 {
		r.published([]outgoing{{b, []byte("two")}}, now)
		now = r.next
		if r.due(now.Add(-time.Second)) {
			t.Error("no pause is kept")
		}
		now = now.Add(readBackQuiet)
		if !r.due(now) {
			t.Fatal("it is not read back")
		}
		now = now.Add(fenceWait)
		r.end(now, true)
		now = now.Add(fenceWait)
		r.end(now, true)
		if r.pause != want {
			t.Errorf("pause %v, want %v", r.pause, want)
		}
	}

	// Without an answer nothing is believed lost, and nothing is forgotten.
	r = readBack{}
	r.published([]outgoing{{a, []byte("one")}}, now)
	now = now.Add(readBackQuiet)
	r.due(now)
	if lost := r.end(now.Add(readBackWait), false); len(lost) != 0 {
		t.Errorf("lost %v, but the broker never answered", lost)
	}
	if len(r.sent) != 1 || r.asked != nil {
		t.Errorf("afterwards %+v", r)
	}

	// Somebody who never stops talking is read back all the same.
	r = readBack{}
	for at := time.Duration(0); at < readBackLate; at += time.Second {
		r.published([]outgoing{{a, []byte("one")}}, now.Add(at))
	}
	if !r.due(now.Add(readBackLate)) {
		t.Error("it is put off for ever")
	}
}

// A message that is replaced or withdrawn while it is read back is not lost, nor is a
// card in whose place another node of the operator has put a newer one.
func TestWhatWasReplacedMeanwhileIsNotLost(t *testing.T) {
	t.Parallel()
	head, delta := wire.Name{Network: "n", Topic: "sshd", Kind: wire.KindHead}, wire.Name{Network: "n", Topic: "sshd", Kind: wire.KindDelta, Slot: 3}
	card := wire.Name{Network: "n", Kind: wire.KindCard}
	now := time.Unix(1_800_000_000, 0)
	var r readBack
	r.published([]outgoing{{head, []byte("one")}, {delta, []byte("two")}, {card, []byte("card 1")}}, now)
	now = now.Add(readBackQuiet)
	if !r.due(now) {
		t.Fatal("it is not read back")
	}
	r.published([]outgoing{{head, []byte("four")}, {delta, nil}}, now)
	r.shown(head, []byte("four"))
	r.shown(card, []byte("card 2"))
	r.end(now, true)
	if lost := r.end(now.Add(fenceWait), true); len(lost) != 0 || r.lost != 0 {
		t.Errorf("lost %v", lost)
	}
	if len(r.sent) != 1 || r.sent[head] != wire.HashOf([]byte("four")) {
		t.Errorf("to be read back next: %v", r.sent)
	}
}

func TestWhatABrokerAcknowledgedAndLostIsPublishedAgain(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	var later atomic.Int64
	alice.clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	alice.stop()
	alice.open()
	f := alice.feed("sshd")
	b.loses.Store(true)
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the publication", func() bool { return alice.s.Counts().Published >= 2 && alice.s.Brokers()[0].Queued == 0 })
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	bob.run()
	await(t, "bob's connection", func() bool { return bob.s.Brokers()[0].Connected })
	b.loses.Store(false)
	later.Store(int64(readBackQuiet)) // nothing is said meanwhile
	await(t, "the ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
}

func TestALinkLeavesAnAddressWhereThingsAreMissing(t *testing.T) {
	t.Parallel()
	one, two := mochiBroker(t), mochiBroker(t) // as nodes of a cluster of which one has lost its memory
	alice, bob := newNode(t, "alice", one.url), newNode(t, "bob", two.url)
	var later atomic.Int64
	bob.others = []string{one.url}
	bob.clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	bob.stop()
	bob.open()
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	alice.say("sshd", "192.0.2.1")
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	bob.run()
	await(t, "the first address", func() bool { return bob.s.Brokers()[0].Connected })
	later.Store(int64(moveLeast))
	await(t, "the ban", func() bool { return slices.Equal(bob.has(f), []string{"192.0.2.1"}) })
	if got := bob.s.Brokers()[0]; got.URL != one.url {
		t.Errorf("it is at %s", got.URL)
	}
}

func TestALinkStaysWhereNothingIsMissing(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	l, err := newLink(0, Broker{URL: "tcp://a:1883", Others: []string{"tcp://b:1883"}})
	if err != nil {
		t.Fatal(err)
	}
	cut := func(missing bool, after time.Duration) bool {
		l.cut, l.connected, l.since = make(chan struct{}), true, now
		now = now.Add(after)
		l.move(missing, false, now)
		select {
		case <-l.cut:
			return true
		default:
			return false
		}
	}
	if cut(false, 24*time.Hour) {
		t.Error("it leaves without a reason")
	}
	for pause := moveLeast; pause < moveMost; pause *= 2 {
		if cut(true, pause-time.Second) {
			t.Errorf("it leaves before %v", pause)
		}
		if !cut(true, pause) {
			t.Errorf("it does not leave after %v", pause)
		}
	}
	if cut(true, moveMost-time.Second) || !cut(true, moveMost) {
		t.Error("the pause does not end at its most")
	}
	cut(false, time.Second)
	if !cut(true, moveLeast) {
		t.Error("the pause is not short again after all was there")
	}
	l.back.lost = 1
	l.moves = 0
	if !cut(false, moveLeast) {
		t.Error("it stays where what we publish is lost")
	}
	l.urls = l.urls[:1]
	if cut(true, moveMost) {
		t.Error("it leaves the only address")
	}
}
