package recent

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
)

type world struct {
	now     time.Time
	elapsed time.Duration
	table   *export.Table
	log     *Log
}

func newWorld() *world {
	w := &world{now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	w.table = export.NewTable(func() time.Time { return w.now })
	w.log = New(w.table, func() time.Time { return w.now }, func() time.Duration { return w.elapsed })
	return w
}

func target(n int) ban.Target {
	t, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{45, byte(n >> 16), byte(n >> 8), byte(n)}))
	if err != nil {
		panic(err) // every address is one
	}
	return t
}

func (w *world) ban(from, to int, d time.Duration) {
	list := make([]export.Entry, 0, to-from)
	for i := from; i < to; i++ {
		list = append(list, export.Entry{Target: target(i), Topic: "sshd", Until: w.now.Add(d)})
	}
	w.table.Apply(list, nil)
}

// A reader who is within the bound is told each change; one change more, and it
// needs the whole.
func TestAReaderBehindTheBoundNeedsTheWhole(t *testing.T) {
	t.Parallel()
	for changes, want := range map[int]bool{MaxEvents: false, MaxEvents + 1: true} {
		w := newWorld()
		for i := 0; i < changes; i += 1000 {
			w.ban(i, min(i+1000, changes), time.Hour)
			w.log.Newest() // as Run does
		}
		events, newest, whole := w.log.Since(0, 0)
		if whole != want || !whole && len(events) != changes || newest != uint64(changes) {
			t.Errorf("%d changes: %d events up to %d, whole %v", changes, len(events), newest, whole)
		}
		if _, _, whole := w.log.Since(newest, time.Hour); whole {
			t.Error("who has the newest needs the whole")
		}
	}
}

// Changes that the table itself has forgotten were missed: everybody needs the
// whole, once.
func TestMissedStepsOfTheTableNeedTheWholeOnce(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.ban(0, 10, time.Hour)
	seq := w.log.Newest()
	w.ban(10, 1<<16+11, time.Hour)
	if _, _, whole := w.log.Since(seq, 0); !whole {
		t.Fatal("missed steps went unnoticed")
	}
	_, newest, _ := w.log.Since(seq, 0)
	if _, _, whole := w.log.Since(newest, 0); whole {
		t.Error("the whole is needed again")
	}
}

// More extensions than are told one by one are told by the whole, not lost.
func TestMoreExtensionsThanFitAreToldByTheWhole(t *testing.T) {
	t.Parallel()
	w := newWorld()
	const more = MaxAgain + 1
	for i := 0; i < more; i += 30_000 {
		w.ban(i, min(i+30_000, more), time.Minute)
		w.log.Newest()
		w.ban(i, min(i+30_000, more), time.Hour)
		w.log.Newest()
	}
	seq := w.log.Newest()
	w.now, w.elapsed = w.now.Add(30*time.Minute), 30*time.Minute
	if _, _, whole := w.log.Since(seq, 0); !whole {
		t.Error("the extension beyond the bound is never told again")
	}
}

func TestEarlyEndsAreKeptUpToTheirBoundAndEnd(t *testing.T) {
	t.Parallel()
	w := newWorld()
	for i := 0; i <= MaxGone; i += 8192 {
		w.ban(i, i+8192, time.Hour)
		w.log.Newest()
		var keys []export.Key
		for n := i; n < i+8192; n++ {
			keys = append(keys, export.Key{Target: target(n), Topic: "sshd"})
		}
		w.table.Apply(nil, keys)
		w.log.Newest()
	}
	if n := len(w.log.Gone()); n != MaxGone {
		t.Errorf("%d are kept, want %d", n, MaxGone)
	}
	w.now, w.elapsed = w.now.Add(2*time.Hour), 2*time.Hour
	if n := len(w.log.Gone()); n != 0 {
		t.Errorf("%d are kept after their ends", n)
	}
}

// Whatever changed while the node was away is told when it is back: a ban that is gone as
// ended, one that was extended again at the end that was told, and nothing else.
func TestChangesWhileTheNodeWasAwayAreTold(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "recent")
	log := slog.New(slog.DiscardHandler)
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	run := func(table *export.Table) (events []Event, gone []Event) {
		l := Open(path, table, clock, log)
		events, _, _ = l.Since(0, 0)
		gone = l.Gone()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := l.Run(ctx); err != nil {
			t.Error(err)
		}
		return events, gone
	}
	before := export.NewTable(clock)
	apply := func(table *export.Table, n int, d time.Duration) {
		table.Apply([]export.Entry{{Target: target(n), Topic: "sshd", Class: ban.ClassAuth, Here: n%2 == 0, Until: now.Add(d)}}, nil)
	}
	for n := range 5 {
		apply(before, n, time.Hour)
	}
	if events, gone := run(before); len(events)+len(gone) != 0 {
		t.Errorf("at first %v and %v", events, gone)
	}
	now = now.Add(30 * time.Minute)
	after := export.NewTable(clock)
	apply(after, 0, 30*time.Minute) // as it was
	apply(after, 1, 2*time.Hour)    // extended
	apply(after, 2, 10*time.Minute) // shortened
	for range 2 {                   // it is known after another restart too
		_, gone := run(after)
		slices.SortFunc(gone, func(a, b Event) int { return a.Target.Compare(b.Target) })
		if len(gone) != 3 || gone[0].Target != target(2) || gone[1].Target != target(3) || gone[2].Target != target(4) || gone[1].Topic != "sshd" || gone[1].Class != ban.ClassAuth || gone[1].Here || !gone[2].Here || !gone[1].Told.Equal(now.Add(30*time.Minute)) {
			t.Errorf("%+v are gone", gone)
		}
	}
	l := Open(path, after, clock, log)
	if len(l.again) != 1 || l.again[0].Target != target(1) {
		t.Errorf("%+v is told again", l.again)
	}
	now = now.Add(time.Hour)
	if _, gone := run(after); len(gone) != 0 {
		t.Errorf("%+v after their ends", gone)
	}
	if err := os.WriteFile(path, []byte("junk\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, gone := run(after); len(gone) != 0 {
		t.Errorf("%+v of a damaged file", gone)
	}
}
