package federation

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"banmesh/internal/ban"
	"banmesh/internal/mqttguard"
	"banmesh/internal/wire"
)

// following gives a reader that listens to operators in topics.
func following(operators, topics int) *reader {
	r := &reader{network: "testnet", cards: &cards{held: map[ban.Operator]*cardState{}, asked: map[ban.Operator]*asking{}, doubted: map[ban.Operator]time.Time{}}, strangers: allowance{burst: unfollowedBurst, second: 5 * unfollowedSecond}, followers: map[ban.Feed]*follower{}, log: slog.New(slog.DiscardHandler)}
	for o := range operators {
		id := ban.Operator{byte(o >> 8), byte(o), 1}
		r.cards.held[id] = &cardState{card: &wire.Card{}}
		for t := range topics {
			topic := ban.Topic(fmt.Sprintf("topic-%d", t))
			r.following = append(r.following, Following{topic, id})
			f := ban.Feed{Topic: topic, Operator: id, Node: ban.Node{byte(o >> 8), byte(o), 2}}
			r.followers[f] = newFollower("testnet", f)
		}
	}
	return r
}

// matches is the rule of MQTT for filters without #.
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if len(f) != len(t) {
		return false
	}
	for i := range f {
		if f[i] != "+" && f[i] != t[i] {
			return false
		}
	}
	return true
}

// A thousand operators in ten topics are heard by a thousand filters, all of
// them; few operators by filters that bring nothing that is not followed.
func TestFiltersAreFewAndHearEveryFeed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ operators, topics, most int }{{1, 1, 2}, {300, 6, 300}, {1000, 10, 1000}, {500, 1, 1000}, {501, 1, 501}} {
		r := following(tt.operators, tt.topics)
		base := listening{}
		r.listen(base)
		if len(base) > tt.most {
			t.Errorf("%d operators x %d topics: %d filters, at most %d are wanted", tt.operators, tt.topics, len(base), tt.most)
		}
		checked := 0
		for f := range r.followers {
			if checked++; checked > 50 {
				break
			}
			live := wire.FeedName("testnet", f, wire.KindLive, 0)
			filter := r.filterOf(f, base)
			if filter == "" || !matches(filter, live.String()) {
				t.Errorf("%v is heard by no filter (%q)", f, filter)
			}
			for _, n := range []wire.Name{wire.FeedName("testnet", f, wire.KindHead, 0), wire.FeedName("testnet", f, wire.KindDispute, 0), cardName("testnet", f.Operator)} {
				if !slices.ContainsFunc(slices.Collect(maps.Values(base)), func(s subscription) bool {
					return slices.ContainsFunc(s.catchUp, func(once string) bool { return matches(once, n.String()) })
				}) {
					t.Errorf("%v is asked for by no filter", n)
				}
			}
			card := cardName("testnet", f.Operator).Live().String()
			if !slices.ContainsFunc(slices.Collect(maps.Keys(base)), func(filter string) bool { return matches(filter, card) }) {
				t.Errorf("new cards of %v are heard by no filter", f.Operator)
			}
		}
	}
}

// The price of one filter for an operator is bounded: messages of feeds that
// nobody follows are dropped unread, counted, and after an allowance the operator
// is listened to by its feeds' names.
func TestAnOperatorThatFloodsBesideItsFeedsIsNarrowed(t *testing.T) {
	t.Parallel()
	r := following(1, 2)
	r.following = append(r.following, following(1001, 1).following[1:]...) // enough for filters by operator
	o := r.following[0].Operator
	base := listening{}
	r.listen(base)
	wide := wire.Prefix + "testnet/+/" + o.String() + "/+/live"
	if _, ok := base[wide]; !ok {
		t.Fatalf("no %s", wide)
	}
	stray := wire.FeedName("testnet", ban.Feed{Topic: "other", Operator: o, Node: ban.Node{9}}, wire.KindLive, 0)
	for i := range unfollowedBurst {
		if r.follows(stray, testTime); r.narrowed {
			t.Fatalf("narrowed after %d messages", i+1)
		}
	}
	if r.follows(stray, testTime); !r.narrowed {
		t.Fatal("not narrowed beyond the allowance")
	}
	base = listening{}
	r.listen(base)
	for f := range base {
		if matches(f, stray.String()) {
			t.Errorf("%s still brings it", f)
		}
	}
	for f := range r.followers {
		if f.Operator == o && r.filterOf(f, base) == "" {
			t.Errorf("%v is not heard any more", f)
		}
	}
}

