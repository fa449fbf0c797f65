package federation

import (
	"crypto/ed25519"
	"crypto/sha256"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/ban/bantest"
	"banmesh/internal/wire"
)

func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func publicOf(k ed25519.PrivateKey) (p wire.PublicKey) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}

var testTime = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func testFeed(topic ban.Topic, operator, node ed25519.PrivateKey) ban.Feed {
	o, n := publicOf(operator), publicOf(node)
	return ban.Feed{Topic: topic, Operator: ban.OperatorOf(o[:]), Node: ban.NodeOf(n[:])}
}

// genEntries draws sorted entries of every kind.
func genEntries(t *rapid.T, label string) []wire.Entry {
	var claims []ban.Claim
	for range rapid.IntRange(0, 40).Draw(t, label) {
		claims = append(claims, genClaim(t))
	}
	return wire.SortClaims(claims, testTime)
}

func genClaim(t *rapid.T) ban.Claim { return bantest.Claim(t, testTime) }

func genTarget(t *rapid.T) ban.Target { return bantest.Target(t) }

// noCard is the card of an author whose operator has none.
func noCard() *wire.Card { return nil }
