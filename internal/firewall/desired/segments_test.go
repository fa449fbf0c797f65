package desired

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/firewall/testnet"
)

func TestSegmentsAreDisjointAndComplete(t *testing.T) {
	// Against the plain definition: every address has the topics of all
	// prefixes around it.
	r := rand.New(rand.NewPCG(1, 2))
	topics := []ban.Topic{"a", "b", "c"}
	for range 300 {
		s := New()
		type entry struct {
			p netip.Prefix
			t ban.Topic
			u Second
		}
		var all []entry
		for range 1 + r.IntN(12) {
			bits := 24 + r.IntN(8)
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, byte(r.IntN(256))}), bits).Masked()
			e := entry{p, topics[r.IntN(3)], Second(100 + r.IntN(3)*100)}
			all = slices.DeleteFunc(all, func(x entry) bool { return x.p == e.p && x.t == e.t })
			all = append(all, e)
			if _, err := s.Add(e.p, e.t, "", e.u, 50); err != nil {
				t.Fatal(err)
			}
		}
		for _, now := range []Second{50, 150, 250} {
			got, _, err := s.Segments(true, now)
			testnet.Must(t, err)
			for i := range got {
				if got[i].To.Less(got[i].From) || i > 0 && !got[i-1].To.Less(got[i].From) {
					t.Fatalf("segments overlap: %v", got)
				}
			}
			for i := range 256 {
				a := netip.AddrFrom4([4]byte{255, 255, 255, byte(i)})
				var want []ban.Topic
				var until Second
				for _, e := range all {
					if e.p.Contains(a) && e.u > now {
						want = append(want, e.t)
						until = max(until, e.u)
					}
				}
				slices.Sort(want)
				want = slices.Compact(want)
				v := s.Covering(a, got)[1:]
				var have []ban.Topic
				var ends Second
				if len(v) > 0 {
					have, ends = s.Classes[v[0].Class].Topics, v[0].Until
				}
				if !slices.Equal(have, want) || ends != until {
					t.Fatalf("%v at %d: %v until %d, want %v until %d\n%v", a, now, have, ends, want, until, all)
				}
			}
		}
	}
}
