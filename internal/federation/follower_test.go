package federation

import (
	"testing"
	"time"

	"banmesh/internal/ban"
)

// A feed that begins again with the same claims, while a reader is joining it,
// must not be taken for an author who tells two stories.
func TestAJoinIsNotContinuedInTheNextEpoch(t *testing.T) {
	key := testKey("node")
	feed := testFeed("sshd", testKey("root"), key)
	f := newFollower("testnet", feed)
	fx := &effects{now: testTime}
	up := sortClaims([]ban.Claim{{Target: ban.MustTarget("192.0.2.1"), End: testTime.Add(time.Hour)}}, testTime)
	var s set
	s.put(&up[0])
	message := func(epoch, number uint64, body Body) {
		t.Helper()
		n := FeedName("testnet", feed, body.kind(), int(number%ring))
		if body.kind() == KindHead {
			n.Slot = 0
		}
		m, err := Open(n, seal(key, Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: feed.Operator, Epoch: epoch, Number: number, Issued: testTime}, body.append(nil)))
		if err != nil {
			t.Fatal(err)
		}
		f.receive(m, fx)
	}
	gc := minutes(testTime)
	head := func(n uint64) *Head {
		return &Head{N: n, TTL: time.Hour, GC: gc, Count: 1, Fingerprint: s.fingerprint, Ring: ring, Pieces: &Pieces{}}
	}
	message(5, 1, head(2))
	message(5, 1, &Delta{GC: gc, Fingerprint: s.fingerprint, up: up})
	if f.join == nil || f.join.n != 1 {
		t.Fatalf("the join is not under way: %+v", f.join)
	}
	message(6, 1, head(1))
	second := &Delta{GC: gc - 1, Fingerprint: s.fingerprint, up: up} // another body with the same outcome
	message(6, 1, second)
	message(6, 1, second) // a broker repeats it
	if got := f.status(testTime); got != StatusSynced {
		t.Errorf("the feed is %s; %s", got, f.debug())
	}
}
