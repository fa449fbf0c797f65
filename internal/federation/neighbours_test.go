package federation

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/keys"
	"banmesh/internal/wire"
)

// A neighbour is a reader that is never run: the test hands it messages, as if
// brokers had delivered them, and moves its clock.
type neighbour struct {
	*testNode
	author *testAuthor
	now    time.Time
	card   wire.Card
}

func newNeighbour(t *testing.T, urls ...string) *neighbour {
	t.Helper()
	n := &neighbour{testNode: newNode(t, "bob", urls...), author: newTestAuthor(t), now: testTime}
	n.stop()
	n.clock = func() time.Time { return n.now }
	n.open()
	for _, l := range n.s.links {
		l.connected, l.cut, l.log = true, make(chan struct{}), slog.New(slog.DiscardHandler)
	}
	n.card = wire.Card{Serial: 1, Issued: testTime.Add(-time.Hour), Certificates: []wire.Certificate{
		{Key: publicOf(testKey("node")), NotBefore: testTime.Add(-time.Hour), NotAfter: testTime.Add(24 * time.Hour)},
	}}
	n.add(n.card)
	n.s.Follow([]Following{{"sshd", n.author.feed.Operator}})
	n.step()
	return n
}

func (n *neighbour) step() {
	n.tb.Helper()
	if err := n.s.step(context.Background()); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *neighbour) sign(c wire.Card) []byte {
	n.tb.Helper()
	raw, err := c.Sign(testKey("root"))
	if err != nil {
		n.tb.Fatal(err)
	}
	return raw
}

func (n *neighbour) add(c wire.Card) {
	n.tb.Helper()
	if err := n.s.AddCard(n.sign(c)); err != nil {
		n.tb.Fatal(err)
	}
}

// hears takes a message over one of the links, or none.
func (n *neighbour) hears(link int, m *wire.Message) {
	p := packet{topic: m.Name.String(), payload: m.Raw}
	if link >= 0 {
		p.link = n.s.links[link]
	}
	n.s.receive(p)
	n.step()
}

func (n *neighbour) standing() string { return n.status(n.author.feed).Status }

// state gives a delta that says targets, and the head of the state after it.
func (n *neighbour) state(epoch, number uint64, targets ...string) (delta, head *wire.Message) {
	n.tb.Helper()
	var claims []ban.Claim
	for _, s := range targets {
		claims = append(claims, ban.Claim{Target: ban.MustTarget(s), End: testTime.Add(48 * time.Hour), Class: ban.ClassAuth})
	}
	es := wire.SortClaims(claims, testTime)
	f, gc := wire.FingerprintOf(es), wire.Minutes(testTime)
	h := &wire.Head{N: number, TTL: headTTL, GC: gc, Count: uint32(len(es)), Fingerprint: f, Ring: ring, Pieces: &wire.Pieces{}}
	return n.author.messageOf(epoch, number, &wire.Delta{GC: gc, Fingerprint: f, Up: es}), n.author.messageOf(epoch, number, h)
}

// Row 6: a broker that keeps a card back that heads name is not believed to show
// all; the reader asks for the card.
func TestAFeedWhoseCardIsWithheldIsNeverSynced(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	delta, _ := n.state(5<<wire.EpochShift, 1, "192.0.2.1")
	n.hears(0, delta)
	next := n.card
	next.Serial, next.Revocations = 2, []wire.Revocation{{Node: ban.NodeOf([]byte("stolen")), Since: testTime}}
	raw := n.sign(next)
	card, err := wire.OpenCard(raw)
	if err != nil {
		t.Fatal(err)
	}
	es := delta.Body.(*wire.Delta).Up
	head := &wire.Head{N: 1, TTL: headTTL, GC: wire.Minutes(testTime), Count: 1, Fingerprint: wire.FingerprintOf(es), CardSerial: card.Serial, CardHash: card.Hash, Ring: ring, Pieces: &wire.Pieces{}}
	n.hears(0, n.author.messageOf(5<<wire.EpochShift, 1, head))
	if got := n.standing(); got != StatusWithheld {
		t.Errorf("without the card that the head names the feed is %s", got)
	}
	at := cardName("testnet", n.author.feed.Operator)
	attempt := n.s.links[0].fetch[at.String()]
	if attempt == 0 {
		t.Fatal("the card is not asked for")
	}
	n.now = n.now.Add(3 * time.Second)
	n.step()
	if again := n.s.links[0].fetch[at.String()]; again <= attempt {
		t.Errorf("the card is not asked for again: attempt %d after %d", again, attempt)
	}
	n.s.receive(packet{topic: at.String(), payload: raw})
	n.step()
	if got := n.standing(); got != StatusSynced {
		t.Errorf("with the card the feed is %s", got)
	}
	if n.s.links[0].fetch[at.String()] != 0 {
		t.Error("the card is still asked for")
	}
}

