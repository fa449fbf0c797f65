package desired

import (
	"maps"
	"math/rand/v2"
	"testing"
)

func TestASlotTableHoldsAsAMapDoes(t *testing.T) {
	t.Run("IPv4", testSlotTable[uint32])
	t.Run("IPv6 networks", testSlotTable[uint64])
}

func testSlotTable[K uint32 | uint64](t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 12 {
		var p slotTable[K]
		want := make(map[K]Slot)
		if round%3 == 2 {
			// Without its secret the table must still be right, however slow:
			// all addresses crowd at one end, and the greatest stands for free.
			p.secret = permutation[K]{multiply: [3]K{1, 1, 1}, inverse: [3]K{1, 1, 1}}
			p.rebuild(pageSize, nil)
		}
		keys := K(100 << (round % 7))
		random := func() K {
			if k := K(r.Uint64()) % keys; k > 3 {
				return k
			}
			return ^K(0) - K(r.Uint64()%4)
		}
		for range 20_000 {
			k := random()
			switch r.IntN(5) {
			case 0:
				p.put(k, Slot{})
				delete(want, k)
			case 1:
				if got := p.get(k); got != want[k] {
					t.Fatalf("%d: %v, want %v", k, got, want[k])
				}
			default:
				v := Slot{Until: Second(r.Uint32()), Class: uint16(1 + r.IntN(9))}
				p.put(k, v)
				want[k] = v
			}
			if r.IntN(4_000) == 0 {
				least := Second(r.Uint32())
				p.keep(func(_ K, v Slot) bool { return v.Until >= least })
				maps.DeleteFunc(want, func(_ K, v Slot) bool { return v.Until < least })
			}
		}
		got := make(map[K]Slot)
		p.each(func(k K, v Slot) bool {
			if _, twice := got[k]; twice {
				t.Fatalf("%d is there twice", k)
			}
			got[k] = v
			return true
		})
		if !maps.Equal(got, want) || p.len() != len(want) {
			t.Fatalf("round %d: %d entries, counted as %d, want %d", round, len(got), p.len(), len(want))
		}
		for k, v := range want {
			if p.get(k) != v {
				t.Fatalf("%d: %v, want %v", k, p.get(k), v)
			}
		}
		stopped := 0
		p.each(func(K, Slot) bool { stopped++; return false })
		if stopped > 1 {
			t.Fatal("each went on")
		}
		p.keep(func(K, Slot) bool { return false })
		if p.len() != 0 || len(p.pages) > 1 {
			t.Fatalf("%d entries on %d pages after all were forgotten", p.len(), len(p.pages))
		}
	}
}