// A subscription that no broker grants is said once of its feeds.
func TestARefusedSubscriptionIsSaidOfItsFeeds(t *testing.T) {
	t.Parallel()
	b := mochiBroker(t)
	b.refuses.Store(true)
	alice, bob := newNode(t, "alice", b.url), newNode(t, "bob", b.url)
	f := alice.feed("sshd")
	alice.s.Publish([]ban.Topic{"sshd"})
	card, raw := alice.id.Card()
	bob.s.mu.Lock()
	bob.s.cards.take(card, raw, &bob.s.fx)
	bob.s.mu.Unlock()
	bob.s.Follow([]Following{{"sshd", f.Operator}})
	alice.run()
	bob.run()
	await(t, "the word for it", func() bool {
		v := bob.status(f)
		return v.Status == StatusWithheld && v.Why != ""
	})
	b.refuses.Store(false)
	alice.say("sshd", "192.0.2.1")
	await(t, "the feed, once the broker grants it", func() bool { return len(bob.has(f)) == 1 && bob.status(f).Status == StatusSynced })
}

// delivered is a message as the client library hands it on.
type delivered struct {
	mqtt.Message
	retained bool
}

func (delivered) Topic() string    { return "t" }
func (delivered) Payload() []byte  { return []byte("x") }
func (d delivered) Retained() bool { return d.retained }

