package detect

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

var windowStart = time.Unix(1_700_000_000, 0)

// TestAWindowCountsExactlyTheOffencesInIt compares with a sum over all offences: those at most
// findTime before the newest, each with its weight as it is.
func TestAWindowCountsExactlyTheOffencesInIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const findTime = 10 * time.Minute
		w := newWindow(findTime, 5, newBudget())
		target := ban.MustTarget("192.0.2.1")
		type offence struct {
			at     time.Time
			weight float64
		}
		var all []offence
		at := windowStart
		for range rapid.IntRange(1, 60).Draw(t, "offences") {
			at = at.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "seconds later")) * time.Second)
			x := offence{at, rapid.SampledFrom([]float64{0.1, 0.3, 1, 2}).Draw(t, "weight")}
			if rapid.Bool().Draw(t, "read late") {
				x.at = x.at.Add(-time.Duration(rapid.IntRange(0, 900).Draw(t, "late")) * time.Second)
			}
			all = append(all, x)
			e := w.add(target, x.at, x.weight, true)
			newest := slices.MaxFunc(all, func(a, b offence) int { return a.at.Compare(b.at) }).at
			want := 0.0
			for _, y := range all {
				if !y.at.Before(newest.Add(-findTime)) {
					want += y.weight
				}
			}
			if d := e.hits - want; d > 1e-9 || d < -1e-9 || e.last != newest.UnixNano() {
				t.Fatalf("%v counts %v, want %v", all, e.hits, want)
			}
		}
	})
}

func TestSmallWeightsAddUp(t *testing.T) {
	w := newWindow(time.Hour, 3, newBudget())
	target := ban.MustTarget("192.0.2.1")
	for i := range 30 {
		e := w.add(target, windowStart.Add(time.Duration(i)*time.Minute), 0.1, true)
		if want := i == 29; e.reaches(w.limit) != want {
			t.Errorf("%d offences of a tenth are enough for 3: %t (%v)", i+1, !want, e.hits)
		}
	}
	w = newWindow(10*time.Minute, 5, newBudget())
	var e *entry
	for i := range 27 { // one in eleven minutes: never more than one in ten
		e = w.add(target, windowStart.Add(time.Duration(i)*11*time.Minute), 0.1, true)
	}
	if e.hits != 0.1 {
		t.Errorf("27 slow offences of a tenth count %v", e.hits)
	}
}

// TestAClockSetBackNeitherAddsNorForgets: offences before and after it lie as far apart as
// they did.
func TestAClockSetBackNeitherAddsNorForgets(t *testing.T) {
	target := ban.MustTarget("192.0.2.1")
	for name, c := range map[string]struct {
		wait time.Duration // between the clock's change and the last offence
		hits float64
	}{"at once": {0, 5}, "within the window": {7 * time.Minute, 5}, "after it": {9 * time.Minute, 1 + 3}, "long after": {time.Hour, 1}} {
		w := newWindow(10*time.Minute, 9, newBudget())
		w.add(target, windowStart, 1, true) // the first of four, two minutes before the others
		for range 3 {
			w.add(target, windowStart.Add(2*time.Minute), 1, true)
		}
		now := windowStart.Add(2*time.Minute - time.Hour)
		w.rebase(now)
		e := w.add(target, now.Add(c.wait), 1, true)
		if e.hits != c.hits {
			t.Errorf("%s: %v offences count, want %v", name, e.hits, c.hits)
		}
		w.rebase(now.Add(c.wait)) // nothing is in the future now
		if e.last != now.Add(c.wait).UnixNano() {
			t.Errorf("%s: the newest is %v off", name, time.Duration(e.last-now.Add(c.wait).UnixNano()))
		}
	}
}

func TestManyEventsOfOneTargetAreBounded(t *testing.T) {
	b := &budget{}
	b.left.Store(40)
	w := newWindow(time.Hour, 1e6, b)
	quiet, busy := ban.MustTarget("192.0.2.1"), ban.MustTarget("192.0.2.2")
	w.add(quiet, windowStart, 1, true)
	var e *entry
	for i := range 3 * maxEvents {
		e = w.add(busy, windowStart.Add(time.Duration(i)*time.Second), 1, true)
	}
	if len(e.events) != maxEvents || e.hits != 3*maxEvents || w.entries[quiet] == nil || b.left.Load() != 40-1-1-maxEvents/8 {
		t.Errorf("%d events with %v hits, budget %d", len(e.events), e.hits, b.left.Load())
	}
	b.left.Store(-1)
	w.add(busy, windowStart.Add(time.Hour-time.Second), 1, true)
	if w.entries[quiet] != nil || w.entries[busy] == nil {
		t.Error("the busy target made no room, or went itself")
	}
}

// A threshold that offences over confirmed connections reach alone is reached
// over established connections, whatever else the address left: a connection
// that the kernel did not remember yet, say.
func TestALineOfNoConnectionTakesNothingFromThoseThatReachTheLimit(t *testing.T) {
	t.Parallel()
	var b budget
	b.left.Store(100)
	w := newWindow(10*time.Minute, 5, &b)
	target := ban.MustTarget("203.0.113.66")
	at := time.Unix(1_700_000_000, 0)
	w.addWeak(target, at, 0.01, false)
	var e *entry
	for i := range 5 {
		if e = w.add(target, at.Add(time.Duration(i)*time.Second), 1, true); e.sure > w.limit-1e-6 != (i == 4) {
			t.Errorf("after %d offences: %.2f of %v are sure", i+1, e.sure, w.limit)
		}
	}
	if e.established {
		t.Error("all offences count as established")
	}
	other := ban.MustTarget("203.0.113.67")
	for i := range 5 {
		e = w.add(other, at.Add(time.Duration(i)*time.Second), 1, i > 0)
	}
	if e.sure > w.limit-1e-6 {
		t.Errorf("%.2f are sure, although one line belongs to no connection", e.sure)
	}
}
