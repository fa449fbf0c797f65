package detect

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/topics"
)

func TestAGuestIsBannedByMoreStrongOffencesThanAStrangerAndByNoWeakOnes(t *testing.T) {
	guest := ban.MustTarget("192.0.2.1")
	now := time.Now()
	for _, c := range []struct {
		name    string
		class   ban.Class
		n       int
		watched bool
		want    int
	}{
		{"eight strong ones", ban.ClassAuth, 8, false, 0}, // a stranger's fifth bans
		{"nine strong ones", ban.ClassAuth, 9, false, 1},
		{"eight strong ones of a watched guest", ban.ClassAuth, 8, true, 0},
		{"a thousand weak ones", ban.ClassScanWeak, 1000, false, 0},
		{"a thousand weak ones of a watched guest", ban.ClassScanWeak, 1000, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "auth.log")
			write(t, log, "")
			var got decisions
			d := readOnce(t, Options{
				Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, Now: func() time.Time { return now },
				Guest:   func(topic ban.Topic, x ban.Target) bool { return topic == "sshd" && x == guest },
				Watched: func(ban.Topic, ban.Target) bool { return c.watched },
			})
			for range c.n {
				if err := d.Report(t.Context(), Observation{Topic: "sshd", Target: guest, Class: c.class, At: now}); err != nil {
					t.Fatal(err)
				}
			}
			if list := got.all(); len(list) != c.want || len(list) == 1 && !list[0].Guest {
				t.Errorf("decided %+v, want %d", list, c.want)
			}
		})
	}
}

// Of a suspect the second offence bans, and a weak one bans nobody sooner.
func TestASuspectsSecondOffenceBans(t *testing.T) {
	suspect, stranger := ban.MustTarget("192.0.2.1"), ban.MustTarget("192.0.2.2")
	now := time.Now()
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, "")
	var got decisions
	d := readOnce(t, Options{
		Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban, Now: func() time.Time { return now },
		Suspected: func(topic ban.Topic, x ban.Target) bool { return topic == "sshd" && x == suspect },
	})
	report := func(x ban.Target, class ban.Class) int {
		t.Helper()
		if err := d.Report(t.Context(), Observation{Topic: "sshd", Target: x, Class: class, At: now}); err != nil {
			t.Fatal(err)
		}
		return len(got.all())
	}
	if report(suspect, ban.ClassAuth) != 0 || report(stranger, ban.ClassAuth) != 0 || report(stranger, ban.ClassAuth) != 0 {
		t.Fatalf("decided %+v", got.all())
	}
	if report(suspect, ban.ClassAuth) != 1 || got.all()[0].Target != suspect || got.all()[0].Hits != 2 {
		t.Errorf("decided %+v", got.all())
	}
}

func TestAGuestsThresholdIsFiveWhereAStrangersIsThree(t *testing.T) {
	for _, c := range []struct {
		maxRetry, guest int
		want            float64
	}{{3, 0, 5}, {1, 0, 2}, {5, 0, 9}, {3, 7, 7}, {3, 2, 3}} {
		if got := guestLimit(&topics.Detect{MaxRetry: c.maxRetry, GuestMaxRetry: c.guest}); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestTheKernelIsAskedAboutThePortThatTheLineNames(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	write(t, log, failures(3, "192.0.2.1", time.Now().Add(-time.Minute)))
	jails := doubting(t, log)
	jails[0].Definition.Detect.Rules[1].Regex = []string{`^Failed password for \S+ from <ADDR> port <F-PORT/> ssh2$`}
	var asked []netip.AddrPort
	var got decisions
	readOnce(t, Options{Jails: jails, Ban: got.ban, Corroborated: func(_ context.Context, q Question) Proof {
		asked = append(asked, q.From)
		return ProofConfirmed
	}})
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:1024"), netip.MustParseAddrPort("192.0.2.1:1025"), netip.MustParseAddrPort("192.0.2.1:1026")}
	if !slices.Equal(asked, want) {
		t.Errorf("asked about %v, want %v", asked, want)
	}
}

func TestAnAccountIsTheSameInAnyCaseAndNoneIsZero(t *testing.T) {
	if AccountOf("") != 0 || AccountOf("Root") != AccountOf("root") || AccountOf("root") == AccountOf("toor") || AccountOf("root") == 0 {
		t.Errorf("%x %x %x", AccountOf("Root"), AccountOf("root"), AccountOf("toor"))
	}
}
