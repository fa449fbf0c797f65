package federation

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// crowdedKey draws keys that part early, late and at every bit, enough of them
// to fill leaves.
func crowdedKey(r *rand.Rand) (k ban.Key) {
	switch r.IntN(4) {
	case 0: // neighbours
		k.Kind = ban.KindAddr4
		k.B[0], k.B[2], k.B[3] = 198, byte(r.IntN(2)), byte(r.IntN(256))
	case 1: // anywhere
		k.Kind = ban.KindAddr4
		k.B = [20]byte{byte(r.IntN(256)), byte(r.IntN(4))}
	case 2: // each parts from the others at a bit of its own
		k.Kind = ban.KindWallet
		i := r.IntN(160)
		k.B[i/8] = 0x80 >> (i % 8)
	case 3:
		k.Kind = ban.KindWallet
		k.B[19] = byte(1 + r.IntN(255))
	}
	return k
}

// TestTheTreeIsThatOfTheEntries: whatever the way to a state, its fingerprint
// is that of the state alone.
func TestTheTreeIsThatOfTheEntries(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(1, rapid.Uint64().Draw(t, "seed")))
		s := &set{}
		for range rapid.IntRange(1, 12).Draw(t, "rounds") {
			ops, drop := rapid.IntRange(1, 400).Draw(t, "ops"), rapid.IntRange(0, 100).Draw(t, "withdrawn")
			for range ops {
				k := crowdedKey(r)
				if r.IntN(100) < drop {
					s.remove(&k)
					continue
				}
				s.put(&wire.Entry{Key: k, End: 1 + uint32(r.IntN(50)), Meta: wire.Meta{byte(r.IntN(256)), 1}})
			}
			if rapid.IntRange(0, 3).Draw(t, "expire") == 0 {
				s.expire(uint32(r.IntN(60)))
			}
			var es []wire.Entry
			s.each(func(e *wire.Entry) { es = append(es, *e) })
			if s.fingerprint() != wire.FingerprintOf(es) {
				t.Fatalf("%d entries: the fingerprint is not that of the state", len(es))
			}
			checkNode(t, s.tree.root)
		}
	})
}

// checkNode checks the invariants of add and remove.
func checkNode(t *rapid.T, n *node) {
	switch {
	case n == nil:
	case n.dirty:
		t.Fatal("a node is dirty right after the fingerprint was made")
	case n.isLeaf() && n.count > wire.LeafEntries, !n.isLeaf() && n.count <= wire.LeafEntries:
		t.Fatalf("a node of %d entries; leaf: %v", n.count, n.isLeaf())
	case !n.isLeaf():
		if n.child[0].count+n.child[1].count != n.count {
			t.Fatalf("%d + %d entries are not %d", n.child[0].count, n.child[1].count, n.count)
		}
		checkNode(t, n.child[0])
		checkNode(t, n.child[1])
	}
}

// million gives a state of a million addresses, in order.
func million() []wire.Entry {
	r := rand.New(rand.NewPCG(1, 2))
	es := make([]wire.Entry, 1e6)
	for i := range es {
		es[i] = wire.Entry{Key: ban.Key{Kind: ban.KindAddr4}, End: 1e6 + uint32(r.IntN(1e5)), Meta: wire.Meta{2, 5}}
		v := uint32(i)*4096 + uint32(r.IntN(4096))
		es[i].Key.B = [20]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}
	}
	return es
}

// BenchmarkFingerprintOfAMillion is how long who joins takes for the proof that
// the state is the author's.
func BenchmarkFingerprintOfAMillion(b *testing.B) {
	es := million()
	for b.Loop() {
		var s set
		for i := range es {
			s.put(&es[i])
		}
		s.fingerprint()
	}
}

// BenchmarkFingerprintAfterADelta is how long a delta of 4,096 changes all over
// a state of a million takes.
func BenchmarkFingerprintAfterADelta(b *testing.B) {
	es := million()
	var s set
	for i := range es {
		s.put(&es[i])
	}
	s.fingerprint()
	r := rand.New(rand.NewPCG(3, 4))
	for b.Loop() {
		for range wire.MaxDeltaOps {
			i := r.IntN(len(es))
			es[i].End++
			s.put(&es[i])
		}
		s.fingerprint()
	}
}

// TestTwoReadersOfOneHeadCannotBothBelieveDifferentStates: an author hands one
// delta to one reader and another to the second, and the same head to both.
func TestTwoReadersOfOneHeadCannotBothBelieveDifferentStates(t *testing.T) {
	t.Parallel()
	states := collidingStates(t)
	author := newTestAuthor(t)
	gc := wire.Minutes(testTime)
	head := author.message(1, &wire.Head{N: 1, TTL: headTTL, GC: gc, Count: uint32(len(states[0])), Fingerprint: wire.FingerprintOf(states[0]), Ring: ring, Pieces: &wire.Pieces{}})
	var synced []string
	for _, up := range states {
		f, fx := newFollower("testnet", author.feed), &effects{now: testTime}
		f.receive(head, fx)
		f.receive(author.message(1, &wire.Delta{GC: gc, Fingerprint: wire.FingerprintOf(states[0]), Up: slices.Clone(up)}), fx)
		if f.status(testTime) == StatusSynced {
			synced = append(synced, fmt.Sprintf("%x", f.set.fingerprint()))
		}
	}
	if len(synced) != 1 {
		t.Errorf("%d readers believe the head, want the one who has its state: %q", len(synced), synced)
	}
}

// A testAuthor signs whatever it is told to.
type testAuthor struct {
	t      *testing.T
	feed   ban.Feed
	issued time.Time // the date of its messages
}

func newTestAuthor(t *testing.T) *testAuthor {
	return &testAuthor{t, testFeed("sshd", testKey("root"), testKey("node")), testTime}
}

// message gives a message of epoch 5, opened as a reader opens it.
func (a *testAuthor) message(number uint64, body wire.Body) *wire.Message {
	return a.messageOf(5, number, body)
}

func (a *testAuthor) messageOf(epoch, number uint64, body wire.Body) *wire.Message {
	a.t.Helper()
	n := wire.FeedName("testnet", a.feed, body.Kind(), 0)
	if body.Kind() == wire.KindDelta {
		n.Slot = int(number % ring)
	}
	m, err := wire.Open(n, wire.Seal(testKey("node"), wire.Header{Kind: n.Kind, Network: "testnet", Topic: "sshd", Operator: a.feed.Operator, Epoch: epoch, Number: number, Issued: a.issued}, body.Append(nil)))
	if err != nil {
		a.t.Fatal(err)
	}
	return m
}

// collidingStates gives two states that a sum of hashes does not tell apart.
func collidingStates(t *testing.T) (states [][]wire.Entry) {
	t.Helper()
	text, err := os.ReadFile("../wire/testdata/sum-collision.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		var claims []ban.Claim
		for _, s := range strings.Fields(line) {
			claims = append(claims, ban.Claim{Target: ban.MustTarget("2001:db8:" + s + "::/64"), End: testTime.Add(time.Hour), Class: ban.ClassAuth, Hits: 5})
		}
		states = append(states, wire.SortClaims(claims, testTime))
	}
	return states
}
