package recent

import (
	"net/netip"
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
