package broker

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// community is a broker as a volunteer runs it, on loopback.
func community(t testing.TB, change ...func(*Options)) *Broker {
	o := Options{Network: "net", Keys: true, Names: []string{"broker.example"}}
	for _, f := range change {
		f(&o)
	}
	return start(t, o)
}

func (b *Broker) refusals(why refusal) int {
	return value(b.count.refused.WithLabelValues(string(why)))
}

func value(c prometheus.Counter) int {
	var m dto.Metric
	if err := c.Write(&m); err != nil {
		panic(err)
	}
	return int(m.GetCounter().GetValue())
}

// refusedFor publishes, wants an acknowledgement all the same, and that the
// broker counted it as refused for a reason.
func (c *client) refusedFor(b *Broker, why refusal, topic, payload string, retain bool) {
	c.t.Helper()
	before := b.refusals(why)
	c.publish(topic, payload, 7, retain)
	if b.refusals(why) != before+1 {
		c.t.Errorf("%s: not refused for %q", topic, why)
	}
	if m := b.store.Get(topic); m != nil && string(m.Payload) == payload {
		c.t.Errorf("%s: retained all the same", topic)
	}
}

func TestASignedFeedIsAdmitted(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub, sub := a.join(t, b), newAuthor("bob").join(t, b)
	topic, head := a.head(1)
	if q := sub.subscribe(topic, 1); q != 1 {
		t.Fatalf("granted %#x", q)
	}
	cardTopic, card := a.card(t, 1)
	pub.publish(cardTopic, card, 1, true)
	pub.publish(topic, head, 2, true)
	if got, payload, _ := sub.message(); got != topic || payload != head {
		t.Errorf("got %s", got)
	}
	// Who comes later gets it retained, and the whole feed by one filter.
	late := newAuthor("carol").join(t, b)
	late.subscribe(strings.TrimSuffix(topic, "head")+"+", 1)
	if _, payload, p := late.message(); payload != head || p.flags&1 == 0 {
		t.Error("the retained head differs")
	}
}

func TestWhatIsNotSignedByTheFeedIsAcknowledgedDroppedAndCounted(t *testing.T) {
	t.Parallel()
	b := community(t)
	a, e := newAuthor("alice"), newAuthor("eve")
	pub := a.join(t, b)
	topic, head := a.head(5)
	pub.refusedFor(b, refusedCertificate, topic, head, true) // no card yet
	cardTopic, card := a.card(t, 3)
	pub.publish(cardTopic, card, 1, true)
	pub.publish(topic, head, 2, true)

	flipped := []byte(head)
	flipped[len(flipped)-10] ^= 1
	_, old := a.head(4)
	_, next := a.head(6)
	_, oldCard := a.card(t, 2)
	otherTopic, other := a.headOf("other", 9)
	eveTopic, eveHead := e.head(1)
	future := *a
	future.now = a.now.Add(time.Hour)
	_, tomorrow := future.head(9)
	future.now, future.epoch = a.now, 1<<63
	_, epoch := future.head(9)
	segment := strings.TrimSuffix(topic, "head") + "segment/0"
	for _, c := range []struct {
		name    string
		why     refusal
		topic   string
		payload string
		retain  bool
	}{
		{"a flipped bit", refusedSignature, topic, string(flipped), true},
		{"an older number", refusedStale, topic, old, true},
		{"an older card", refusedStale, cardTopic, oldCard, true},
		{"not retained", refusedRetain, topic, next, false},
		{"another network", refusedTopic, otherTopic, other, true},
		{"another node's feed", refusedAccess, eveTopic, eveHead, true},
		{"no topic of the protocol", refusedTopic, "banmesh/1/net/free/text", "hello", true},
		{"a deep topic", refusedTopic, strings.Repeat("a/", 60), "hello", true},
		{"a message in the wrong place", refusedPlacement, segment, head, true},
		{"garbage", refusedFormat, topic, strings.Repeat("x", 200), true},
		{"too large for its kind", refusedSize, topic, strings.Repeat("x", 10_000), true},
		{"tomorrow's", refusedFuture, topic, tomorrow, true},
		{"an epoch in the future", refusedFuture, topic, epoch, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			pub.t = t
			pub.refusedFor(b, c.why, c.topic, c.payload, c.retain)
		})
	}
	pub.t = t
	if got := b.store.Get(topic); got == nil || string(got.Payload) != head {
		t.Error("the retained head changed")
	}
}

