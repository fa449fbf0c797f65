package ledger

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
)

func sighting(target string, hits int, at time.Duration) Sighting {
	return Sighting{Topic: "sshd", Target: ban.MustTarget(target), Class: ban.ClassAuth, Hits: hits, At: t0.Add(at), Established: true}
}

func TestASightingIsToldAndBansNobody(t *testing.T) {
	w := newWorld(t, Options{})
	w.now = t0.Add(500 * time.Millisecond)
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 1, 300*time.Millisecond)}))
	w.wantDesired()
	w.wantTold("192.0.2.1 weak 72h0m0s")
	if s := w.Stats(); s.Banned != 0 {
		t.Errorf("a sighting counts as a ban: %+v", s)
	}
	if w.BannedAt("sshd", ban.MustTarget("192.0.2.1"), w.now) {
		t.Error("who was seen is taken for banned")
	}
	w.restart()
	w.wantDesired()
	w.wantTold("192.0.2.1 weak 72h0m0s")

	w.now = t0.Add(73 * time.Hour)
	w.Expire(w.now)
	w.wantTold()
	if s := w.Stats(); s.Targets != 0 {
		t.Errorf("an ended sighting is kept: %+v", s)
	}
}

func TestABanTakesTheSightingsPlace(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 1, 0)}))
	w.must(w.Own.Ban(Local{Topic: "sshd", Claim: claim("192.0.2.1", time.Hour)}))
	w.wantTold("192.0.2.1 strong 72h0m0s")
	w.wantDesired("sshd 192.0.2.1 1h0m0s")
	// Nothing is said twice, and nothing less.
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 4, 0)}))
	if _, err := w.Own.Withdraw(Selection{Source: SourceDetection}, ban.ReasonEnded); err != nil {
		t.Fatal(err)
	}
	w.wantDesired()
	w.wantTold("192.0.2.1 weak 72h0m0s")
	if c := w.Own.Claims("sshd"); len(c) != 1 || c[0].Hits != 1 {
		t.Errorf("the feed says %+v", c)
	}
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 4, 0)}))
	if c := w.Own.Claims("sshd"); len(c) != 1 || c[0].Hits != 4 {
		t.Errorf("the feed says %+v after more was seen", c)
	}
}

func TestSightingsAreBounded(t *testing.T) {
	w := newWorld(t, Options{})
	var list []Sighting
	for i := range maxSightings + 1 {
		x := sighting("192.0.2.1", 1, 0)
		x.Target = ban.MustTarget(fmt.Sprintf("203.%d.%d.%d", i>>16, i>>8&255, i&255))
		list = append(list, x)
	}
	for range 2 { // the second time after a restart
		w.must(w.Own.Sight(list))
		if n := len(w.Own.Claims("sshd")); n != maxSightings {
			t.Errorf("%d sightings are told, the limit is %d", n, maxSightings)
		}
		w.restart()
	}
}

func TestAnUnbanEndsTheSightingAndThoseOfBefore(t *testing.T) {
	w := newWorld(t, Options{})
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 1, 0)}))
	w.Own.Take()
	w.now = t0.Add(time.Minute)
	if _, err := w.Exemptions.Unban(ban.MustTarget("192.0.2.1"), 0, ""); err != nil {
		t.Fatal(err)
	}
	w.wantTold()
	if changes := w.Own.Take(); len(changes) != 1 || len(changes[0].Withdrawn) != 1 {
		t.Errorf("readers are told %+v", changes)
	}
	// A forgiven offence is not said again, one after that is.
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 2, 0)}))
	w.wantTold()
	w.now = t0.Add(2 * time.Minute)
	w.must(w.Own.Sight([]Sighting{sighting("192.0.2.1", 4, 2*time.Minute)}))
	w.wantTold("192.0.2.1 weak 72h2m0s")
}
