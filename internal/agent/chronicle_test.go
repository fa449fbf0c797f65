package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/history"
	"banmesh/internal/ledger"
)

func newChronicle(t *testing.T, dir string) *chronicle {
	t.Helper()
	c, err := openChronicle(dir, chronicleOptions{
		standing: func(ban.Topic, ban.Target) (ledger.Standing, bool) { return ledger.Standing{}, false },
		name:     func(ban.Operator) string { return "alice" },
		now:      time.Now, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func kindsOf(t *testing.T, c *chronicle) map[history.Kind]int {
	t.Helper()
	page, err := c.Find(history.Query{Limit: history.MaxLimit})
	if err != nil {
		t.Fatal(err)
	}
	count := map[history.Kind]int{}
	for _, e := range page.Events {
		count[e.Kind] += max(e.Count, 1)
	}
	return count
}

// Whatever comes while nobody writes is bounded, and the rest is counted in the
// history itself.
func TestEventsBeyondTheQueueAreCountedAndTold(t *testing.T) {
	t.Parallel()
	c := newChronicle(t, t.TempDir())
	for range maxQueued + 7 {
		c.Add(history.Event{Kind: history.Ban})
	}
	if list := c.warnings(); len(list) != 1 || list[0].Code != "history" {
		t.Errorf("%+v", list)
	}
	c.write(context.Background())
	stats := c.Stats()
	if stats.Events != maxQueued+1 {
		t.Errorf("%d events", stats.Events)
	}
	page, err := c.Find(history.Query{Kinds: []history.Kind{history.Lost}})
	if err != nil || len(page.Events) != 1 || page.Events[0].Count != 7 {
		t.Errorf("%+v, %v", page, err)
	}
	if list := c.warnings(); len(list) != 0 {
		t.Errorf("told already, and still %+v", list)
	}
}

// A disk that takes nothing loses nothing, and nobody waits for it for long.
func TestEventsWaitForTheDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "events")
	c := newChronicle(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.Add(history.Event{Kind: history.Ban})
	}
	c.write(t.Context())
	if list := c.warnings(); len(list) != 1 || kindsOf(t, c)[history.Ban] != 0 {
		t.Fatalf("%+v", list)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	c.Flush(gone) // returns
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c.write(t.Context())
	c.Flush(t.Context())
	if list := c.warnings(); len(list) != 0 || kindsOf(t, c)[history.Ban] != 3 {
		t.Errorf("%+v, %v", list, kindsOf(t, c))
	}
}

// Peers' disputes are heard again after a start; they are in the history once.
func TestADisputeIsInTheHistoryOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := ledger.Note{Kind: ledger.NoteDispute, Topic: "sshd", Target: ban.MustTarget("203.0.113.7"), Until: time.Now().Add(time.Hour).Truncate(time.Second), Why: "says that it should not be banned"}
	for range 2 {
		c := newChronicle(t, dir)
		c.noted(n)
		c.noted(n)
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
	c := newChronicle(t, dir)
	if got := kindsOf(t, c); got[history.Dispute] != 1 || got[history.Stop] != 2 {
		t.Errorf("%v", got)
	}
}

// A kill loses the events that queue, and nobody sees a ban end while the agent is
// down: the next start makes the history agree with the ledger, once.
func TestTheHistoryIsReconciledAtTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now().Truncate(time.Second)
	kept, over, lifted, lost := ban.MustTarget("203.0.113.1"), ban.MustTarget("203.0.113.2"), ban.MustTarget("2001:db8:1::/64"), ban.MustTarget("203.0.113.4")
	enforced := func(x ban.Target, until time.Time) ledger.Enforced {
		return ledger.Enforced{Topic: "sshd", Target: x, Until: until, Own: true}
	}
	c := newChronicle(t, dir)
	for x, until := range map[ban.Target]time.Time{kept: now.Add(time.Hour), over: now.Add(-time.Minute), lifted: now.Add(time.Hour)} {
		c.enforced([]ledger.Change{{Enforced: enforced(x, until), Ban: true}}, nil)
	}
	c.write(t.Context())
	// The event of this one was in the queue when the agent was killed.
	c.enforced([]ledger.Change{{Enforced: enforced(lost, now.Add(time.Hour)), Ban: true}}, nil)

	since := now.Add(-5 * time.Second)
	for start := range 2 {
		c = newChronicle(t, dir)
		c.o.standing = func(topic ban.Topic, x ban.Target) (ledger.Standing, bool) {
			return ledger.Standing{Topic: topic, Target: x, Since: since}, true
		}
		c.startedWith([]ledger.Enforced{enforced(kept, now.Add(time.Hour)), enforced(lost, now.Add(time.Hour))})
		if err := c.reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := kindsOf(t, c); got[history.Ban] != 4 || got[history.End] != 2 {
			t.Errorf("after start %d: %v", start, got)
		}
	}
	for _, tt := range []struct {
		target ban.Target
		kind   history.Kind
		at     time.Time
		why    string
	}{
		{over, history.End, now.Add(-time.Minute), "its time was over; reconstructed at the start"},
		{lifted, history.End, time.Time{}, "it is not in the ledger any longer; reconstructed at the start"},
		{lost, history.Ban, since, "reconstructed at the start"},
	} {
		page, err := c.Find(history.Query{Target: tt.target, Kinds: []history.Kind{tt.kind}})
		if err != nil || len(page.Events) != 1 {
			t.Fatalf("%v: %+v, %v", tt.target, page, err)
		}
		if e := page.Events[0]; !strings.HasSuffix(e.Why, tt.why) || !tt.at.IsZero() && !e.At.Equal(tt.at) {
			t.Errorf("%v: at %v, %q", tt.target, e.At, e.Why)
		}
	}
}
