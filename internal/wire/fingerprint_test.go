package wire

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// collidingStates gives the two states of testdata/sum-collision.txt.
func collidingStates(t *testing.T) (states [][]Entry) {
	t.Helper()
	f, err := os.Open("testdata/sum-collision.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "#") {
			continue
		}
		var claims []ban.Claim
		for _, s := range strings.Fields(lines.Text()) {
			claims = append(claims, ban.Claim{Target: ban.MustTarget("2001:db8:" + s + "::/64"), End: testTime.Add(time.Hour), Class: ban.ClassAuth, Hits: 5})
		}
		states = append(states, SortClaims(claims, testTime))
	}
	return states
}

// sumOf is the fingerprint that this one replaced: a sum of hashes, in which
// an author can look for collisions.
func sumOf(es []Entry) (hi, lo uint64) {
	for i := range es {
		l := NewLeafHash()
		l.Add(&es[i])
		h := sha256.Sum256(l.buf[1:])
		var carry uint64
		lo, carry = bits.Add64(lo, binary.BigEndian.Uint64(h[8:16]), 0)
		hi, _ = bits.Add64(hi, binary.BigEndian.Uint64(h[:8]), carry)
	}
	return hi, lo
}

func TestStatesThatAnAuthorMadeCollideInASumDiffer(t *testing.T) {
	states := collidingStates(t)
	if len(states) != 2 || len(states[0]) != 64 || len(states[1]) != 64 {
		t.Fatalf("%d states", len(states))
	}
	aHi, aLo := sumOf(states[0])
	bHi, bLo := sumOf(states[1])
	if aHi != bHi || aLo != bLo {
		t.Fatal("the states of the test do not collide in a sum")
	}
	if FingerprintOf(states[0]) == FingerprintOf(states[1]) {
		t.Error("two states have one fingerprint")
	}
}

func TestEveryFieldOfAnEntryIsInTheFingerprint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		es := genEntries(t, "entries")
		if len(es) == 0 {
			return
		}
		was := FingerprintOf(es)
		i := rapid.IntRange(0, len(es)-1).Draw(t, "which")
		other := slices.Clone(es)
		switch rapid.IntRange(0, 3).Draw(t, "field") {
		case 0:
			other[i].End++
		case 1:
			other[i].Meta[0] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		case 2:
			other[i].Meta[1]++
		case 3:
			other = slices.Delete(other, i, i+1)
		}
		if FingerprintOf(other) == was {
			t.Fatal("a changed state has the same fingerprint")
		}
		other = slices.Clone(es)
		other[i].Said++
		if FingerprintOf(other) != was {
			t.Fatal("when a claim was heard is in the fingerprint")
		}
	})
}

// TestTheDepthOfATreeIsBounded: keys that part at every bit make the deepest
// tree there is.
func TestTheDepthOfATreeIsBounded(t *testing.T) {
	var es []Entry
	r := rand.New(rand.NewPCG(1, 2))
	for bit := range 160 {
		e := Entry{Key: ban.Key{Kind: ban.KindWallet}, End: r.Uint32()}
		e.Key.B[bit/8] = 0x80 >> (bit % 8)
		es = append(es, e)
	}
	for i := range LeafEntries {
		e := Entry{Key: ban.Key{Kind: ban.KindWallet}, End: r.Uint32()}
		e.Key.B[19] = byte(i) | 1
		es = append(es, e)
	}
	slices.SortFunc(es, func(a, b Entry) int { return ban.CompareKeys(&a.Key, &b.Key) })
	es = slices.CompactFunc(es, func(a, b Entry) bool { return a.Key == b.Key })
	if FingerprintOf(es) == FingerprintOf(es[1:]) {
		t.Error("an entry at the depth of the tree is not in its fingerprint")
	}
}
