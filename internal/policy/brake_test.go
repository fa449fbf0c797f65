package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// TestBudgetsHoldUnderAnySchedule: whatever is asked for and returned when, the
// live claims and their addresses never exceed their limits, and no stretch of
// time grants more decided claims than its days.
func TestBudgetsHoldUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := Limits{Decided: rapid.IntRange(0, 20).Draw(t, "decided"), Live: rapid.IntRange(1, 60).Draw(t, "live"), Addresses: rapid.IntRange(1, 600).Draw(t, "addresses")}
		var b Budget
		var held []ban.Target
		var granted []time.Time
		now := t0
		sizes := []ban.Target{target, ban.MustTarget("9.1.0.0/25"), ban.MustTarget("2a00::/62"), ban.MustTarget("2a00::1"), ban.MustTarget("0x52908400098527886e0f7030069857d2e4169ee7")}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 200).Draw(t, "pause")) * time.Minute)
			if len(held) > 0 && rapid.IntRange(0, 3).Draw(t, "give") == 0 {
				b.Give(held[0])
				held = held[1:]
				continue
			}
			asked := rapid.SampledFrom(sizes).Draw(t, "target")
			basis := ban.Basis(rapid.IntRange(0, 3).Draw(t, "basis"))
			if b.Take(l, asked, basis, now) {
				held = append(held, asked)
				if basis == ban.BasisDecided && asked.Kind() != ban.KindWallet {
					granted = append(granted, now)
				}
			}
			total := int64(0)
			for _, h := range held {
				total += Addresses(h)
			}
			if len(held) > l.Live || total > int64(l.Addresses) || b.Live != len(held) || b.Addresses != total {
				t.Fatalf("%d live, %d addresses, counted as %d and %d, limits %+v", len(held), total, b.Live, b.Addresses, l)
			}
			for i := range granted {
				days := granted[len(granted)-1].Sub(granted[i]).Hours() / 24
				if n := len(granted) - i; float64(n) > float64(l.Decided)*(1+days)+1e-6 {
					t.Fatalf("%d decided claims granted within %.2f days, limits %+v", n, days, l)
				}
			}
		}
		if s := b.State(l, now); s.Live != len(held) || s.DecidedToday > l.Decided || s.LiveMost != l.Live {
			t.Fatalf("state %+v", s)
		}
	})
}

func TestTwentyDecidedAddressesADayAndAnyNumberOfWallets(t *testing.T) {
	l := DefaultLimits()
	var b Budget
	for n := range 22 {
		if got := b.Take(l, target, ban.BasisDecided, t0); got != (n < 20) {
			t.Errorf("decision %d: %v", n+1, got)
		}
		if !b.Take(l, ban.MustTarget("0x52908400098527886e0f7030069857d2e4169ee7"), ban.BasisDecided, t0) || !b.Take(l, target, ban.BasisStrong, t0) {
			t.Errorf("a wallet or a machine's claim waits for it")
		}
	}
	if b.Take(l, target, ban.BasisDecided, t0.Add(time.Hour)) || !b.Take(l, target, ban.BasisDecided, t0.Add(73*time.Minute)) {
		t.Error("a twentieth of a day makes room for one")
	}
}

// add asks for n additions and gives how many counted.
func add(g *Guard, l Limits, n int, now time.Time) (counted int) {
	for range n {
		if g.Add(l, now) {
			counted++
		}
	}
	return counted
}

// An honest peer of 2,824 bans comes under attack and adds 4,700 in an hour.
func TestAnHonestPeerUnderAttackIsNotCutOff(t *testing.T) {
	l := DefaultLimits()
	var g Guard
	for range 2824 {
		g.Join(t0)
	}
	now := t0
	for range 48 { // its ordinary days
		now = now.Add(time.Hour)
		if n := add(&g, l, 118, now); n != 118 {
			t.Fatalf("%d of an ordinary hour count", n)
		}
	}
	now = now.Add(time.Hour)
	if n := add(&g, l, 4700, now); n < 1100 || n > 1300 {
		t.Errorf("%d of 4,700 count at once", n)
	}
	s := g.State(l, now)
	if !g.Holds || s.Over != 4700-s.Added || s.Allowed != s.Added || s.Since.IsZero() {
		t.Errorf("state %+v", s)
	}
	// The next hour is not lost to the one before.
	now = now.Add(time.Hour)
	if n := add(&g, l, 4700, now); n < 1100 {
		t.Errorf("%d count an hour later", n)
	}
	g.Approve(now)
	if n := add(&g, l, 4700, now); n < 1100 || g.State(l, now).Since.IsZero() {
		t.Errorf("%d count after an approval", n)
	}
}

func TestAnHourOfAnUnknownFeedHasItsLimit(t *testing.T) {
	l := DefaultLimits()
	var g Guard
	if n := add(&g, l, l.PerHour, t0); n != l.PerHour || g.Holds {
		t.Errorf("%d count, holds %v", n, g.Holds)
	}
	if g.Add(l, t0) || !g.Holds {
		t.Error("one more counts")
	}
	if n := add(&g, l, 1000, t0.Add(59*time.Minute)); n != 0 {
		t.Errorf("%d more count within the hour", n)
	}
	if n := add(&g, l, 1000, t0.Add(time.Hour)); n != l.PerHour {
		t.Errorf("%d count in the next", n)
	}
	if g.Room(l, t0.Add(time.Hour)) || !g.Room(l, t0.Add(2*time.Hour)) {
		t.Error("what waited does not come in at the hour's rate")
	}
	l.PerHour, l.Turnover = 0, 0
	if n := add(&g, l, 10, t0.Add(3*time.Hour)); n != 0 {
		t.Errorf("%d count where nothing may", n)
	}
}

// Who takes all that is allowed, hour after hour, trains the brake slowly.
func TestFloodsDoNotBecomeUsual(t *testing.T) {
	l := DefaultLimits()
	var g Guard
	total, now := 0, t0
	for range 24 {
		total += add(&g, l, 5000, now)
		now = now.Add(time.Hour)
	}
	if total > 3*24*l.PerHour {
		t.Errorf("%d of a flood count in a day", total)
	}
	for range 24 * 30 { // a quiet month
		now = now.Add(time.Hour)
		g.roll(now)
	}
	if s := g.State(l, now); s.Allowed != l.PerHour {
		t.Errorf("after a quiet month %+v", s)
	}
}

// Changes of an honest peer while this node was away are not late.
func TestTimeAwayIsCredited(t *testing.T) {
	l := DefaultLimits()
	var g Guard
	g.Credit(l, 5*time.Hour)
	if n := add(&g, l, 2000, t0); n != 6*l.PerHour {
		t.Errorf("%d count after five hours away", n)
	}
	if n := add(&g, l, 2000, t0.Add(time.Hour)); n != l.PerHour {
		t.Errorf("%d count an hour later", n)
	}
}
