package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A chart is stacked bars over time, drawn on the server: each series has a
// colour that colour-blind people tell apart, a pattern for those who see none, and
// its name; a table below has the figures.
type chart struct {
	ID, Title, About string
	Span             chartSpan
	Slots            []slot
	Series           []series
	Bars             []bar
	Grid             []gridLine
	Most             int
	Total            int
	Width, Height    int
	Base, Left       int
	Labels           []label
}

type slot struct {
	At     time.Time
	Counts []int
	Sum    int
}

type series struct {
	Name  string
	Class int // of the colour and the pattern
	Total int
}

type bar struct {
	X, Y, W, H float64
	Class      int
	Title      string
}

type gridLine struct {
	Y     float64
	Count int
}

type label struct {
	X    float64
	Text string
}

// Places of a chart, in units of its view box.
const (
	chartWidth, chartHeight = 640, 170
	chartLeft, chartBase    = 40, 145
	chartTop                = 10
	// maxSeries is how many are told apart; the rest is one together.
	maxSeries = 6
)

// draw makes a chart of tallies in the slots of a span, the last of which ends at a
// time.
func draw(id, title, about string, list []tally, end time.Time, span chartSpan) chart {
	n := span.Slots
	c := chart{ID: id, Title: title, About: about, Span: span, Width: chartWidth, Height: chartHeight, Base: chartBase, Left: chartLeft}
	totals := map[string]int{}
	for _, x := range list {
		totals[x.name] += x.count
	}
	names := slices.SortedFunc(maps.Keys(totals), func(a, b string) int { return cmp.Or(cmp.Compare(totals[b], totals[a]), cmp.Compare(a, b)) })
	place := map[string]int{}
	for i, name := range names {
		if i >= maxSeries-1 && len(names) > maxSeries {
			place[name] = maxSeries - 1
			continue
		}
		place[name] = i
		c.Series = append(c.Series, series{Name: name, Class: i, Total: totals[name]})
	}
	if len(names) > maxSeries {
		rest := series{Name: fmt.Sprintf("%d others", len(names)-maxSeries+1), Class: maxSeries - 1}
		for _, name := range names[maxSeries-1:] {
			rest.Total += totals[name]
		}
		c.Series = append(c.Series, rest)
	}
	for i := range n {
		c.Slots = append(c.Slots, slot{At: end.Add(-time.Duration(n-i) * span.Slot), Counts: make([]int, len(c.Series))})
	}
	for _, x := range list {
		s := &c.Slots[x.slot]
		s.Counts[place[x.name]] += x.count
		s.Sum += x.count
		c.Total += x.count
	}
	for _, s := range c.Slots {
		c.Most = max(c.Most, s.Sum)
	}
	c.bars(n)
	return c
}

// bars places the bars, the lines behind and the times below.
func (c *chart) bars(n int) {
	top := roundUp(c.Most)
	scale := float64(chartBase-chartTop) / float64(top)
	for _, part := range []int{top, top / 2} {
		if part > 0 {
			c.Grid = append(c.Grid, gridLine{Y: chartBase - float64(part)*scale, Count: part})
		}
	}
	step := float64(chartWidth-chartLeft) / float64(n)
	clock, every := "15:04", 6
	if c.Span.Slot > time.Hour {
		clock, every = "Jan 2", 4
	}
	for i, s := range c.Slots {
		y := float64(chartBase)
		x := chartLeft + float64(i)*step
		for k, count := range s.Counts {
			if count == 0 {
				continue
			}
			h := float64(count) * scale
			y -= h
			c.Bars = append(c.Bars, bar{
				X: tenth(x + 1), Y: tenth(y), W: tenth(step - 2), H: tenth(max(h, 0.5)), Class: c.Series[k].Class,
				Title: fmt.Sprintf("%s UTC: %s %s", s.At.UTC().Format("Jan 2 15:04"), thousands(fmt.Sprint(count)), c.Series[k].Name),
			})
		}
		if i%every == 0 {
			c.Labels = append(c.Labels, label{X: tenth(x), Text: s.At.UTC().Format(clock)})
		}
	}
}

func tenth(x float64) float64 { return float64(int(x*10+0.5)) / 10 }

// roundUp gives the next 2, 4, 10, 20, 40, 100 and so on, which halves well.
func roundUp(n int) int {
	for unit := 1; unit <= 100_000_000; unit *= 10 {
		for _, m := range []int{2, 4, 10} {
			if n <= m*unit {
				return m * unit
			}
		}
	}
	return n
}

// A tally is how many of something there were in a slot of a chart.
type tally struct {
	slot  int
	name  string
	count int
}

// tallies gives a series in n slots of a length that end at a time.
func (c *counts) tallies(of func(*hour) map[string]int, end time.Time, length time.Duration, n int) (list []tally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.s.Hours {
		h := &c.s.Hours[i]
		slot := n - 1 - int((end.Sub(h.At)-time.Second)/length)
		if slot < 0 || slot >= n {
			continue
		}
		for name, count := range of(h) {
			list = append(list, tally{slot, name, count})
		}
	}
	return list
}

// since gives from when on packets are counted, zero where they are not yet.
func (c *counts) since() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.s.Since
}
