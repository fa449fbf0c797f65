package detect

import (
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/internal/detect/source"
	"banmesh/test/detect/hostile"
	"banmesh/topics"
)

// mostStepsAByte is a third of those after which the machine gives a line up.
const mostStepsAByte = 16

// TestWorkGrowsWithALineAlone counts what expressions do for lines that are made
// to cost much: no topic takes more than some steps a byte, and none gives a line to
// the backtracking engine, however long it is.
func TestWorkGrowsWithALineAlone(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		sampler, err := detect.NewSampler(d, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range []struct{ size, of int }{{4 << 10, 3}, {16 << 10, 16}} { // one line of so many
			size, lines, worst, line := x.size, 0, 0.0, ""
			hostile.Lines(d, size, 2, func(s topics.Sample) {
				if lines++; lines%x.of != 0 {
					return
				}
				before, _ := sampler.Work()
				sampler.Find(s)
				steps, backtracked := sampler.Work()
				if backtracked > 0 {
					t.Fatalf("%s gives up %.300q", d.Name, s.Line)
				}
				if a := float64(steps-before) / float64(len(s.Line)); a > worst {
					worst, line = a, s.Line
				}
			})
			if worst > mostStepsAByte {
				t.Errorf("%s: %.1f steps a byte for %d bytes %.300q", d.Name, worst, size, line)
			}
		}
	}
}

// A line that says the same again and again, as long as a line can be, sets a search that
// may begin anywhere going at each place.
func TestWorkDoesNotGrowWithWhatALineRepeats(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		sampler, err := detect.NewSampler(d, now)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range d.Samples {
			if s.Target == "" && s.Success == "" {
				continue
			}
			line := s.Line
			s.Line = strings.Repeat(line, source.MaxLine/len(line))
			before, gaveUp := sampler.Work()
			sampler.Find(s)
			steps, backtracked := sampler.Work()
			if a := float64(steps-before) / float64(len(s.Line)); a > mostStepsAByte || backtracked > gaveUp {
				t.Errorf("%s: %.1f steps a byte for %.200q again and again", d.Name, a, line)
			}
		}
	}
}
