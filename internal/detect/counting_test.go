package detect

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/span"
	"banmesh/topics"
)

// burst gives n failed logins of an address at one moment.
func burst(n int, address string, at time.Time) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%s web1 sshd[%d]: Failed password for root from %s port %d ssh2\n", at.Format(time.Stamp), 100+i, address, 1024+i)
	}
	return b.String()
}

// escalating is sshd's topic with a ban of a minute that grows.
func escalating(t testing.TB, log string) *topics.Definition {
	def := sshd(t, log)
	def.Detect.BanTime = span.Of(time.Minute)
	def.Detect.Increment.Enabled = true
	return def
}

// TestABanIsCountedOnce: any number of lines at one moment gives the end, the
// hits and the count of the line that banned, whether the log is read as it is
// written or late, whether bans are recorded, only simulated, or cannot be
// written at once.
func TestABanIsCountedOnce(t *testing.T) {
	dir := t.TempDir()
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		log := filepath.Join(dir, fmt.Sprint(run, ".log"))
		late := time.Duration(rapid.SampledFrom([]int{0, 5, 30, 90, 300}).Draw(rt, "read late")) * time.Second
		at := time.Now().Add(-6 * time.Hour).Truncate(time.Second)
		now := at.Add(late)
		lines := rapid.IntRange(5, 60).Draw(rt, "lines")
		kind := rapid.SampledFrom([]string{"recorded", "unheard", "simulated", "failing"}).Draw(rt, "kind")
		write(t, log, burst(lines, "192.0.2.1", at))
		var got decisions
		own := map[ban.Target]Decision{}
		o := Options{
			Jails: []Jail{{Definition: escalating(t, log), Simulate: kind == "simulated"}, {Definition: recidive(t)}},
			Ban:   got.ban, Now: func() time.Time { return now },
		}
		if kind == "recorded" {
			o.Banned = func(topic ban.Topic, target ban.Target, at time.Time) bool {
				for _, v := range got.all() {
					if v.Topic == topic {
						own[v.Target] = v
					}
				}
				v, ok := own[target]
				return ok && v.Topic == topic && !at.Before(v.Last) && at.Before(v.End)
			}
		}
		if kind == "failing" {
			got.fail = fmt.Errorf("the disk is full")
		}
		d := readOnce(t, o)
		j := d.jails[0]
		b := j.bans[ban.MustTarget("192.0.2.1")]
		if b.Count != 1 || !b.End.Equal(at.Add(time.Minute).UTC()) {
			rt.Errorf("%d lines: %d bans, until %v, want one until %v", lines, b.Count, b.End, at.Add(time.Minute))
		}
		if s := d.Status().Jails; s[0].Found != uint64(lines) || s[1].Found > 1 || s[0].Banned > 1 {
			rt.Errorf("%d lines: found %d, banned %d, recidive counts %d", lines, s[0].Found, s[0].Banned, s[1].Found)
		}
		want := 1
		if late >= time.Minute || kind == "simulated" || kind == "failing" {
			want = 0
		}
		if list := got.all(); len(list) != want || want == 1 && (list[0].Hits != 5 || !list[0].Last.Equal(at)) {
			rt.Errorf("%s, read %v late: decisions %+v", kind, late, list)
		}
	})
}

// Who offends again after a ban is banned for longer, once each time; who comes
// while banned, as where nothing is enforced, is not.
func TestOffencesAfterABanEscalateAndThoseWithinDoNot(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	at := time.Now().Add(-6 * time.Hour).Truncate(time.Second)
	text := burst(20, "192.0.2.1", at)
	for i := range 50 {
		text += burst(1, "192.0.2.1", at.Add(time.Duration(i)*time.Second)) // within the minute
	}
	text += burst(20, "192.0.2.1", at.Add(2*time.Minute))
	write(t, log, text)
	d := readOnce(t, Options{Jails: []Jail{{Definition: escalating(t, log), Simulate: true}}, Ban: (&decisions{}).ban, Now: func() time.Time { return at.Add(3 * time.Minute) }})
	b := d.jails[0].bans[ban.MustTarget("192.0.2.1")]
	if b.Count != 2 || b.End.Sub(b.Last) != 2*time.Minute || !b.Last.Equal(at.Add(2*time.Minute)) {
		t.Errorf("decided %+v", b)
	}
}

// Forgiven offences count for nothing.
func TestWhoIsUnbannedIsCountedAnew(t *testing.T) {
	log := filepath.Join(t.TempDir(), "auth.log")
	at := time.Now().Add(-time.Minute).Truncate(time.Second)
	write(t, log, burst(20, "192.0.2.1", at))
	var got decisions
	d := readOnce(t, Options{Jails: []Jail{{Definition: sshd(t, log)}}, Ban: got.ban})
	target := ban.MustTarget("192.0.2.1")
	d.Forget("sshd", target)
	for range 5 {
		d.count(t.Context(), d.jails[0], offence{target: target, addr: netip.MustParseAddr("192.0.2.1"), class: ban.ClassAuth, weight: 1, at: at.Add(2 * time.Second)}, func() (string, string, string) { return "", "", "" })
	}
	if list := got.all(); len(list) != 2 || list[1].Hits != 5 {
		t.Errorf("decisions %+v", list)
	}
}
