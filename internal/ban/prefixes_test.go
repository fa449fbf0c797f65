package ban

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

func TestPrefixesAnswerAsAScanWould(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Prefix {
		if rng.IntN(2) == 0 {
			p, _ := netip.AddrFrom4([4]byte{10, byte(rng.IntN(3)), byte(rng.IntN(4)), byte(rng.IntN(256))}).Prefix(8 + rng.IntN(25))
			return p
		}
		p, _ := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(rng.IntN(3)), byte(rng.IntN(8))}).Prefix(rng.IntN(129))
		return p
	}
	hits := 0
	for round := range 2000 {
		all := map[netip.Prefix]int{}
		for i := range rng.IntN(8) {
			all[random()] = i
		}
		set := NewPrefixes(func(yield func(netip.Prefix, int) bool) {
			for p, v := range all {
				if !yield(p, v) {
					return
				}
			}
		})
		for range 8 {
			q := random()
			want := false
			for p := range all {
				want = want || p.Overlaps(q)
			}
			p, v, got := set.Overlaps(q)
			if got != want || got && (all[p] != v || !p.Overlaps(q)) {
				t.Fatalf("round %d: Overlaps(%v) of %v = %v %v %v, want %v", round, q, all, p, v, got, want)
			}
			if got {
				hits++
			}
		}
	}
	if hits < 1000 {
		t.Errorf("only %d hits: the test does not test", hits)
	}
}