// Live messages do not hold a join up: the messages that are waited for are
// retained.
func TestLiveMessagesDoNotDelayAJoin(t *testing.T) {
	t.Parallel()
	l, err := newLink(0, Broker{URL: "tcp://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	in := make(chan packet, 10)
	l.in, l.now, l.login = in, time.Now, func(string, time.Time) (string, string, string) { return "", "", "" }
	handler := l.options(t.Context(), nil, nil).DefaultPublishHandler
	for _, retained := range []bool{false, true} {
		handler(nil, delivered{retained: retained})
		if p := <-in; p.retained != retained {
			t.Errorf("handed on as retained %v", p.retained)
		}
		select {
		case <-l.arrive:
			if !retained {
				t.Error("a live message counts as a retained one")
			}
		default:
			if retained {
				t.Error("a retained message does not count")
			}
		}
	}
}

// Whoever comes right after a ban has it: no head is older than its deltas.
func TestTheRetainedHeadIsNeverOlderThanTheNewestDelta(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	now := testTime
	var n uint64
	for i := range 40 {
		now = now.Add(2 * time.Second)
		out, err := a.say(now, wire.SortClaims([]ban.Claim{{Target: ban.MustTarget(fmt.Sprintf("192.0.2.%d", i)), End: now.Add(time.Hour), Basis: ban.BasisStrong}}, now), nil)
		if err != nil {
			t.Fatal(err)
		}
		var newest, head, live uint64
		for _, o := range out {
			name := o.name
			if name.Kind == wire.KindLive {
				if name, err = wire.OfLive(name, o.payload); err != nil {
					t.Fatal(err)
				}
				live++
			}
			m, err := wire.Open(name, o.payload)
			if o.payload == nil {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			switch b := m.Body.(type) {
			case *wire.Delta:
				newest = m.Header.Number
			case *wire.Head:
				if o.name.Kind == wire.KindHead {
					head = b.N
				}
			}
		}
		if newest != head || newest <= n || live == 0 {
			t.Fatalf("after ban %d: newest delta %d, retained head about %d, %d live", i, newest, head, live)
		}
		n = newest
	}
	// Readers who listen hear a head within a minute, and not with every ban.
	out, err := a.tick(now.Add(headBusy), true)
	if err != nil || !slices.ContainsFunc(out, func(o outgoing) bool { return o.name.Kind == wire.KindLive }) {
		t.Errorf("no live head after a minute: %d messages, %v", len(out), err)
	}
}

func TestABrokerThatStoppedInOrderIsLeftInPeace(t *testing.T) {
	t.Parallel()
	for range 1000 {
		if d := restAfterGoodbye(); d < goodbyeLeast || d > goodbyeMost {
			t.Fatalf("a pause of %v", d)
		}
	}
	l := &link{}
	if l.tookLeave(errors.New("connection reset")) {
		t.Error("a lost connection passes for one that ended in order")
	}
	if !l.tookLeave(fmt.Errorf("reading: %w", mqttguard.ErrGoodbye)) {
		t.Error("DISCONNECT is no orderly end")
	}
	notice, err := wire.AppendRefusal(nil, wire.Refusal{Reason: wire.RefusedLeaving, Topic: wire.RefusalTopic, Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	if l.refuses(notice); !l.tookLeave(errors.New("EOF")) || l.refusal.Reason != "" {
		t.Errorf("the broker's notice that it stops was not taken (%+v)", l.refusal)
	}
	if misbehaving(mqttguard.ErrGoodbye) {
		t.Error("a goodbye counts as misbehaviour")
	}
}

// Who follows most of a broker's feeds listens to whole topics, until strangers
// send more than is read for nothing.
func TestWholeTopicsAreListenedToWhereMostAreFollowed(t *testing.T) {
	t.Parallel()
	r := following(1001, 10)
	for _, w := range r.followers {
		w.head, w.headEpoch = &wire.Head{N: 1}, 1
	}
	indexOf := func(strangers int) *wire.Index {
		var entries []wire.IndexEntry
		for f := range r.followers {
			entries = append(entries, wire.IndexOfFeed(f, 1, 1, 0, 0))
		}
		for i := range strangers {
			entries = append(entries, wire.IndexOfCard(ban.Operator{byte(i), byte(i >> 8), 9}, 1))
		}
		var x wire.Index
		for _, b := range wire.AppendIndex(entries) {
			if _, err := x.Add(b); err != nil {
				t.Fatal(err)
			}
		}
		return &x
	}
	filters := func() listening {
		base := listening{}
		r.listen(base)
		for f := range r.followers {
			if r.filterOf(f, base) == "" {
				t.Fatalf("%v is heard by no filter", f)
			}
		}
		return base
	}
	if _, ok := r.compare(indexOf(20_000), &effects{now: testTime}); !ok || r.most {
		t.Error("whole topics, although most of the broker's feeds are strangers'")
	}
	if n := len(filters()); n != 1001 {
		t.Errorf("%d filters by operator", n)
	}
	if _, ok := r.compare(indexOf(2000), &effects{now: testTime}); !ok || !r.most || !r.narrowed {
		t.Error("filters by operator, although most of the broker's feeds are followed")
	}
	if n := len(filters()); n != 11 {
		t.Errorf("%d filters by topic", n)
	}
	stray := wire.FeedName("testnet", ban.Feed{Topic: "topic-1", Operator: ban.Operator{7, 7, 7}, Node: ban.Node{9}}, wire.KindLive, 0)
	for range unfollowedBurst {
		r.follows(stray, testTime)
	}
	if !r.most {
		t.Fatal("given up within the allowance")
	}
	if r.follows(stray, testTime); r.most {
		t.Fatal("not given up beyond it")
	}
	if r.compare(indexOf(0), &effects{now: testTime}); r.most {
		t.Error("tried again after it cost too much")
	}
}

// Only feeds that the index shows to be other are asked for.
func TestAnIndexNamesTheFeedsThatChanged(t *testing.T) {
	t.Parallel()
	r := following(10, 10)
	var entries []wire.IndexEntry
	changed := ban.Feed{Topic: "topic-3", Operator: ban.Operator{0, 4, 1}, Node: ban.Node{0, 4, 2}}
	card := ban.Operator{0, 7, 1}
	for f, w := range r.followers {
		w.head, w.headEpoch, w.epoch, w.n, w.sound = &wire.Head{N: 1, Ring: ring, Pieces: &wire.Pieces{}}, 1, 1, 1, true
		n := uint64(1)
		if f == changed {
			n = 2
		}
		entries = append(entries, wire.IndexOfFeed(f, 1, n, 0, 0))
	}
	for o := range r.cards.held {
		serial := uint64(0)
		if o == card {
			serial = 5
		}
		entries = append(entries, wire.IndexOfCard(o, serial))
	}
	var x wire.Index
	if _, err := x.Add(wire.AppendIndex(entries)[0]); err != nil {
		t.Fatal(err)
	}
	unheard, ok := r.compare(&x, &effects{now: testTime})
	if !ok || len(unheard) > 0 {
		t.Fatalf("%v, unheard %v", ok, unheard)
	}
	for f, w := range r.followers {
		if (len(w.wanted) > 0) != (f == changed) {
			t.Errorf("%v wants %v", f, w.wanted)
		}
	}
	if _, asked := r.cards.doubted[card]; !asked || len(r.cards.doubted) != 1 {
		t.Errorf("cards that are asked for: %v", r.cards.doubted)
	}
}
