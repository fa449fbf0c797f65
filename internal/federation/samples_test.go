package federation

import (
	"crypto/ed25519"
	"crypto/sha256"
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
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

func genClaim(t *rapid.T) ban.Claim {
	return ban.Claim{
		Target: genTarget(t), End: testTime.Add(time.Duration(rapid.IntRange(1, 20000).Draw(t, "minutes")) * time.Minute),
		Class: ban.Class(rapid.IntRange(0, int(ban.MaxClass)).Draw(t, "class")), Basis: ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis")), Hits: rapid.Uint8().Draw(t, "hits"), Established: rapid.Bool().Draw(t, "established"),
	}
}

// genTarget draws from a small world, so that targets meet again.
func genTarget(t *rapid.T) ban.Target {
	n := byte(rapid.IntRange(0, 30).Draw(t, "target"))
	var target ban.Target
	var err error
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		target, err = ban.TargetOfAddr(netip.AddrFrom4([4]byte{192, n % 2, 2, n}))
	case 1:
		target, err = ban.TargetOfAddr(netip.AddrFrom16([16]byte{0x20, 1, 13, n, 15: n}))
	case 2:
		target, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte{n, 1, 7: n}), 64))
	case 3:
		target, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte{10, n}), int(n)))
	case 4:
		target, err = ban.TargetOfPrefix(netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, n}), 20+int(n)))
	default:
		target, err = ban.TargetOfWallet([20]byte{1, n})
	}
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// noCard is the card of an author whose operator has none.
func noCard() *wire.Card { return nil }
