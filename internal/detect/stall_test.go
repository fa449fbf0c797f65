package detect

import (
	"fmt"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// bursts tells for each second how many of its weak lines are a stall's.
func bursts(s *stall, lines int, seconds ...int64) (stalled []int) {
	for _, second := range seconds {
		n := 0
		for i := range lines {
			begins, is := s.add(ban.MustTarget(fmt.Sprintf("192.0.2.%d", i%5)), time.Unix(second, 0))
			switch {
			case begins:
				n += s.lines
			case is:
				n++
			}
		}
		stalled = append(stalled, n)
	}
	return stalled
}

func TestAStallIsAMomentAndAFloodIsNone(t *testing.T) {
	for _, c := range []struct {
		name    string
		lines   int
		seconds []int64
		want    []int
	}{
		{"one burst", 40, []int64{1000}, []int{40}},
		{"too few lines", 9, []int64{1000}, []int{0}},
		{"a flood that goes on", 40, []int64{1000, 1001, 1002, 1003, 1004}, []int{40, 0, 0, 0, 0}},
		{"bursts every other second", 40, []int64{1000, 1002, 1004, 1006}, []int{40, 0, 0, 0}},
		{"two stalls", 40, []int64{1000, 1003}, []int{40, 40}},
		{"more stalls than a node has", 40, []int64{1000, 1010, 1020, 1030, 1040, 1050, 1060, 1599, 1600}, []int{40, 40, 40, 40, 40, 40, 0, 0, 0}},
		{"stalls of an hour", 40, []int64{1000, 1200, 1400, 1600, 1800, 2000, 2200}, []int{40, 40, 40, 40, 40, 40, 40}},
	} {
		if got := bursts(&stall{}, c.lines, c.seconds...); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
