package federation

import (
	"slices"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/wire"

	"pgregory.net/rapid"
)

// TestASetIsASortedMap compares a set with a map under random operations.
func TestASetIsASortedMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s set
		want := map[ban.Key]wire.Entry{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				e := wire.EntryOf(genClaim(t))
				e.Said = rapid.Uint32Range(1, 3).Draw(t, "said")
				s.put(&e)
				want[e.Key] = e
			case 3:
				k := ban.KeyOf(genTarget(t))
				_, was := want[k]
				if _, ok := s.remove(&k); ok != was {
					t.Fatalf("remove says %v", ok)
				}
				delete(want, k)
			case 4:
				gc := wire.Minutes(testTime) + uint32(rapid.IntRange(0, 20000).Draw(t, "gc"))
				gone := 0
				for k, e := range want {
					if e.End <= gc {
						delete(want, k)
						gone++
					}
				}
				if got := s.expire(gc); len(got) != gone {
					t.Fatalf("%d expired, want %d", len(got), gone)
				}
			case 5:
				for _, e := range genEntries(t, "bulk") {
					s.put(&e)
					want[e.Key] = e
				}
			}
			checkSet(t, &s, want)
			s.each(func(e *wire.Entry) {
				if want[e.Key].Said != e.Said {
					t.Fatalf("%v was heard at %d, want %d", e.Key, e.Said, want[e.Key].Said)
				}
			})
		}
	})
}

func checkSet(t *rapid.T, s *set, want map[ban.Key]wire.Entry) {
	t.Helper()
	var es []wire.Entry
	var before *ban.Key
	n := 0
	s.each(func(e *wire.Entry) {
		if w, ok := want[e.Key]; !ok || w.End != e.End || w.Meta != e.Meta {
			t.Fatalf("the set has %+v, want %+v", e, w)
		}
		if before != nil && ban.CompareKeys(before, &e.Key) >= 0 {
			t.Fatal("not in order")
		}
		before = &e.Key
		es = append(es, *e)
		n++
	})
	fp := wire.FingerprintOf(es)
	if n != len(want) || s.count != n || s.fingerprint() != fp {
		t.Fatalf("%d entries, count %d, want %d; fingerprint ok: %v", n, s.count, len(want), s.fingerprint() == fp)
	}
	for k, w := range want {
		if e, ok := s.get(&k); !ok || e.End != w.End {
			t.Fatalf("get(%v) = %+v, %v", k, e, ok)
		}
	}
}

func TestBetweenGivesARange(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		es := genEntries(t, "entries")
		var s set
		for i := range es {
			s.put(&es[i])
		}
		a, b := ban.KeyOf(genTarget(t)), ban.KeyOf(genTarget(t))
		lo, hi := a.Text(), b.Text()
		if rapid.Bool().Draw(t, "no low") {
			lo = ""
		}
		if rapid.Bool().Draw(t, "no high") {
			hi = ""
		}
		var want []wire.Entry
		for _, e := range es {
			if e.Key.Text() >= lo && (hi == "" || e.Key.Text() < hi) {
				want = append(want, e)
			}
		}
		if got := s.between(lo, hi); !slices.Equal(got, want) {
			t.Fatalf("between gives %d, want %d", len(got), len(want))
		}
	})
}

func TestDifferenceTurnsOneSetIntoTheOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var a, b set
		for _, e := range genEntries(t, "a") {
			a.put(&e)
		}
		for _, e := range genEntries(t, "b") {
			b.put(&e)
		}
		var up []wire.Entry
		var down []wire.Withdrawal
		difference(&a, &b, func(e *wire.Entry) { up = append(up, *e) }, func(k *ban.Key) { down = append(down, wire.Withdrawal{Key: *k}) })
		a.apply(0, up, down, 0)
		if a.fingerprint() != b.fingerprint() || a.count != b.count {
			t.Fatal("they differ still")
		}
	})
}

func TestABigSetSplitsItsPages(t *testing.T) {
	t.Parallel()
	var s set
	for i := range 10 * pageSize {
		e := wire.Entry{Key: ban.Key{Kind: 1, B: [20]byte{byte(i * 7), byte(i >> 8), byte(i)}}, End: uint32(i) + 1}
		s.put(&e)
	}
	for _, p := range s.pages {
		if p.len() > pageSize || p.len() == 0 {
			t.Fatalf("a page of %d", p.len())
		}
	}
	if s.count != 10*pageSize {
		t.Fatalf("%d entries", s.count)
	}
	if got := len(s.expire(1 << 31)); got != 10*pageSize || s.count != 0 || s.fingerprint() != wire.FingerprintOf(nil) || len(s.pages) != 0 {
		t.Fatalf("%d expired, %d left", got, s.count)
	}
}
