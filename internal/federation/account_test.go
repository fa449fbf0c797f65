package federation

import (
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// An operator with as many nodes as a card holds makes a reader hold no more
// than one with two: each of their feeds has a gap, and deltas beyond it.
func TestManyNodesOfAnOperatorShareOneAccount(t *testing.T) {
	t.Parallel()
	shared := &account{}
	key := testKey("node")
	most := 0
	for node := range wire.MaxNodes {
		feed := testFeed("sshd", testKey("root"), key)
		feed.Node = ban.NodeOf([]byte{byte(node)})
		f := newFollower("testnet", feed)
		f.account = shared
		for n := range uint64(32) {
			raw := make([]byte, wire.MaxSent)
			f.receive(&wire.Message{Header: wire.Header{Kind: wire.KindDelta, Epoch: 5, Number: 2 + n, Issued: testTime}, Body: &wire.Delta{}, Hash: wire.Hash{byte(n)}, Raw: raw}, &effects{now: testTime})
		}
		if most = max(most, shared.pending); most > maxOperatorPending {
			t.Fatalf("after %d nodes %d bytes wait", node+1, most)
		}
	}
	if most < maxOperatorPending-wire.MaxSent {
		t.Errorf("%d bytes wait at most: the account gives less than it has", most)
	}
}

func TestTheAccountOfAnOperatorEndsAtItsLimits(t *testing.T) {
	t.Parallel()
	shared := &account{}
	feed := testFeed("sshd", testKey("root"), testKey("node"))
	one, two := newFollower("testnet", feed), newFollower("testnet", feed)
	one.account, two.account = shared, shared

	one.join = &join{bytes: wire.MaxFeedBytes}
	one.settle()
	if two.roomForJoin(1) {
		t.Error("a join beside one that takes all")
	}
	one.join.bytes = maxOperatorJoining - 10
	one.settle()
	if !two.roomForJoin(10) || two.roomForJoin(11) || !one.roomForJoin(wire.MaxFeedBytes) {
		t.Error("joins end elsewhere than at the limit")
	}
	one.join = nil
	one.settle()
	if !two.roomForJoin(wire.MaxFeedBytes) {
		t.Error("the first join of an operator has to wait")
	}

	one.counted.claims, shared.claims = maxOperatorClaims-10, maxOperatorClaims-10
	if !two.roomForClaims(10) || two.roomForClaims(11) || !one.roomForClaims(wire.MaxFeedClaims) || one.roomForClaims(wire.MaxFeedClaims+1) {
		t.Error("claims end elsewhere than at the limit")
	}
	if *shared == (account{}) {
		t.Error("nothing was counted")
	}
}

// A claim that ends later than any may is in force until the latest end that is
// allowed, counted from when it was heard.
func TestALongerEndIsCut(t *testing.T) {
	t.Parallel()
	last := testTime.Add(wire.MaxEnd)
	for end, want := range map[time.Time]time.Time{last: last, last.Add(time.Minute): last, last.Add(-time.Minute): last.Add(-time.Minute)} {
		claims := wire.SortClaims([]ban.Claim{{Target: ban.MustTarget("192.0.2.1"), End: end}}, testTime)
		c := change{up: claims, last: last}
		if got := c.change().Claims[0].End; !got.Equal(want) {
			t.Errorf("%s becomes %s, want %s", end, got, want)
		}
	}
}
