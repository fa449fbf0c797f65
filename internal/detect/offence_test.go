package detect

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/topics"
)

// doubting gives the topic sshd, which takes a line's word only where the
// kernel agrees, and one for who is banned again and again.
func doubting(t *testing.T, path string) []Jail {
	d := sshd(t, path)
	d.Detect.Corroborate = span.Of(10 * time.Minute)
	again := &topics.Definition{Name: "again", Target: "ip", Detect: &topics.Detect{
		Decisions: true, Rules: []topics.Rule{{Regex: []string{`^never <ADDR>$`}}}, MaxRetry: 1,
		FindTime: span.Of(time.Hour), BanTime: span.Of(time.Hour),
	}}
	return []Jail{{Definition: d}, {Definition: again}}
}

func TestALineCountsOnlyIfItsAddressWasConnected(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	start := time.Now().Add(-time.Minute).Truncate(time.Second)
	write(t, log, failures(9, "192.0.2.1", start)+failures(5, "192.0.2.2", start)+failures(9, "2001:db8::1", start)+failures(5, "2001:db8:1::2", start))
	connected := []string{"192.0.2.2", "2001:db8:1::2"}
	var asked []string
	var got decisions
	d := readOnce(t, Options{
		Jails: doubting(t, log), Ban: got.ban,
		// Even a watched target's first offence must be one.
		Watched: func(_ ban.Topic, target ban.Target) bool { return target == ban.MustTarget("192.0.2.1") },
		Corroborated: func(_ context.Context, q Question) Proof {
			a := q.From.Addr()
			asked = append(asked, string(q.Topic)+" "+a.String())
			if slices.Contains(connected, a.String()) {
				return ProofConfirmed
			}
			return ProofDenied
		},
	})
	var said []string
	for _, v := range got.all() {
		if !v.Established {
			t.Errorf("%v is not said to be established", v.Target)
		}
		said = append(said, string(v.Topic)+" "+v.Target.String())
	}
	// Nobody who was framed is banned again and again, either.
	want := []string{"sshd 192.0.2.2", "again 192.0.2.2", "sshd 2001:db8:1::/64", "again 2001:db8:1::/64"}
	if !slices.Equal(said, want) {
		t.Errorf("decided %q, want %q", said, want)
	}
	if !slices.Contains(asked, "sshd 2001:db8::1") || len(asked) != 28 {
		t.Errorf("the kernel was asked %d times, of %q", len(asked), slices.Compact(slices.Sorted(slices.Values(asked))))
	}
	for _, j := range d.Status().Jails {
		if j.Topic == "sshd" && (j.Uncorroborated != 18 || j.Found != 10 || j.Doubted.String() != "2001:db8::1" || j.DoubtedAt.IsZero()) {
			t.Errorf("%+v", j)
		}
	}
}

func TestAnAnswerThatNobodyCanGiveCountsHereAndIsNoProof(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, failures(5, "192.0.2.1", time.Now().Add(-time.Minute)))
	var got decisions
	readOnce(t, Options{Jails: doubting(t, log), Ban: got.ban, Corroborated: func(context.Context, Question) Proof { return ProofUnknown }})
	list := got.all()
	if len(list) == 0 {
		t.Fatal("nobody is banned")
	}
	for _, v := range list {
		if v.Established {
			t.Errorf("%+v is said to be over a connection", v)
		}
	}
}

func TestAProgramsReportsCountAsItsTopicsLinesDo(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, "")
	now := time.Now()
	var got decisions
	jails := []Jail{{Definition: sshd(t, log)}}
	d := readOnce(t, Options{
		Jails: jails, Ban: got.ban, Now: func() time.Time { return now }, Ignored: func(x ban.Target) bool { return x == ban.MustTarget("192.0.2.9") },
		Corroborated: func(_ context.Context, q Question) Proof {
			return map[string]Proof{"192.0.2.1": ProofConfirmed, "192.0.2.8": ProofDenied}[q.From.Addr().String()]
		},
	})
	report := func(n int, topic ban.Topic, target string, class ban.Class) (err error) {
		for range n {
			err = errors.Join(err, d.Report(t.Context(), Observation{topic, ban.MustTarget(target), class, false, now.Add(time.Hour)}))
		}
		return err
	}
	for target, want := range map[string]error{
		"192.0.2.0/24": ErrNotOneAddress, "2001:db8::/64": ErrNotOneAddress, "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed": ErrNotOneAddress,
	} {
		if err := report(1, "sshd", target, ban.ClassAuth); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", target, err, want)
		}
	}
	if err := report(1, "nginx", "192.0.2.1", ban.ClassAuth); !errors.Is(err, ErrNotDetected) {
		t.Errorf("another topic: %v", err)
	}
	if err := errors.Join(report(4, "sshd", "192.0.2.1", ban.ClassInvalidUser), report(99, "sshd", "192.0.2.9", ban.ClassExploit)); err != nil {
		t.Fatal(err)
	}
	if len(got.all()) != 0 {
		t.Fatalf("decided %+v", got.all())
	}
	if err := report(9, "sshd", "192.0.2.8", ban.ClassAuth); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("of who had no connection: %v", err)
	}
	// Reports and lines count together. A scan-weak one counts half, as the
	// topic's own, and one that the kernel cannot confirm makes the whole unproven.
	if err := report(1, "sshd", "192.0.2.1", ban.ClassInvalidUser); err != nil {
		t.Fatal(err)
	}
	if err := report(10, "sshd", "2001:db8::7", ban.ClassScanWeak); err != nil {
		t.Fatal(err)
	}
	list := got.all()
	if len(list) != 2 || list[0].Target != ban.MustTarget("192.0.2.1") || !list[0].Established || list[0].Class != ban.ClassInvalidUser || list[0].Hits != 5 ||
		list[1].Target != ban.MustTarget("2001:db8::/64") || list[1].Established || list[1].Hits != 5 {
		t.Errorf("decided %+v", list)
	}
	if v := list[0]; v.Last.After(now) || v.Source != "a program's report" || strings.Contains(v.Sample, "192.0.2.1") {
		t.Errorf("evidence %+v", v)
	}
}

func TestWhatIsNotEnoughForABanIsASighting(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	start := time.Now().Add(-time.Minute)
	write(t, log, failures(4, "192.0.2.1", start)+failures(1, "192.0.2.2", start)+failures(5, "192.0.2.3", start)+failures(2, "192.0.2.4", start))
	var got []string
	var bans decisions
	readOnce(t, Options{
		Jails: []Jail{{Definition: sshd(t, log)}}, Ban: bans.ban,
		Guest: func(_ ban.Topic, target ban.Target) bool { return target == ban.MustTarget("192.0.2.2") },
		// Nobody tells of connections that no kernel confirms.
		Corroborated: func(ctx context.Context, q Question) Proof {
			if q.From.Addr().String() == "192.0.2.4" {
				return ProofUnknown
			}
			return ProofConfirmed
		},
		Sighted: func(x Sighting) { got = append(got, fmt.Sprint(x.Topic, " ", x.Target, " ", x.Hits, " ", x.Class)) },
	})
	want := []string{"sshd 192.0.2.1 1 auth", "sshd 192.0.2.1 2 auth", "sshd 192.0.2.1 4 auth", "sshd 192.0.2.3 1 auth", "sshd 192.0.2.3 2 auth", "sshd 192.0.2.3 4 auth"}
	if !slices.Equal(got, want) {
		t.Errorf("sightings:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if list := bans.all(); len(list) != 1 || list[0].Target != ban.MustTarget("192.0.2.3") {
		t.Errorf("bans: %+v", list)
	}
}
