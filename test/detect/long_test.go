package detect

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// longLine is how many bytes a source gives at most.
const longLine = 64 << 10

// TestLongLinesOfEveryTopicAreJudged gives each topic its samples with 64 KiB of
// a client's text in each place of a client's, and says how long the slowest took.
func TestLongLinesOfEveryTopicAreJudged(t *testing.T) {
	now := time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)
	worst, of := time.Duration(0), ""
	for _, d := range topics.Builtin() {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		sampler, err := detect.NewSampler(d, now)
		if err != nil {
			t.Fatal(err)
		}
		slowest, line := time.Duration(0), ""
		for _, s := range d.Samples {
			if s.Target == "" && s.Success == "" {
				continue
			}
			for _, p := range places(t, d, s, now) {
				for _, text := range longTexts(s, p) {
					long := s
					long.Line = s.Line[:p.from] + p.escape(text) + s.Line[p.to:]
					if len(long.Line) > longLine {
						long.Line = long.Line[:longLine]
					}
					began := time.Now()
					sampler.Find(long)
					if took := time.Since(began); took > slowest {
						// Time that another process took is not the line's.
						began = time.Now()
						sampler.Find(long)
						if took = min(took, time.Since(began)); took > slowest {
							slowest, line = took, fmt.Sprintf("%.60q at %d of %.90q", text, p.from, s.Line)
						}
					}
				}
			}
		}
		t.Logf("%-20s %8.2f ms %s", d.Name, slowest.Seconds()*1000, line)
		if slowest > worst {
			worst, of = slowest, string(d.Name)
		}
	}
	fmt.Printf("figure long-line %.2f ms aim <5 (%s)\n", worst.Seconds()*1000, of)
}

// longTexts gives texts that fill a line: letters, blanks, and pieces of the line
// that bring an expression back to where it was.
func longTexts(s topics.Sample, p place) []string {
	rest := s.Line[p.to:]
	if len(rest) > 40 {
		rest = rest[:40]
	}
	var out []string
	for _, piece := range []string{"a ", rest} {
		if piece != "" {
			out = append(out, strings.Repeat(piece, longLine/len(piece)))
		}
	}
	return out
}
