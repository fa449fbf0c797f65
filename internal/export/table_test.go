package export

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is when the tests' bans begin.
var start = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func entry(target string, topic ban.Topic, lasting time.Duration) Entry {
	return Entry{Target: ban.MustTarget(target), Topic: topic, Until: start.Add(lasting), Class: ban.ClassAuth}
}

// at gives a table whose clock stands still at start.
func at(entries ...Entry) *Table {
	t := NewTable(func() time.Time { return start })
	t.Apply(entries, nil)
	return t
}

func TestACheckFindsEveryBanAroundATarget(t *testing.T) {
	table := at(
		entry("192.0.2.7", "sshd", time.Hour),
		entry("192.0.2.7", "spam", time.Hour),
		entry("192.0.2.0/24", "livepeer", time.Hour),
		entry("0.0.0.0/0", "all4", time.Hour),
		entry("198.51.100.0/25", "sshd", time.Hour),
		entry("2001:db8:1:2::/64", "sshd", time.Hour),
		entry("2001:db8::/32", "spam", time.Hour),
		entry("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "broadcaster-addresses", time.Hour),
		entry("203.0.113.9", "sshd", -time.Second), // over already
	)
	for asked, want := range map[string][]string{
		"192.0.2.7":           {"192.0.2.7 spam", "192.0.2.7 sshd", "192.0.2.0/24 livepeer", "0.0.0.0/0 all4"},
		"192.0.2.8":           {"192.0.2.0/24 livepeer", "0.0.0.0/0 all4"},
		"192.0.2.0/25":        {"192.0.2.0/24 livepeer", "0.0.0.0/0 all4"},
		"192.0.0.0/16":        {"0.0.0.0/0 all4"}, // the /24 covers only a part
		"198.51.100.128":      {"0.0.0.0/0 all4"},
		"203.0.113.9":         {"0.0.0.0/0 all4"},
		"::ffff:198.51.100.5": {"198.51.100.0/25 sshd", "0.0.0.0/0 all4"},
		"2001:db8:1:2::9":     {"2001:db8:1:2::/64 sshd", "2001:db8::/32 spam"},
		"2001:db8:1:3::9":     {"2001:db8::/32 spam"},
		"2001:db9::1":         nil,
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed": {"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed broadcaster-addresses"},
		"0x5Aaeb6053f3e94c9B9a09F33669435e7EF1BeAee": nil,
	} {
		var got []string
		for _, m := range table.Check(ban.MustTarget(asked)) {
			got = append(got, fmt.Sprintf("%s %s", m.Target, m.Topic))
		}
		// Topics of one target come in no order.
		if len(got) > 1 && got[0] > got[1] && got[0][:9] == got[1][:9] {
			got[0], got[1] = got[1], got[0]
		}
		if !slices.Equal(got, want) {
			t.Errorf("Check(%s) = %q, want %q", asked, got, want)
		}
	}
}

func TestABanThatEndsIsNoBan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable(nil)
		target := ban.MustTarget("192.0.2.7")
		table.Apply([]Entry{{Target: target, Topic: "sshd", Until: time.Now().Add(time.Minute)}}, nil)
		if len(table.Check(target)) != 1 {
			t.Fatal("the ban is not in force")
		}
		time.Sleep(time.Minute) // the bubble's clock, not the world's
		if len(table.Check(target)) != 0 {
			t.Error("the ban is in force after its end")
		}
		for e := range second(table.Snapshot()) {
			t.Errorf("the snapshot has %v after its end", e)
		}
		serial := table.Serial()
		if n := table.Expire(); n != 1 {
			t.Errorf("Expire lifted %d, want 1", n)
		}
		batch, err := table.Next(t.Context(), serial)
		if err != nil || len(batch.Lifted) != 1 || len(batch.Bans) != 0 {
			t.Errorf("readers are told %+v, %v; want one lifted", batch, err)
		}
	})
}

func second[A, B any](_ A, b B) B { return b }

func TestRepeatingAStateChangesNothing(t *testing.T) {
	e := entry("192.0.2.7", "sshd", time.Hour)
	table := at(e)
	serial := table.Serial()
	table.Apply([]Entry{e, e}, []Key{{ban.MustTarget("192.0.2.8"), "sshd"}})
	if table.Serial() != serial {
		t.Errorf("the serial went from %d to %d", serial, table.Serial())
	}
	e.Class = ban.ClassScan
	table.Apply([]Entry{e}, nil)
	if table.Serial() != serial+1 {
		t.Error("another class is no change")
	}
}

// TestASnapshotAndTheChangesGiveTheState lets a reader take a snapshot while
// the table changes, and checks that the changes lead it to the same state.
func TestASnapshotAndTheChangesGiveTheState(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	table := at()
	step := func() {
		e := entry(fmt.Sprintf("192.0.2.%d", random.IntN(256)), ban.Topic(fmt.Sprintf("t%d", random.IntN(3))), time.Hour)
		e.Class = ban.Class(random.IntN(4))
		if random.IntN(3) == 0 {
			table.Apply(nil, []Key{{e.Target, e.Topic}})
		} else {
			table.Apply([]Entry{e}, nil)
		}
	}
	for range 500 {
		step()
	}
	state := map[Key]Entry{}
	serial, entries := table.Snapshot()
	for e := range entries {
		state[Key{e.Target, e.Topic}] = e
		for range 5 {
			step()
		}
	}
	for serial != table.Serial() {
		batch, err := table.Next(t.Context(), serial)
		if err != nil {
			t.Fatal(err)
		}
		if len(batch.Bans)+len(batch.Lifted) > batchChanges {
			t.Fatalf("a batch of %d", len(batch.Bans)+len(batch.Lifted))
		}
		for _, k := range batch.Lifted {
			delete(state, k)
		}
		for _, e := range batch.Bans {
			state[Key{e.Target, e.Topic}] = e
		}
		serial = batch.Serial
	}
	want := map[Key]Entry{}
	for e := range second(table.Snapshot()) {
		want[Key{e.Target, e.Topic}] = e
	}
	if len(want) < 100 || !maps.Equal(state, want) {
		t.Errorf("the reader has %d entries, the table %d, and they differ", len(state), len(want))
	}
}

func TestAReaderThatIsTooFarBehindIsTold(t *testing.T) {
	table := at()
	e := entry("192.0.2.7", "sshd", time.Hour)
	for i := range keptChanges + 1 {
		e.Class = ban.Class(i % 2)
		table.Apply([]Entry{e}, nil)
	}
	for serial, behind := range map[uint64]bool{0: true, 1: false, keptChanges: false, keptChanges + 2: true} {
		_, err := table.Next(t.Context(), serial)
		if errors.Is(err, ErrBehind) != behind {
			t.Errorf("Next(%d): %v, want behind %v", serial, err, behind)
		}
	}
}

func TestNextWaitsForAChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := NewTable(nil)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		done := make(chan Batch)
		go func() {
			batch, err := table.Next(ctx, 0)
			if err != nil {
				t.Error(err)
			}
			done <- batch
		}()
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("Next did not wait")
		default:
		}
		table.Apply([]Entry{{Target: ban.MustTarget("192.0.2.7"), Topic: "sshd", Until: time.Now().Add(time.Hour)}}, nil)
		if batch := <-done; batch.Serial != 1 || len(batch.Bans) != 1 {
			t.Errorf("Next gave %+v", batch)
		}
		if _, err := table.Next(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Next after the deadline: %v", err)
		}
	})
}
