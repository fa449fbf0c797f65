package agent

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
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
