package api

import (
	"fmt"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

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
	checked, err := settings.Load(dir, "")
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
	s := New(Options{Ledger: l, Now: time.Now, Sharing: heardFeeds{}, Settings: func() *settings.Settings { return checked }})
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
	numbers := map[*prometheus.Desc]float64{}
	for m := range collected(&peerCollector{s: s}) {
		var d dto.Metric
		if err := m.Write(&d); err != nil {
			t.Fatal(err)
		}
		if d.GetLabel()[0].GetValue() == "alice" {
			numbers[m.Desc()] += d.GetGauge().GetValue()
		}
	}
	if numbers[descPeerWaiting] == 0 || numbers[descPeerWaiting]+numbers[descPeerLive] != 2000 || numbers[descPeerAllowed] == 0 || numbers[descPeerClaims] != 2000 {
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

// heardFeeds is a part in the network that knows feeds alone.
type heardFeeds struct {
	Sharing
	feeds []federation.FeedStatus
}

func (h heardFeeds) Feeds() []federation.FeedStatus { return h.feeds }

// Many operators have no more names than [maxPeers] and one for the rest.
func TestMetricsOfManyOperatorsAreBounded(t *testing.T) {
	var config strings.Builder
	var feeds []federation.FeedStatus
	var changes []ban.Change
	names := make([]string, maxPeers+5)
	for i := range names {
		names[i] = fmt.Sprintf("op%d", i)
		o := ban.OperatorOf([]byte(names[i]))
		fmt.Fprintf(&config, "[operators.%s]\nid = %q\n", names[i], o)
		feed := ban.Feed{Topic: "sshd", Operator: o}
		feeds = append(feeds, federation.FeedStatus{Feed: feed, Issued: time.Unix(int64(1000+i), 0)}, federation.FeedStatus{Feed: feed, Issued: time.Unix(5000, 0)}, federation.FeedStatus{Feed: feed})
		if i >= 5 { // the first five have nothing
			changes = append(changes, ban.Change{Feed: feed, Claims: []ban.Claim{{Target: addressAt(i), End: time.Now().Add(time.Hour)}}})
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(config.String()+"[topics.sshd]\ndetect = false\nsubscribe = true\nban = \"any of "+strings.Join(names, ", ")+"\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	checked, err := settings.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ledger.Open(ledger.Options{Policy: checked.Policy()})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Peers.Apply(changes...); err != nil {
		t.Fatal(err)
	}
	s := New(Options{Ledger: l, Now: time.Now, Sharing: heardFeeds{feeds: feeds}, Settings: func() *settings.Settings { return checked }})
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(&peerCollector{s: s}); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, f := range families {
		seen[f.GetName()] = len(f.GetMetric())
		for _, m := range f.GetMetric() {
			if f.GetName() == "banmesh_peer_oldest_feed_timestamp_seconds" && m.GetLabel()[0].GetValue() == otherPeers && m.GetGauge().GetValue() != 1000 {
				t.Errorf("the others were heard last at %v", m.GetGauge().GetValue())
			}
		}
	}
	for _, name := range []string{"claims", "banning_claims", "strikes_total", "oldest_feed_timestamp_seconds"} {
		if got := seen["banmesh_peer_"+name]; got != maxPeers+1 {
			t.Errorf("%s has %d operators, want %d", name, got, maxPeers+1)
		}
	}
}

// collected gives a collector's metrics.
func collected(c prometheus.Collector) iter.Seq[prometheus.Metric] {
	return func(yield func(prometheus.Metric) bool) {
		ch := make(chan prometheus.Metric)
		go func() { defer close(ch); c.Collect(ch) }()
		for m := range ch {
			if !yield(m) {
				for range ch { //nolint:revive // the rest is dropped
				}
				return
			}
		}
	}
}

// A listing of peers shows the gravest fault of their feeds, and
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
