package ledger

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// Random changes are played against a map, with few keys so that they meet.
func TestAnIndexFindsWhatAMapWould(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var all arena[record]
	x, plain := newIndex(&all), map[record]uint32{}
	var free []uint32
	for step := range 200_000 {
		rec := record{kind: ban.KindAddr4, key: [2]uint32{random.Uint32N(3000)}}
		if random.IntN(2) == 0 {
			rec.kind, rec.key[1] = ban.KindNet6, random.Uint32N(2)
		}
		r, ok := x.find(rec.kind, rec.key)
		if want, had := plain[rec]; had != ok || want != r {
			t.Fatalf("step %d: %v is %d, %v; want %d, %v", step, rec, r, ok, want, had)
		}
		grow := step/20_000%2 == 0
		switch {
		case ok && (!grow || random.IntN(8) == 0):
			x.drop(r)
			delete(plain, rec)
			*all.at(r) = record{}
			free = append(free, r)
		case !ok && (grow || random.IntN(8) == 0):
			if n := len(free); n > 0 {
				r, free = free[n-1], free[:n-1]
			} else {
				r = all.add()
			}
			*all.at(r) = rec
			x.put(r)
			plain[rec] = r
		}
	}
	if got, want := slices.Sorted(x.records()), slices.Sorted(maps.Values(plain)); !slices.Equal(got, want) {
		t.Errorf("the index gives %d records, want %d", len(got), len(want))
	}
	if x.used != len(plain) {
		t.Errorf("it counts %d of %d", x.used, len(plain))
	}
	// Dropping the record at hand hides none of the others.
	seen := map[uint32]bool{}
	for r := range x.records() {
		if seen[r] {
			t.Fatalf("%d was given twice", r)
		}
		seen[r] = true
		x.drop(r)
	}
	if len(seen) != len(plain) || x.used != 0 || x.nets != 0 {
		t.Errorf("%d of %d were given, %d of them are left, %d networks", len(seen), len(plain), x.used, x.nets)
	}
}

func TestAWheelGivesEachRecordOnceWhenItIsDue(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	start := time.Unix(1_800_000_000, 0)
	var w wheel
	w.init()
	w.drain(start, func(uint32, uint32) {})
	due := map[uint32]uint32{} // the slot in which each record is due
	records := make([]record, 5000)
	given := 0
	for now := start; now.Before(start.Add(time.Hour)); now = now.Add(time.Duration(random.IntN(60)) * time.Second) {
		for range 100 {
			r := random.Uint32N(uint32(len(records)))
			if records[r].wake == 0 {
				w.schedule(r, &records[r], seconds(now)+random.Uint32N(600))
				due[r] = records[r].wake
			}
		}
		w.drain(now, func(r, slot uint32) {
			if due[r] != slot || slot > seconds(now)/slotSeconds {
				t.Fatalf("record %d comes in slot %d, not %d", r, slot, due[r])
			}
			delete(due, r)
			records[r].wake = 0
			given++
		})
		for r, slot := range due {
			if slot <= seconds(now)/slotSeconds {
				t.Fatalf("record %d did not come in slot %d", r, slot)
			}
		}
	}
	if given < 5000 {
		t.Fatalf("only %d came: the test does not test", given)
	}
	if n := int(w.links.len()); n > 1000 {
		t.Errorf("%d links for at most 1000 records at a time: they are not used again", n)
	}
}

// TestWhatLiesInAPrefixIsFound: looking places up gives the same as looking at
// every record.
func TestWhatLiesInAPrefixIsFound(t *testing.T) {
	var x table
	x.init(defaultBounds)
	topic := x.topic("sshd")
	var all []ban.Target
	for _, s := range []string{
		"9.0.0.1", "9.0.0.255", "9.0.1.0", "9.0.0.0/24", "9.0.0.0/25", "9.0.0.0/16", "9.0.0.0/8", "0.0.0.0/0",
		"2a00::/64", "2a00::1", "2a00::/96", "2a00:0:0:1::/64", "2a00:0:0:1::7", "2a00::/48", "2a00::/32", "::/0", "0x00000000000000000000000000000000000000aa",
	} {
		all = append(all, ban.MustTarget(s))
	}
	for i := range 300 { // so that looking up is worth it
		all = append(all, many(1<<16+i, 1, time.Hour)[0].Target)
	}
	for _, target := range all {
		if _, err := x.put(topic, target); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range append(all[:17:17], ban.MustTarget("10.0.0.0/8"), ban.MustTarget("9.0.0.0/30"), ban.MustTarget("2a00::/63")) {
		p, ip := target.Prefix()
		var want, got []string
		for _, other := range all {
			if q, ok := other.Prefix(); ok && ip && q.Bits() > p.Bits() && p.Contains(q.Addr()) {
				want = append(want, other.String())
			}
		}
		x.inside(topic, target, func(r uint32) { got = append(got, x.target(r).String()) })
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("in %s: %q, want %q", target, got, want)
		}
	}
}
