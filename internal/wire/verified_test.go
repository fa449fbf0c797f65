package wire

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"banmesh/internal/ban"
)

func TestWhatWasVerifiedOnceIsStillCheckedForAllButItsSignature(t *testing.T) {
	var v Verifier
	for n, b := range testMessages(t) {
		if _, _, err := v.Open(n, b); err != nil {
			t.Fatal(err)
		}
		m, _, err := v.Open(n, bytes.Clone(b))
		if err != nil || m.Name != n || m.Body == nil {
			t.Errorf("the same again: %v, %v", m, err)
		}
		bad := bytes.Clone(b)
		bad[len(bad)-1] ^= 1
		for range 2 { // a refusal is not remembered as anything
			if _, _, err := v.Open(n, bad); !errors.Is(err, ErrSignature) {
				t.Errorf("%v: %v", n, err)
			}
		}
		elsewhere := n
		elsewhere.Operator[0] ^= 1
		if _, _, err := v.Open(elsewhere, b); !errors.Is(err, ErrMisplaced) {
			t.Errorf("%v elsewhere: %v", n, err)
		}
	}
	if _, _, err := v.Open(Name{}, make([]byte, MaxPayload+1)); !errors.Is(err, ErrSize) {
		t.Errorf("a huge payload: %v", err)
	}
}

func TestTheMemoryOfVerifiedMessagesIsBounded(t *testing.T) {
	var v Verifier
	key, f := testKey("node"), testFeed("sshd", testKey("root"), testKey("node"))
	// Full twice over, as by many messages.
	v.young, v.old = map[digest]struct{}{}, map[digest]struct{}{}
	for i := range verifiedMost {
		v.young[[32]byte{1, byte(i >> 8), byte(i)}], v.old[[32]byte{2, byte(i >> 8), byte(i)}] = struct{}{}, struct{}{}
	}
	for i := range 10 {
		n := FeedName("testnet", f, KindDispute, 0)
		b := Seal(key, Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: f.Operator, Epoch: 1, Number: uint64(i), Issued: testTime}, (&Dispute{}).Append(nil))
		if _, _, err := v.Open(n, b); err != nil {
			t.Fatal(err)
		}
	}
	if len(v.young) > verifiedMost || len(v.old) > verifiedMost {
		t.Errorf("%d and %d are remembered", len(v.young), len(v.old))
	}
}

// Other states behind one signed head cost no other signature, and none makes a
// message verified that was not.
func TestAStateBehindAHeadCostsNoSignature(t *testing.T) {
	var v Verifier
	key, f := testKey("node"), testFeed("sshd", testKey("root"), testKey("node"))
	n := FeedName("testnet", f, KindHead, 0)
	bare := Seal(key, Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: f.Operator, Epoch: 1, Number: 1, Issued: testTime}, (&Head{TTL: time.Hour, Ring: 1, Pieces: &Pieces{}}).Append(nil))
	for i := range 5 {
		state := []Entry{{Key: ban.KeyOf(ban.MustTarget("192.0.2.1")), End: Minutes(testTime) + uint32(i)}}
		m, fresh, err := v.Open(n, AppendState(bare, state))
		if err != nil || fresh != (i == 0) || len(m.State) != 1 || m.State[0].End != state[0].End {
			t.Fatalf("state %d: fresh %v, %v", i, fresh, err)
		}
	}
	forged := bytes.Clone(bare)
	forged[70] ^= 1
	if _, _, err := v.Open(n, forged); err == nil {
		t.Error("a forged head passes")
	}
}
