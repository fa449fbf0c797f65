package federation

import (
	"errors"
	"log/slog"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// Nobody is "synced" with messages that nobody hands out, and nothing is "written" that
// nobody takes.
func TestFeedsAreCutOffWhileNoBrokerAnswers(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	bob.run()
	alice.say("sshd", "192.0.2.1")
	both := func(own, others string) func() bool {
		return func() bool { return alice.status(f).Status == own && bob.status(f).Status == others }
	}
	await(t, "the ban", both(StatusWriting, StatusSynced))
	b.stop()
	await(t, "the end of the broker", both(StatusCutOff, StatusCutOff))
	alice.say("sshd", "192.0.2.1", "192.0.2.2") // that bob knows nothing of
	if v := bob.status(f); v.Status != StatusCutOff || v.Issued.IsZero() {
		t.Errorf("cut off: %+v", v)
	}
	b.start()
	await(t, "the return", func() bool { return both(StatusWriting, StatusSynced)() && len(bob.has(f)) == 2 })
}

func TestAnAuthorWhoseMessagesNobodyAcknowledgesSaysSo(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	var later atomic.Int64
	alice := newNode(t, "alice", b.url)
	alice.clock = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	alice.run()
	alice.say("sshd", "192.0.2.1")
	await(t, "the publication", func() bool { return alice.status(f).Status == StatusWriting && alice.s.Brokers()[0].Unanswered == 0 })
	stalled := make(chan struct{})
	b.stalls.Store(&stalled)
	alice.say("sshd", "192.0.2.1", "192.0.2.2")
	await(t, "a message without an answer", func() bool { return alice.s.Brokers()[0].Unanswered > 0 })
	now := time.Now()
	for since, want := range map[time.Duration]bool{time.Second: false, unansweredAfter: false, unansweredAfter + time.Second: true} {
		if got := (BrokerStatus{Unanswered: 1, UnansweredSince: now.Add(-since)}).unanswered(now); got != want {
			t.Errorf("after %v: %v", since, got)
		}
	}
	later.Store(int64(unansweredAfter + time.Second))
	if got := alice.status(f).Status; got != StatusUnanswered {
		t.Errorf("after %v: %s", unansweredAfter, got)
	}
	b.stalls.Store(nil)
	close(stalled)
	await(t, "the answer", func() bool { return alice.status(f).Status == StatusWriting })
}

func TestABrokerThatEndsEachConnectionSoonSuggestsATwin(t *testing.T) {
	const soon, long = time.Second, contendedWithin
	for name, c := range map[string]struct {
		ends []time.Duration // 0: no connection came about
		want bool
	}{
		"thrice":                        {[]time.Duration{soon, soon, soon}, false},
		"four times":                    {[]time.Duration{soon, soon, soon, soon}, true},
		"after a long one":              {[]time.Duration{long, soon, soon, soon}, true},
		"a broker that restarts":        {[]time.Duration{soon, 0, soon, 0, soon, 0, soon, 0}, false},
		"a broker that is gone":         {[]time.Duration{long, 0, 0, 0, 0, 0}, false},
		"a long one ends the suspicion": {[]time.Duration{soon, soon, soon, soon, long}, false},
	} {
		l := &link{url: &url.URL{Scheme: "tcp", Host: "192.0.2.1:1883"}, now: time.Now, log: slog.New(slog.DiscardHandler)}
		for _, lasted := range c.ends {
			l.ended(lasted > 0, lasted)
			l.failed(errors.New("EOF"))
		}
		if got := l.status().Contended; got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestABrokerThatSaysSoSuggestsATwinAtOnce(t *testing.T) {
	l := &link{url: &url.URL{Scheme: "tcp", Host: "192.0.2.1:1883"}, now: time.Now, log: slog.New(slog.DiscardHandler)}
	notice, err := wire.AppendRefusal(nil, wire.Refusal{Reason: wire.RefusedTaken, Topic: wire.RefusalTopic, Count: 3})
	if err != nil {
		t.Fatal(err)
	}
	l.refuses(notice)
	if s := l.status(); !s.Contended || s.Refusal != (wire.Refusal{}) {
		t.Errorf("%+v", s)
	}
}
