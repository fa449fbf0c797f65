package export

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// TestAPackedTableSaysWhatAPlainMapWould plays random changes of targets of
// every kind in several topics against a map.
func TestAPackedTableSaysWhatAPlainMapWould(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	random := rand.New(rand.NewPCG(1, 2))
	targets := []string{
		"0.0.0.0", "203.0.113.1", "203.0.113.2", "255.255.255.255", "203.0.113.0/24", "0.0.0.0/0", "2001:db8::1", "2001:db8::/64", "2001:db8::/32", "::/0",
		"0x27b1fdb04752bbc536007a920d24acb045561c26",
	}
	for range 50 {
		table, plain := NewTable(func() time.Time { return now }), map[Key]Entry{}
		for range 300 {
			e := Entry{
				Target: ban.MustTarget(targets[random.IntN(len(targets))]), Topic: ban.Topic(fmt.Sprintf("t%d", random.IntN(4))),
				Until: now.Add(time.Duration(1+random.IntN(100)) * time.Second).UTC(), Class: ban.Class(random.IntN(5)), Here: random.IntN(2) == 0,
			}
			k := Key{e.Target, e.Topic}
			before := table.Serial()
			if random.IntN(3) == 0 {
				table.Apply(nil, []Key{k})
				if _, had := plain[k]; had != (table.Serial() > before) {
					t.Fatalf("lifting %v: had %v, serial %d to %d", k, had, before, table.Serial())
				}
				delete(plain, k)
				continue
			}
			table.Apply([]Entry{e}, nil)
			if same := plain[k] == e; same == (table.Serial() > before) {
				t.Fatalf("banning %v: same %v, serial %d to %d", e, same, before, table.Serial())
			}
			plain[k] = e
		}
		got := map[Key]Entry{}
		_, entries := table.Snapshot()
		for e := range entries {
			got[Key{e.Target, e.Topic}] = e
		}
		if !maps.Equal(got, plain) {
			t.Fatalf("the table has %v\nwant %v", got, plain)
		}
		for _, s := range targets {
			n := 0
			for k := range plain {
				if k.Target == ban.MustTarget(s) {
					n++
				}
			}
			for _, m := range table.Check(ban.MustTarget(s)) {
				if m.Target == ban.MustTarget(s) {
					n--
				}
			}
			if n != 0 {
				t.Fatalf("a check of %s differs by %d", s, n)
			}
		}
		now = now.Add(101 * time.Second)
		if table.Expire() != len(plain) {
			t.Fatal("expiry left something")
		}
	}
}

func TestABanEndsAtAWholeSecond(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	table := NewTable(func() time.Time { return now })
	target := ban.MustTarget("203.0.113.1")
	table.Apply([]Entry{{Target: target, Topic: "sshd", Until: now.Add(1500 * time.Millisecond)}}, nil)
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{1999 * time.Millisecond, 1}, {2 * time.Second, 0}} {
		now = time.Unix(1_800_000_000, 0).Add(c.after)
		if got := len(table.Check(target)); got != c.want {
			t.Errorf("after %v there are %d bans, want %d", c.after, got, c.want)
		}
	}
	if table.Expire() != 1 {
		t.Error("it did not expire")
	}
}

func TestAMillionBansTakeLessThan32MiB(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	until := time.Now().Add(time.Hour)
	table := NewTable(nil)
	table.Apply([]Entry{{Target: ban.MustTarget("203.0.113.1"), Topic: "sshd", Until: until}}, nil)
	before := heap()
	const n = 250_000
	for i := range n {
		table.Apply([]Entry{{Target: ban.MustTarget(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)), Topic: "sshd", Until: until}}, nil)
	}
	// The history of changes is bounded and not part of it.
	history := uint64(keptChanges) * 40
	if grown := heap() - before; grown > n*32+history {
		t.Errorf("%d bans take %d bytes", n, grown)
	}
	runtime.KeepAlive(table)
}
