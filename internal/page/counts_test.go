package page

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/control"
)

func sums(list []tally) (n int) {
	for _, x := range list {
		n += x.count
	}
	return n
}

func (c *counts) week(of func(*hour) map[string]int, now time.Time) int {
	return sums(c.tallies(of, now.UTC().Truncate(time.Hour).Add(time.Hour), time.Hour, keepHours))
}

func bansOf(h *hour) map[string]int    { return h.Bans }
func originsOf(h *hour) map[string]int { return h.Origins }
func packetsOf(h *hour) map[string]int { return h.Packets }

// Bans, packets, readings, writings and kills in any order: the charts have each ban
// and each packet once, however often the agent was killed.
func TestAKillLosesNothingOfTheCharts(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		file := filepath.Join(dir, "counts.json")
		_ = os.Remove(file) // of the draw before
		now, node := noon, &fakeNode{}
		client := control.NewHandlerClient(node.handler())
		node.status.Topics = []control.TopicStatus{{Topic: "sshd", Packets: 1000}}
		log := slog.New(slog.DiscardHandler)
		clock := func() time.Time { return now }
		c := openCounts(file, clock, log)
		bans, packets := 0, uint64(0)
		read := func() { c.read(t.Context(), client, node.status) }
		read() // from here on packets are counted
		if err := c.save(); err != nil {
			t.Fatal(err)
		}
		t.Repeat(map[string]func(*rapid.T){
			"ban": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "bans") {
					bans++
					node.events = append(node.events, control.Event{Cursor: uint64(len(node.events) + 1), At: now, Kind: "ban", Topic: "sshd", Peers: []string{"alice"}[:bans%2]})
				}
			},
			"packets": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 1000).Draw(t, "packets")
				node.status.Topics[0].Packets += n
				packets += n
			},
			"pass": func(t *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "minutes")) * time.Minute)
			},
			"read": func(*rapid.T) { read() },
			"save": func(*rapid.T) {
				if err := c.save(); err != nil {
					t.Fatal(err)
				}
			},
			"kill": func(*rapid.T) { c = openCounts(file, clock, log) },
			"": func(*rapid.T) {
				if now.Sub(noon) > 6*24*time.Hour {
					t.Skip("the first hours end")
				}
			},
		})
		read()
		if got := c.week(bansOf, now); got != bans {
			t.Errorf("%d bans are counted of %d", got, bans)
		}
		if got := c.week(originsOf, now); got != bans {
			t.Errorf("%d origins are counted of %d bans", got, bans)
		}
		if got := c.week(packetsOf, now); got != int(packets) {
			t.Errorf("%d packets are counted of %d", got, packets)
		}
	})
}

func TestCountersThatBeginAnewLoseNothing(t *testing.T) {
	t.Parallel()
	now := noon
	c := openCounts("", func() time.Time { return now }, slog.New(slog.DiscardHandler))
	for _, n := range []uint64{100, 150, 20} {
		c.packets(control.Status{Topics: []control.TopicStatus{{Topic: "sshd", Packets: n, Operators: []control.OperatorCount{{Name: "alice", Packets: n}}}, {Topic: "nginx", Operators: []control.OperatorCount{{Name: "alice", Packets: n}}}}})
		now = now.Add(countEvery)
	}
	if got, by := c.week(packetsOf, now), c.week(func(h *hour) map[string]int { return h.Operators }, now); got != 70 || by != 140 || !c.since().Equal(noon) {
		t.Errorf("%d and %d since %v", got, by, c.since())
	}
}

// After a boot the kernel counts from zero: a counter that is larger than before is
// no growth since before.
func TestCountersOfAnotherBootAreNotCompared(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "counts.json")
	clock, log := func() time.Time { return noon }, slog.New(slog.DiscardHandler)
	of := func(n uint64) control.Status {
		return control.Status{Topics: []control.TopicStatus{{Topic: "sshd", Packets: n}}}
	}
	c := openCounts(file, clock, log)
	c.packets(of(900))
	c.s.Boot = "another boot"
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	c = openCounts(file, clock, log)
	c.packets(of(1000))
	if got := c.week(packetsOf, noon); got != 1000 {
		t.Errorf("%d packets are counted of the 1000 since the boot", got)
	}
}

// Kept counts are bounded in names and in hours, and a damaged file is begun anew out
// of the history.
func TestCountsAreBoundedAndBeginAnewWhereDamaged(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "counts.json")
	now := noon
	var said strings.Builder
	log := slog.New(slog.NewTextHandler(&said, nil))
	clock := func() time.Time { return now }
	c := openCounts(file, clock, log)
	for i := range 3 * keepHours {
		now = noon.Add(time.Duration(i) * time.Hour)
		page := control.EventPage{Next: uint64(i)}
		for k := range maxCounted + 10 {
			page.Events = append(page.Events, control.Event{At: now, Topic: ban.Topic(fmt.Sprintf("topic%d", k))})
		}
		page.Events = append(page.Events, control.Event{At: now.Add(-2 * keepHours * time.Hour), Topic: "old"}, control.Event{At: now.Add(time.Hour), Topic: "sshd"})
		c.bans(&page)
	}
	if n := len(c.s.Hours); n != keepHours {
		t.Errorf("%d hours are kept", n)
	}
	last := c.s.Hours[len(c.s.Hours)-1]
	if len(last.Bans) != maxCounted+1 || last.Bans[others] != 11 {
		t.Errorf("%d names in an hour, %d of others", len(last.Bans), last.Bans[others])
	}
	if err := c.save(); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 100); err != nil {
		t.Fatal(err)
	}
	node := newFake()
	now = noon
	c = openCounts(file, clock, log)
	c.read(t.Context(), control.NewHandlerClient(node.handler()), node.status)
	if got := c.week(bansOf, now); got != len(node.events) || !strings.Contains(said.String(), "begin anew") {
		t.Errorf("%d of %d bans are counted anew; the log says %q", got, len(node.events), said.String())
	}
}
