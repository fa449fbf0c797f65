package federation

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// bansOf makes bans of n addresses.
func bansOf(n int, now time.Time) (list []ban.Claim) {
	for i := range n {
		list = append(list, ban.Claim{
			Target: ban.MustTarget(fmt.Sprintf("%d.%d.%d.%d", 20+i*37%200, i*91%256, i*53%256, 1+i%250)), End: now.Add(time.Hour * time.Duration(1+i%72)),
			Class: ban.Class(2 + i%3), Hits: uint8(3 + i%7), Basis: ban.BasisStrong, Established: true,
		})
	}
	return list
}

// headOf gives the newest retained head among messages.
func headOf(t *testing.T, out []outgoing) outgoing {
	t.Helper()
	for _, o := range slices.Backward(out) {
		if o.name.Kind == wire.KindHead && o.payload != nil {
			return o
		}
	}
	t.Fatal("no head")
	return outgoing{}
}

func mustOpen(t *testing.T, n wire.Name, payload []byte) *wire.Message {
	t.Helper()
	m, err := wire.Open(n, payload)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// Who joins a network of small feeds hears their heads and nothing else: at 40
// bans a feed at most 20 bytes a ban, the MQTT topic and headers included.
func TestAJoinOfASmallFeedIsItsHead(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	out, err := a.say(testTime, wire.SortClaims(bansOf(40, testTime), testTime), nil)
	if err != nil {
		t.Fatal(err)
	}
	head := headOf(t, out)
	size := len(head.payload) + len(head.name.String()) + 5
	t.Logf("%d bytes, %.1f a ban", size, float64(size)/40)
	if size > 20*40 {
		t.Errorf("a head with 40 bans takes %d bytes, more than 20 a ban", size)
	}
	f := newFollower("testnet", a.feed)
	fx := &effects{now: testTime}
	f.receive(mustOpen(t, head.name, head.payload), fx)
	if f.set.count != 40 || f.status(testTime) != StatusSynced || len(f.wanted) > 0 {
		t.Errorf("%d claims, %s, wants %v", f.set.count, f.status(testTime), f.wanted)
	}
}

// The state behind a head is not signed. One that is not the head's is not
// taken, and the pieces are asked for as before.
func TestAStateThatIsNotTheHeadsIsNotTaken(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	if _, err := a.say(testTime, wire.SortClaims(bansOf(40, testTime), testTime), nil); err != nil {
		t.Fatal(err)
	}
	payload := a.own(wire.KindHead, 0)
	bare := wire.BareHead(payload)
	if len(bare) == len(payload) {
		t.Fatal("the head has no state")
	}
	good := mustOpen(t, a.name(wire.KindHead, 0), payload).State
	other := slices.Clone(good)
	other[7].End++
	more := append(slices.Clone(good[:len(good)-1]), wire.EntryOf(ban.Claim{Target: ban.MustTarget("250.1.2.3"), End: testTime.Add(time.Hour)}))
	for name, state := range map[string][]wire.Entry{"changed": other, "fewer": good[1:], "another": more} {
		f := newFollower("testnet", a.feed)
		f.receive(mustOpen(t, a.name(wire.KindHead, 0), wire.AppendState(bare, state)), &effects{now: testTime})
		if f.set.count != 0 || f.status(testTime) == StatusSynced || len(f.wanted) == 0 {
			t.Errorf("%s: %d claims, %s, wants %v", name, f.set.count, f.status(testTime), f.wanted)
		}
		// The head with its own state after that, as from another broker.
		f.receive(mustOpen(t, a.name(wire.KindHead, 0), payload), &effects{now: testTime})
		if f.set.count != 40 || f.status(testTime) != StatusSynced {
			t.Errorf("%s, then the right one: %d claims, %s", name, f.set.count, f.status(testTime))
		}
	}
}

// An older state never takes the place of a newer one, and a feed that grew is
// brought up to date by its deltas and not by its state alone.
func TestAStateTakesNothingBack(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	now := testTime
	var heads []outgoing
	var deltas []*wire.Message
	for i := range 5 {
		now = now.Add(2 * time.Second)
		out, err := a.say(now, wire.SortClaims(bansOf(40, testTime)[i*8:i*8+8], now), nil)
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, headOf(t, out))
		for _, o := range out {
			if o.name.Kind == wire.KindDelta {
				deltas = append(deltas, mustOpen(t, o.name, o.payload))
			}
		}
	}
	f := newFollower("testnet", a.feed)
	fx := &effects{now: now}
	f.receive(mustOpen(t, heads[1].name, heads[1].payload), fx)
	for _, d := range deltas[2:] {
		f.receive(d, fx)
	}
	if f.n != deltas[4].Header.Number || f.set.count != 40 {
		t.Fatalf("at batch %d with %d claims", f.n, f.set.count)
	}
	for _, h := range heads[:4] {
		f.receive(mustOpen(t, h.name, h.payload), fx)
	}
	if f.set.count != 40 || f.n != deltas[4].Header.Number || f.status(now) != StatusSynced {
		t.Errorf("after old heads: batch %d, %d claims, %s", f.n, f.set.count, f.status(now))
	}
}

