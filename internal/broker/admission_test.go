package broker

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
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
		{"an erasure", refusedEmpty, topic, "", true},
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
	b := community(t)
	pub := newAuthor("alice").join(t, b)
	for range 50 {
		pub.send(publishBytes("not/a/feed", "x", 9, 1, true)...)
		pub.want(frame.Puback)
	}
	pub.wantNothing()
}

func TestTheSameMessageAgainIsAdmittedAndNotWritten(t *testing.T) {
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

func TestOldFeedsAreCollectedWithTheirOperator(t *testing.T) {
	now := time.Now()
	clock := now
	b, err := New(Options{
		Network: "net", Anonymous: AccessFull, Limits: Limits{FeedAge: 48 * time.Hour}, Now: func() time.Time { return clock },
		Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	who := identity{method: "anonymous", access: AccessFull}
	put := func(topic, payload string) {
		t.Helper()
		r, why := b.admission.admit(who, topic, []byte(payload), 1, true, clock)
		if why != admitted {
			t.Fatalf("refused: %s", why)
		}
		if err := b.store.Put(r.message, nil); err != nil {
			t.Fatal(err)
		}
		if r.card != nil {
			b.admission.learn(r.card)
		}
	}
	a, old := newAuthor("alice"), newAuthor("old")
	put(a.card(t, 1))
	put(old.card(t, 1))
	put(old.head(1))
	put(a.chunk(0, 1))
	clock = now.Add(47 * time.Hour)
	fresh := *a
	fresh.now = now // within its certificate
	put(fresh.head(2))
	clock = now.Add(49 * time.Hour)
	if n := b.collectOnce(clock); n != 2 {
		t.Errorf("%d messages were collected, want the old author's card and head", n)
	}
	if st := b.store.Status(); st.Messages != 3 {
		t.Errorf("%d messages are left, want 3", st.Messages)
	}
}