func TestARefusalDoesNotLoop(t *testing.T) {
	t.Parallel()
	b := community(t)
	pub := newAuthor("alice").join(t, b)
	for range 50 {
		pub.send(publishBytes("not/a/feed", "x", 9, 1, true)...)
		pub.want(frame.Puback)
	}
	pub.wantNothing()
}

func TestTheSameMessageAgainIsAdmittedAndNotWritten(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.StateDir = t.TempDir() })
	a := newAuthor("alice")
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	commits := b.store.Status().Commits
	pub.publish(topic, card, 2, true)
	if got := b.store.Status().Commits; got != commits {
		t.Errorf("%d groups were written for what was there already", got-commits)
	}
}

func TestARevokedNodeIsRemovedAndRefused(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub := a.join(t, b)
	cardTopic, card := a.card(t, 1)
	topic, head := a.head(1)
	pub.publish(cardTopic, card, 1, true)
	pub.publish(topic, head, 2, true)
	_, revoking := a.card(t, 2, wire.Revocation{Node: a.feed.Node, Since: a.now.Add(-time.Minute)})
	pub.publish(cardTopic, revoking, 3, true)
	if b.store.Get(topic) != nil {
		t.Error("the revoked node's head is still retained")
	}
	_, head = a.head(2)
	pub.refusedFor(b, refusedCertificate, topic, head, true)
}

func TestCardsAreKnownAfterARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := newAuthor("alice")
	o := Options{Network: "net", Keys: true, StateDir: dir, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}}
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, b)
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	stop()
	b = start(t, o)
	pub = a.join(t, b)
	topic, head := a.head(1)
	pub.publish(topic, head, 1, true)
	if b.store.Get(topic) == nil {
		t.Error("the head was refused: the card is forgotten")
	}
}

func TestQuotasBoundWhatANodeKeeps(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.FeedMessages = 3 })
	a := newAuthor("alice")
	pub := a.join(t, b)
	cardTopic, card := a.card(t, 1)
	pub.publish(cardTopic, card, 1, true)
	for i := range 3 {
		topic, chunk := a.chunk(i, 1)
		pub.publish(topic, chunk, 1, true)
	}
	topic, chunk := a.chunk(3, 1)
	pub.refusedFor(b, refusedQuota, topic, chunk, true)
	topic, chunk = a.chunk(2, 2) // in place of another
	pub.publish(topic, chunk, 1, true)
	if m := b.store.Get(topic); m == nil || m.Number != 2 {
		t.Error("a replacement within the quota was refused")
	}
}

func TestOnlyListedOperatorsAreAdmitted(t *testing.T) {
	t.Parallel()
	a, e := newAuthor("alice"), newAuthor("eve")
	b := community(t, func(o *Options) { o.Operators = []ban.Operator{a.feed.Operator} })
	topic, card := a.card(t, 1)
	a.join(t, b).publish(topic, card, 1, true)
	if b.store.Get(topic) == nil {
		t.Error("a listed operator was refused")
	}
	topic, card = e.card(t, 1)
	e.join(t, b).refusedFor(b, refusedOperator, topic, card, true)
}

func TestABannedKeyIsCutRemovedAndRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b := community(t, func(o *Options) { o.StateDir = dir })
	a := newAuthor("alice")
	pub := a.join(t, b)
	topic, card := a.card(t, 1)
	pub.publish(topic, card, 1, true)
	removed, err := b.BanKey(a.feed.Operator.String())
	if err != nil || removed != 1 {
		t.Errorf("BanKey: %d, %v", removed, err)
	}
	pub.wantClosed()
	again := dial(t, b)
	again.send(a.connecting(a.now.Add(time.Minute), "broker.example").bytes()...)
	if p := again.want(frame.Connack); p.body[1] != frame.RefusedAuthorized {
		t.Errorf("CONNACK %d", p.body[1])
	}
	l, err := openBanList(dir + "/" + bannedFile)
	if err != nil || !l.has(a.feed.Operator.String()) {
		t.Errorf("the ban is not on disk: %v", err)
	}
	if err := b.UnbanKey(a.feed.Operator.String()); err != nil {
		t.Error(err)
	}
	a.join(t, b)
}