// Row 5: the inventions of one broker cost the messages of the others nothing, and
// the broker its connection.
func TestAFloodOfOneBrokerStarvesNoOther(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
	delta, head := n.state(5<<wire.EpochShift, 1, "192.0.2.1")
	forged := slices.Clone(delta.Raw)
	forged[len(forged)-1] ^= 1
	for range 2 * rateBurst {
		n.s.receive(packet{link: n.s.links[0], topic: delta.Name.String(), payload: forged})
	}
	if got := n.s.Counts().Refused[refusedSignature]; got > badBurst {
		t.Errorf("%d bad signatures of one broker were checked, at most %d", got, badBurst)
	}
	select {
	case <-n.s.links[0].cut:
		if !errors.Is(n.s.links[0].cutWhy, errBad) {
			t.Errorf("the broker was cut because %v", n.s.links[0].cutWhy)
		}
	default:
		t.Error("the broker is still connected")
	}
	first, second := n.s.links[0].penalty(errBad), n.s.links[0].penalty(errBad)
	if first < penaltyLeast || second < 2*first {
		t.Errorf("it is avoided for %v, then %v", first, second)
	}
	n.hears(1, delta)
	n.hears(1, head)
	if got := n.standing(); got != StatusSynced {
		t.Errorf("over the honest broker the feed is %s", got)
	}
}

// Row 8: a new epoch costs a join, so an author has few of them.
func TestNewEpochsOfAFeedAreFewAndTheNewestIsNotLost(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	const storm = 500
	accepted := func() uint64 { return n.s.reader.followers[n.author.feed].headEpoch >> wire.EpochShift }
	var taken []uint64
	for i := range uint64(storm) {
		_, head := n.state((5+i)<<wire.EpochShift, 1)
		n.hears(0, head)
		if e := accepted(); len(taken) == 0 || taken[len(taken)-1] != e {
			taken = append(taken, e)
		}
	}
	if len(taken) > epochBurst {
		t.Errorf("%d of %d epochs began within a moment, at most %d", len(taken), storm, epochBurst)
	}
	if got := n.standing(); got != StatusContested {
		t.Errorf("a feed that begins again %d times is %s", storm, got)
	}
	n.now = n.now.Add(time.Minute)
	if err := n.s.tick(); err != nil {
		t.Fatal(err)
	}
	n.step()
	if got := accepted(); got != 4+storm {
		t.Errorf("after a minute the newest epoch is %d, want %d", got, 4+storm)
	}
}

// Row 8: a join that never ends is begun ever more rarely.
func TestJoinsOfAFeedBackOff(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	w := n.s.reader.followers[n.author.feed]
	begun := 0
	var before *join
	const heads = 600
	for i := range uint64(heads) {
		// Each head lists other pieces, which no broker has.
		p := &wire.Pieces{Chunks: []wire.ChunkRef{{Slot: 0, Hash: wire.HashOf(fmt.Append(nil, i)), Size: 100}}}
		h := &wire.Head{N: 1 + i, TTL: headTTL, GC: wire.Minutes(testTime), Count: 1, Ring: ring, SnapshotN: 1 + i, SnapshotGC: wire.Minutes(testTime), Pieces: p}
		n.hears(0, n.author.messageOf(5<<wire.EpochShift, 1+i, h))
		if w.join != nil && w.join != before {
			begun++
			before = w.join
		}
		n.now = n.now.Add(100 * time.Millisecond)
		if err := n.s.tick(); err != nil {
			t.Fatal(err)
		}
		n.step()
		if w.join != nil && w.join != before {
			begun++
			before = w.join
		}
	}
	if begun > 8 {
		t.Errorf("%d joins were begun in a minute", begun)
	}
	if begun < 2 {
		t.Errorf("%d joins were begun: none after the first failed", begun)
	}
}

// Pieces that nobody asked for cost no signature.
func TestPiecesThatWereNotAskedForAreNotRead(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	n.hears(0, n.author.messageOf(5<<wire.EpochShift, 1, &wire.Chunk{}))
	if got := n.s.Counts().Refused[refusedUnasked]; got != 1 {
		t.Errorf("%d pieces were refused unread", got)
	}
}