// A large feed's heads stay small.
func TestALargeFeedHasNoStateBehindItsHead(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	out, err := a.say(testTime, wire.SortClaims(bansOf(900, testTime), testTime), nil)
	if err != nil {
		t.Fatal(err)
	}
	if m := mustOpen(t, headOf(t, out).name, headOf(t, out).payload); m.State != nil {
		t.Errorf("%d claims behind a head of a feed of %d", len(m.State), a.set.count)
	}
	for _, o := range out {
		if o.name.Kind == wire.KindLive && len(o.payload) > wire.MaxLivePayload && mustOpen(t, mustLive(t, o), o.payload).Header.Kind == wire.KindHead {
			t.Errorf("a live head of %d bytes", len(o.payload))
		}
	}
}

func mustLive(t *testing.T, o outgoing) wire.Name {
	t.Helper()
	n, err := wire.OfLive(o.name, o.payload)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A broker that puts other states behind a signed head pays for them itself: each
// costs a signature, which must not be the feed's to pay.
func TestStatesThatAreNotTheHeadsCostTheirBroker(t *testing.T) {
	t.Parallel()
	a := newAuthor(t, openStore(t), testTime)
	if _, err := a.say(testTime, wire.SortClaims(bansOf(40, testTime), testTime), nil); err != nil {
		t.Fatal(err)
	}
	bare := wire.BareHead(a.own(wire.KindHead, 0))
	good := mustOpen(t, a.name(wire.KindHead, 0), a.own(wire.KindHead, 0)).State
	f := newFollower("testnet", a.feed)
	counts := &Counts{Refused: map[string]uint64{}}
	root, node := testKey("root"), testKey("node")
	card := &wire.Card{Operator: ban.OperatorOf(root[32:]), Certificates: []wire.Certificate{{Key: publicOf(node), NotBefore: testTime.Add(-time.Hour), NotAfter: testTime.Add(time.Hour)}}}
	r := &reader{
		network: "testnet", opener: &opener{counts: counts}, followers: map[ban.Feed]*follower{a.feed: f}, log: slog.New(slog.DiscardHandler),
		cards: &cards{held: map[ban.Operator]*cardState{a.feed.Operator: {card: card}}},
	}
	l := &link{bad: allowance{burst: badBurst, second: badSecond}}
	for i := range badBurst + 1 {
		other := slices.Clone(good)
		other[0].End += uint32(i + 1)
		n := a.name(wire.KindHead, 0)
		p := packet{link: l, topic: n.String(), payload: wire.AppendState(bare, other), retained: true}
		if r.opener.mayDeliver(p, testTime) {
			r.hear(n, p, &effects{now: testTime})
		}
	}
	if l.bad.has(testTime, 1) {
		t.Errorf("the broker may go on; refused %v", counts.Refused)
	}
	if f.set.count != 0 {
		t.Errorf("%d claims were taken", f.set.count)
	}
}
