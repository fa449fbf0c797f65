// Package bantest draws claims and targets for property tests.
package bantest

import (
	"net/netip"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// Claim draws a claim with any class, basis and hits, which ends one to 20,000
// minutes after from.
func Claim(t *rapid.T, from time.Time) ban.Claim {
	return ban.Claim{
		Target: Target(t), End: from.Add(time.Duration(rapid.IntRange(1, 20000).Draw(t, "minutes")) * time.Minute),
		Class: ban.Class(rapid.IntRange(0, int(ban.MaxClass)).Draw(t, "class")), Basis: ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis")), Hits: rapid.Uint8().Draw(t, "hits"), Established: rapid.Bool().Draw(t, "established"),
	}
}

// Target draws a target of any kind from a small world, so that targets meet
// again.
func Target(t *rapid.T) ban.Target {
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
