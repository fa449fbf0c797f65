package api

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/federation"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// Claims that wait, and why, are a warning with numbers and the command.
func TestWhatWaitsOfAPeerIsAWarningWithNumbers(t *testing.T) {
	alice := ban.OperatorOf([]byte("alice"))
	dir := t.TempDir()
	config := fmt.Sprintf("[topics.sshd]\ndetect = false\nsubscribe = true\nban = \"any of alice\"\n[operators.alice]\nid = %q\n", alice)
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	checked, err := settings.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ledger.Options{Policy: checked.Policy()})
	if err != nil {
		t.Fatal(err)
	}
	feed := ban.Feed{Topic: "sshd", Operator: alice}
	var claims []ban.Claim
	for i := range 2000 {
		claims = append(claims, ban.Claim{Target: ban.MustTarget(strings.Join([]string{"45", "1", strconv.Itoa(i / 256), strconv.Itoa(i % 256)}, ".")), End: time.Now().Add(time.Hour), Class: ban.ClassAuth, Basis: ban.BasisStrong})
	}
	if err := l.Peers.Apply(ban.Change{Feed: feed, Claims: claims}); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Ledger: l, Settings: func() *settings.Settings { return checked }})
	list := s.peerWarnings()
	if len(list) != 1 || list[0].Code != PeerHeld.Code || !strings.Contains(list[0].Text, "in sshd wait: ") || !strings.Contains(list[0].Fix, "agent hold approve ") {
		t.Fatalf("warnings are %+v", list)
	}
	for want, b := range map[string]policy.BudgetState{
		"for room among its live bans: 10 of 10 are in force":                         {Live: 10, LiveMost: 10, DecidedToday: 20, DecidedMost: 20},
		"for tomorrow: 20 of the 20 that its people may decide in a day are in force": {Live: 20, LiveMost: 20_000, DecidedToday: 20, DecidedMost: 20},
		"for room: its bans cover 65536 addresses of 65536":                           {Live: 2, LiveMost: 10, DecidedMost: 20, Addresses: 65536, AddressMost: 65536},
	} {
		if got := fullBudget(b); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	numbers := map[peerMetric]float64{}
	s.peerMetrics(func(m peerMetric, v float64, _, topic string) {
		if topic == "sshd" {
			numbers[m] = v
		}
	})
	if numbers[peerWaiting] == 0 || numbers[peerWaiting]+numbers[peerLive] != 2000 || numbers[peerAllowed] == 0 {
		t.Errorf("metrics are %v", numbers)
	}
	if _, err := l.Peers.Undo(alice, ""); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, w := range s.peerWarnings() {
		found = found || w.Code == PeerQuarantined.Code && strings.Contains(w.Fix, "agent undo alice --release")
	}
	if !found {
		t.Errorf("a quarantine is no warning: %+v", s.peerWarnings())
	}
}

// A listing of peers shows the gravest of what is wrong with their feeds, and
// nothing of a feed that is only late.
func TestAPeersLineShowsTheGravestOfItsFeeds(t *testing.T) {
	t.Parallel()
	feed := func(o byte, status string) federation.FeedStatus {
		return federation.FeedStatus{Feed: ban.Feed{Topic: "sshd", Operator: ban.Operator{o}}, Status: status}
	}
	got := troubles([]federation.FeedStatus{
		feed(1, federation.StatusSynced), feed(1, federation.StatusStale),
		feed(2, federation.StatusContested), feed(2, federation.StatusStolen), feed(2, federation.StatusSynced),
		feed(3, federation.StatusQuarantined), feed(3, federation.StatusEquivocating),
	})
	want := map[ban.Operator]string{{2}: "stolen", {3}: "quarantined"}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