func TestFiltersThatWouldCostTooMuchAreRefused(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.Subscriptions = 2 })
	c := newAuthor("alice").join(t, b)
	for filter, want := range map[string]byte{
		"banmesh/1/net/#":                      0x80,
		"#":                                    0x80,
		"+/+/+/+/+/+/+":                        0x80,
		"$SYS/broker/uptime":                   0x80,
		"$share/g/banmesh/1/net/sshd/+/+/head": 0x80,
		"banmesh/1/other/sshd/+/+/head":        0x80,
		"banmesh/1/net/" + strings.Repeat("+/", 8) + "+": 0x80,
		"banmesh/1/net/" + strings.Repeat("a", 300):      0x80,
		"banmesh/1/net/sshd/+/+/head":                    1,
		"banmesh/1/net/sshd/+/+/nothing":                 0x80,
		"banmesh/1/net/sshd/invented/+/head":             0x80,
		"banmesh/1/net/+/+/+/chunk/9999":                 0x80,
		"banmesh/1/net/sshd/+/+":                         0x80,
	} {
		if got := c.subscribe(filter, 1); got != want {
			t.Errorf("SUBSCRIBE %.60s: %#x, want %#x", filter, got, want)
		}
	}
	if got := c.subscribe("banmesh/1/net/spam/+/+/head", 2); got != 1 {
		t.Errorf("QoS 2 was granted as %#x, want 1", got)
	}
	if got := c.subscribe("banmesh/1/net/jellyfin/+/+/head", 1); got != 0x80 {
		t.Errorf("a third subscription: %#x", got)
	}
}