// Row 1: a change that this node cannot take ends that feed here, by name, and
// nothing else; nothing of it is stored, and a start does not depend on it.
func TestAFeedBeyondALimitIsQuarantinedAndNothingElse(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	full := fmt.Errorf("%w: there are too many", ban.ErrLimit)
	limit := func(_ context.Context, c ban.Change) error {
		if c.Feed == n.author.feed && len(c.Claims) > 2 {
			return full
		}
		return n.apply(context.Background(), c)
	}
	n.s.o.Apply = limit
	epoch := uint64(5 << wire.EpochShift)
	delta, head := n.state(epoch, 1, "192.0.2.1", "192.0.2.2") // the limit
	n.hears(0, head)
	n.hears(0, delta)
	if got := n.standing(); got != StatusSynced {
		t.Fatalf("at the limit the feed is %s", got)
	}
	es := wire.SortClaims([]ban.Claim{
		{Target: ban.MustTarget("192.0.2.3"), End: testTime.Add(time.Hour)},
		{Target: ban.MustTarget("192.0.2.4"), End: testTime.Add(time.Hour)},
		{Target: ban.MustTarget("192.0.2.5"), End: testTime.Add(time.Hour)},
	}, testTime)
	n.hears(0, n.author.messageOf(epoch, 2, &wire.Delta{GC: wire.Minutes(testTime), Up: es})) // one more
	check := func(when string) {
		t.Helper()
		v := n.status(n.author.feed)
		if v.Status != StatusQuarantined || v.Why != full.Error() {
			t.Errorf("%s: the feed is %s, %q", when, v.Status, v.Why)
		}
		if got := n.has(n.author.feed); len(got) != 0 {
			t.Errorf("%s: %v are in force", when, got)
		}
	}
	check("beyond the limit")
	delta, _ = n.state(epoch, 3, "192.0.2.9")
	n.hears(0, delta)
	check("after another message")
	restart := func(f ...Following) {
		n.stop()
		n.open()
		n.s.o.Apply = limit
		n.s.Follow(f)
		if err := n.s.Restore(t.Context()); err != nil {
			t.Fatalf("the start: %v", err)
		}
	}
	restart(Following{"sshd", n.author.feed.Operator})
	check("after a restart")
	// A person ends it by name, durably; the excess then is refused again.
	if k, err := n.s.Release(n.author.feed.Operator); err != nil || k != 1 {
		t.Fatalf("released %d feeds, %v", k, err)
	}
	restart(Following{"sshd", n.author.feed.Operator})
	if got := n.standing(); got == StatusQuarantined {
		t.Error("a quarantine that a person ended is back after a restart")
	}
	n.now = n.now.Add(time.Hour)
	n.author.issued = n.now
	epoch = 6 << wire.EpochShift
	delta, head = n.state(epoch, 1, "192.0.2.7")
	n.hears(0, head)
	n.hears(0, delta)
	if got := n.has(n.author.feed); len(got) != 1 {
		t.Errorf("after the release %v are in force", got)
	}
	n.hears(0, n.author.messageOf(epoch, 2, &wire.Delta{GC: wire.Minutes(testTime), Up: es}))
	check("beyond the limit once more")
	if k, err := n.s.Release(n.author.feed.Operator); err != nil || k != 1 {
		t.Fatalf("released %d feeds, %v", k, err)
	}
	n.step()
	if got := n.standing(); got == StatusQuarantined {
		t.Error("a quarantine that a person ended lasts until the restart")
	}
	if k, err := n.s.Release(n.author.feed.Operator); err != nil || k != 0 {
		t.Errorf("released %d feeds of one in good standing, %v", k, err)
	}
	// Who stops to follow it, and begins again, begins anew.
	n.s.Follow(nil)
	n.step()
	restart(Following{"sshd", n.author.feed.Operator})
	if got := n.standing(); got == StatusQuarantined {
		t.Error("the quarantine outlives that the feed was no longer followed")
	}
}

// Row 12: readers see when two machines write with one key.
func TestTwoMachinesWithOneKeyAreSeen(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "tcp://127.0.0.1:1")
	_, first := n.state(5<<wire.EpochShift, 1)
	n.hears(0, first)
	_, second := n.state(6<<wire.EpochShift, 1)
	n.hears(0, second)
	if got := n.standing(); got == StatusContested {
		t.Fatalf("after an author began again the feed is %s", got)
	}
	n.hears(0, first) // an old one, repeated by a broker, means nothing
	if got := n.standing(); got == StatusContested {
		t.Errorf("after a replay the feed is %s", got)
	}
	n.now = n.now.Add(time.Minute)
	n.author.issued = n.now
	_, late := n.state(5<<wire.EpochShift, 2) // but this one was written just now
	n.hears(0, late)
	if got := n.standing(); got != StatusContested {
		t.Errorf("with two writers the feed is %s", got)
	}
}

// An identity without the root key does not make keys.
func TestRekeyNeedsTheRootKey(t *testing.T) {
	t.Parallel()
	id := keys.New(t.TempDir(), testKey("node"), nil)
	if err := id.Rekey(testTime, testTime); !errors.Is(err, keys.ErrNoRoot) {
		t.Errorf("%v", err)
	}
}
