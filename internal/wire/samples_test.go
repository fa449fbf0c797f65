package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/ban/bantest"
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicOf(k ed25519.PrivateKey) (p PublicKey) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func testFeed(topic ban.Topic, operator, node ed25519.PrivateKey) ban.Feed {
	o, n := publicOf(operator), publicOf(node)
	return ban.Feed{Topic: topic, Operator: ban.OperatorOf(o[:]), Node: ban.NodeOf(n[:])}
}

// genEntries draws sorted entries of every kind.
func genEntries(t *rapid.T, label string) []Entry {
	var claims []ban.Claim
	for range rapid.IntRange(0, 40).Draw(t, label) {
		claims = append(claims, genClaim(t))
	}
	return SortClaims(claims, testTime)
}

func genClaim(t *rapid.T) ban.Claim { return bantest.Claim(t, testTime) }