// offline is a broker with a clock of its own that serves nobody; put admits.
func offline(t *testing.T, uptime *time.Duration, l Limits) (b *Broker, put func(topic, payload string) refusal) {
	t.Helper()
	b, err := New(Options{Network: "net", Anonymous: AccessFull, Limits: l, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	b.store.TestingOnlyElapsed(func() time.Duration { return *uptime })
	who := identity{method: "anonymous", access: AccessFull}
	return b, func(topic, payload string) refusal {
		t.Helper()
		r, why := b.admission.admit(who, topic, []byte(payload), 1, true, time.Now())
		if why != admitted {
			return why
		}
		_, _, why = b.admission.keep(r, func(string) {})
		return why
	}
}

// mustPut gives a put that wants to be admitted.
func mustPut(t *testing.T, put func(topic, payload string) refusal) func(topic, payload string) {
	return func(topic, payload string) {
		t.Helper()
		if why := put(topic, payload); why != admitted {
			t.Fatalf("%s: refused: %s", topic, why)
		}
	}
}

func TestOldFeedsAreCollectedWithTheirOperator(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	b, try := offline(t, &uptime, Limits{FeedAge: 48 * time.Hour})
	put := mustPut(t, try)
	a, old := newAuthor("alice"), newAuthor("old")
	put(a.card(t, 1))
	put(old.card(t, 1))
	put(old.head(1))
	put(a.chunk(0, 1))
	uptime += 47 * time.Hour
	put(a.head(2))
	uptime += 2 * time.Hour
	if n := b.collectOnce(); n != 2 {
		t.Errorf("%d messages were collected, want the old author's card and head", n)
	}
	if st := b.store.Status(); st.Messages != 3 {
		t.Errorf("%d messages are left, want 3", st.Messages)
	}
	if len(b.admission.cards) != 1 {
		t.Errorf("%d cards are remembered", len(b.admission.cards))
	}
}

// The machine's clock may be set anywhere.
func TestAClockThatJumpsCollectsNothing(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := community(t, func(o *Options) {
		o.Limits.FeedAge = 48 * time.Hour
		o.Now = func() time.Time { return now.Add(91 * 24 * time.Hour) }
	})
	m := &retained.Message{Topic: "banmesh/1/net/sshd/o/n/head", Payload: []byte("x"), Received: now}
	if _, err := b.store.Put(m, nil); err != nil {
		t.Fatal(err)
	}
	if n := b.collectOnce(); n != 0 {
		t.Errorf("%d messages were collected", n)
	}
}

func TestAPassCollectsAShareOnly(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	b, _ := offline(t, &uptime, Limits{FeedAge: time.Hour})
	for i := range 10 * collectLeast {
		m := &retained.Message{Topic: fmt.Sprintf("banmesh/1/net/sshd/o%d/n/head", i), Payload: []byte("x")}
		if _, err := b.store.Put(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	uptime += 2 * time.Hour
	if n := b.collectOnce(); n != collectLeast {
		t.Errorf("%d of %d feeds were collected in one pass", n, 10*collectLeast)
	}
}

// The older of two messages that are admitted at once never stays.
func TestOfRacingPublicationsTheNewestStays(t *testing.T) {
	t.Parallel()
	uptime := time.Hour
	b, try := offline(t, &uptime, Limits{})
	a := newAuthor("alice")
	mustPut(t, try)(a.card(t, 1))
	for round := range uint64(100) {
		var topic string
		var all sync.WaitGroup
		for i := range uint64(4) {
			name, head := a.head(round*4 + i + 1)
			topic = name
			all.Go(func() {
				if why := try(name, head); why != admitted && why != refusedStale {
					t.Errorf("refused: %s", why)
				}
			})
		}
		all.Wait()
		if m := b.store.Get(topic); m.Number != round*4+4 {
			t.Fatalf("number %d stayed of %d", m.Number, round*4+4)
		}
	}
}

func TestANodeErasesItsOwnAndNobodyElse(t *testing.T) {
	t.Parallel()
	b := community(t)
	a, e := newAuthor("alice"), newAuthor("eve")
	pub, reader := a.join(t, b), newAuthor("bob").join(t, b)
	cardTopic, card := a.card(t, 1)
	pub.publish(cardTopic, card, 1, true)
	topic, head := a.head(1)
	pub.publish(topic, head, 2, true)
	reader.subscribe(topic, 1)
	reader.message()
	e.join(t, b).refusedFor(b, refusedAccess, topic, "", true)
	pub.refusedFor(b, refusedEmpty, cardTopic, "", true) // a document ends with its operator
	pub.refusedFor(b, refusedRetain, topic, "", false)
	if b.store.Get(topic) == nil {
		t.Fatal("somebody erased the head")
	}
	pub.publish(topic, "", 3, true)
	if b.store.Get(topic) != nil {
		t.Error("its own node could not erase the head")
	}
	if _, payload, _ := reader.message(); payload != "" {
		t.Error("a reader was handed something else")
	}
}

func TestAHeadOfANewEpochVoidsTheOld(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	pub := a.join(t, b)
	cardTopic, card := a.card(t, 1)
	pub.publish(cardTopic, card, 1, true)
	var old []string
	for i := range 3 {
		topic, chunk := a.chunk(i, 1)
		pub.publish(topic, chunk, 2, true)
		old = append(old, topic)
	}
	headTopic, head := a.head(1)
	pub.publish(headTopic, head, 3, true)
	next := *a
	next.epoch++
	topic, chunk := next.chunk(0, 1) // pieces come before the head that names them
	pub.publish(topic, chunk, 4, true)
	_, head = next.head(1)
	pub.publish(headTopic, head, 5, true)
	for _, topic := range old[1:] {
		if b.store.Get(topic) != nil {
			t.Errorf("%s of the old epoch is still retained", topic)
		}
	}
	if m := b.store.Get(topic); m == nil || m.Epoch != next.epoch {
		t.Error("the new epoch's chunk is gone")
	}
}
