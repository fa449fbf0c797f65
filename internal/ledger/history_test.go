package ledger

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/policy"
)

func TestAChangedPolicyCanBeTriedOnWhatHappened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	gateway := never{netip.MustParsePrefix("12.0.0.254/32")}
	strict := rules(t, policy.TopicSource{Ban: "2 of everyone", Watch: "any of everyone", TTL: "24h"}, "alice", "bob")
	w := newWorld(t, Options{Policy: strict, History: h, NeverBan: gateway})
	w.must(w.Peers.Apply(ban.Change{Feed: feed("alice"), Reset: true, Claims: []ban.Claim{claim("12.0.0.1", 50*time.Hour), claim("12.0.0.2", 50*time.Hour), claim("12.0.0.254", 50*time.Hour)}}))
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Reset: true, Claims: []ban.Claim{claim("12.0.0.2", 50*time.Hour), claim("12.0.0.3", 50*time.Hour)}}))
	w.now = t0.Add(25 * time.Hour)
	w.must(w.Peers.Apply(ban.Change{Feed: feed("bob"), Withdrawn: ban.Withdraw(ban.ReasonEnded, ban.MustTarget("12.0.0.3"))}))
	for _, a := range []string{"12.0.0.1", "12.0.0.2", "12.0.0.3", "12.0.0.9"} {
		w.must(w.BanLocal("sshd", claim(a, 60*time.Hour), Evidence{}))
	}
	w.must(w.Close())
	if files := historyFiles(dir); len(files) != 2 {
		t.Fatalf("the history has %v", files)
	}
	try := func(p *policy.Policy) Trial {
		t.Helper()
		r, err := NewReplay(p, gateway, nil)
		if err != nil {
			t.Fatal(err)
		}
		w.must(HistorySince(dir, t0, r.Feed))
		return r.End()
	}
	// The ttl of a day passed before the offenders came.
	if got := try(strict); got.Claims != 5 || got.Banned != 1 || got.Watched != 2 || got.Offenders != 4 || got.Stopped != 0 || got.Caught != 0 || len(got.Conflicts) != 1 {
		t.Errorf("as it was: %+v", got)
	}
	if got := try(rules(t, policy.TopicSource{Ban: "2 of everyone", Watch: "any of everyone", TTL: "7d"}, "alice", "bob")); got.Stopped != 1 || got.Caught != 1 {
		t.Errorf("with a longer ttl: %+v", got)
	}
	if got := try(rules(t, policy.TopicSource{Ban: "any of alice", TTL: "7d"}, "alice", "bob")); got.Banned != 2 || got.Stopped != 2 || got.Conflicts[0].Name != "alice" {
		t.Errorf("any of alice: %+v", got)
	}
}

func TestADamagedHistoryNamesItsLine(t *testing.T) {
	good := "R 1 sshd/" + feed("alice").Operator.String() + "/" + feed("alice").Node.String() + " 1.2.3.4\n"
	for text, want := range map[string]string{
		good:                            "",
		good + "C 1 half a li":          "", // cut off by a crash
		good + "X 1\n" + good:           "line 2",
		"C x y z\n" + good:              "line 1",
		strings.Repeat("x", 5000):       "too long",
		"O 1 sshd 1.2.3.4 5 2 3 true\n": "",
	} {
		err := ReadHistory(strings.NewReader(text), func(Event) error { return nil })
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: %v, want %q", text, err, want)
		}
	}
}

func TestAHistoryKeepsAWeek(t *testing.T) {
	dir := t.TempDir()
	h, err := OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	for day := range 20 {
		h.withdrawal(t0.AddDate(0, 0, day), feed("alice"), ban.MustTarget("1.2.3.4"))
	}
	if err := h.flush(); err != nil {
		t.Fatal(err)
	}
	if got := historyFiles(dir); len(got) != historyDays || got[7] != "2026-03-20.log" {
		t.Errorf("kept %v", got)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "2026-03-20.log")); err != nil || !strings.HasPrefix(string(b), "R ") {
		t.Errorf("%q, %v", b, err)
	}
}

func FuzzHistory(f *testing.F) {
	f.Add("C 1 sshd/fpmansl7byak6gq7ymzi7j3dve/fpmansl7byak6gq7 1.2.3.4 5 2 3 true\nO 1 sshd 1.2.3.4 5 2 3 true\nR")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := NewReplay(policy.Nothing(), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		_ = ReadHistory(strings.NewReader(s), r.Feed) // errors are its right
	})
}
