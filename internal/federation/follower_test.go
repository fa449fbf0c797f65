package federation

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// A feed that begins again with the same claims, while a reader is joining it,
// must not be taken for an author who tells two stories.
func TestAJoinIsNotContinuedInTheNextEpoch(t *testing.T) {
	t.Parallel()
	key := testKey("node")
	feed := testFeed("sshd", testKey("root"), key)
	f := newFollower("testnet", feed)
	fx := &effects{now: testTime}
	up := wire.SortClaims([]ban.Claim{{Target: ban.MustTarget("192.0.2.1"), End: testTime.Add(time.Hour)}}, testTime)
	var s set
	s.put(&up[0])
	message := func(epoch, number uint64, body wire.Body) {
		t.Helper()
		n := wire.FeedName("testnet", feed, body.Kind(), int(number%ring))
		if body.Kind() == wire.KindHead {
			n.Slot = 0
		}
		m, err := wire.Open(n, wire.Seal(key, wire.Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: feed.Operator, Epoch: epoch, Number: number, Issued: testTime}, body.Append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		f.receive(m, fx)
	}
	gc := wire.Minutes(testTime)
	head := func(n uint64) *wire.Head {
		return &wire.Head{N: n, TTL: time.Hour, GC: gc, Count: 1, Fingerprint: s.fingerprint(), Ring: ring, Pieces: &wire.Pieces{}}
	}
	message(5, 1, head(2))
	message(5, 1, &wire.Delta{GC: gc, Fingerprint: s.fingerprint(), Up: up})
	if f.join == nil || f.join.n != 1 {
		t.Fatalf("the join is not under way: %+v", f.join)
	}
	message(6, 1, head(1))
	second := &wire.Delta{GC: gc - 1, Fingerprint: s.fingerprint(), Up: up} // another body with the same outcome
	message(6, 1, second)
	message(6, 1, second) // a broker repeats it
	if got := f.status(testTime); got != StatusSynced {
		t.Errorf("the feed is %s; %s", got, f.debug())
	}
}

// A reader that hears a feed for the first time must tell a join from a flood,
// in however many pieces it comes; later deltas are no join.
func TestAFirstJoinIsOneReset(t *testing.T) {
	t.Parallel()
	key := testKey("node")
	feed := testFeed("sshd", testKey("root"), key)
	f := newFollower("testnet", feed)
	fx := &effects{now: testTime}
	var claims []ban.Claim
	for i := range 2*applyMost + 1 {
		target := ban.MustTarget(fmt.Sprintf("45.0.%d.%d", i>>8, i&255))
		claims = append(claims, ban.Claim{Target: target, End: testTime.Add(time.Hour)})
	}
	var s set
	send := func(n uint64, claims []ban.Claim) {
		t.Helper()
		up := wire.SortClaims(claims, testTime)
		for i := range up {
			s.put(&up[i])
		}
		gc := wire.Minutes(testTime)
		head := &wire.Head{N: n, TTL: time.Hour, GC: gc, Count: uint32(s.count), Fingerprint: s.fingerprint(), Ring: ring, Pieces: &wire.Pieces{}}
		bodies := []wire.Body{&wire.Delta{GC: gc, Fingerprint: s.fingerprint(), Up: up}, head}
		if len(up) > wire.MaxDeltaOps { // a snapshot, as an author makes it
			chunk := &wire.Chunk{Up: up}
			text := chunk.Append(nil)
			head.SnapshotN, head.SnapshotGC = n, gc
			head.Pieces.Chunks = []wire.ChunkRef{{Hash: wire.HashOf(text), Size: uint32(len(text))}}
			bodies = []wire.Body{head, chunk}
		}
		for _, body := range bodies {
			name := wire.FeedName("testnet", feed, body.Kind(), 0)
			if body.Kind() == wire.KindDelta {
				name.Slot = int(n)
			}
			m, err := wire.Open(name, wire.Seal(key, wire.Header{Kind: name.Kind, Network: "testnet", Topic: "sshd", Operator: feed.Operator, Epoch: 5, Number: n, Issued: testTime}, body.Append(nil)))
			if err != nil {
				t.Fatal(err)
			}
			f.receive(m, fx)
		}
	}
	shape := func() (out string) {
		for _, c := range fx.changes {
			out += fmt.Sprintf("%d %v %v\n", len(c.change().Claims), c.reset, c.more)
		}
		return out
	}
	send(1, claims)
	const whole = "4096 true true\n4096 false true\n1 false false\n"
	if got := shape(); got != whole {
		t.Errorf("the join is\n%swant\n%s", got, whole)
	}
	fx.changes = nil
	send(2, claims[:1:1])
	send(3, []ban.Claim{{Target: ban.MustTarget("192.0.2.1"), End: testTime.Add(time.Hour)}})
	if got, want := shape(), "1 false false\n1 false false\n"; got != want {
		t.Errorf("later changes are\n%swant\n%s", got, want)
	}
	fx.changes = nil
	f.emitAll(fx)
	if got, want := shape(), "4096 true true\n4096 false true\n2 false false\n"; got != want {
		t.Errorf("the whole state is\n%swant\n%s", got, want)
	}
}
