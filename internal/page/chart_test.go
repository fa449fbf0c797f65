package page

import (
	"fmt"
	"testing"
)

func TestTheChartsAddUp(t *testing.T) {
	t.Parallel()
	var list []tally
	for i := range 9 {
		list = append(list, tally{i % 24, fmt.Sprintf("topic%d", i), i + 1})
	}
	c := draw("x", "t", "a", list, noon, chartSpans[0])
	sum, series := 0, 0
	for _, s := range c.Slots {
		sum += s.Sum
	}
	for _, s := range c.Series {
		series += s.Total
	}
	if sum != 45 || series != 45 || c.Total != 45 || len(c.Series) != maxSeries || c.Series[0].Name != "topic8" || c.Series[maxSeries-1].Name != "4 others" {
		t.Errorf("%d, %d, %d: %+v", sum, series, c.Total, c.Series)
	}
	for _, b := range c.Bars {
		if b.Y < chartTop-0.1 || b.Y+b.H > chartBase+0.6 || b.X+b.W > chartWidth {
			t.Errorf("a bar beyond the chart: %+v", b)
		}
	}
	for n, want := range map[int]int{0: 2, 2: 2, 3: 4, 5: 10, 11: 20, 41: 100, 100_000_000: 100_000_000} {
		if got := roundUp(n); got != want {
			t.Errorf("roundUp(%d) = %d", n, got)
		}
	}
}
