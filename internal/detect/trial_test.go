package detect

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"banmesh/topics"
)

// A trial tries those expressions alone whose texts a line holds. It says the same as one
// that tries all of them.
func TestATrialThatSkipsExpressionsSaysWhatOneOfAllSays(t *testing.T) {
	all := topics.Builtin()
	var others strings.Builder
	others.WriteString("\n# a comment\n\xff\xfe sshd[1]: Failed password for root from 192.0.2.7 port 1 ssh2\n")
	for _, d := range all {
		if len(d.Samples) > 0 {
			fmt.Fprintln(&others, d.Samples[0].Line)
		}
	}
	for _, d := range all {
		if d.Detect == nil || d.Detect.Fail2ban != "" {
			continue
		}
		var log strings.Builder
		log.WriteString(others.String())
		for _, s := range d.Samples {
			fmt.Fprintf(&log, "%s\n%s\n", s.Line, strings.ToUpper(s.Line))
		}
		run := func(skip bool) (lines []TrialLine, r *TrialReport) {
			trial := &Trial{
				Spec: string(d.Name), Topics: all, Log: "-", In: strings.NewReader(log.String()), Now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC),
				Each: func(l TrialLine) error { lines = append(lines, l); return nil },
			}
			x, match, err := trial.begin()
			if err != nil {
				t.Fatal(err)
			}
			if !skip {
				x.gate, x.rules = nil, nil
			}
			if err := x.read(t.Context(), match); err != nil {
				t.Fatal(err)
			}
			x.finish()
			r = x.r
			costs := [][]RuleReport{r.Rules, r.Ignores}
			if r.Prefix != nil {
				r.Prefix.Cost = 0
			}
			for _, rules := range costs {
				for i := range rules {
					rules[i].Cost = 0
				}
			}
			return lines, r
		}
		lines, report := run(true)
		wantLines, want := run(false)
		if !reflect.DeepEqual(report, want) {
			t.Errorf("%s: the report is\n%+v\nand with all expressions tried\n%+v", d.Name, report, want)
		}
		for i := range wantLines {
			if !reflect.DeepEqual(lines[i], wantLines[i]) {
				t.Fatalf("%s: line %d is\n%+v\nand with all expressions tried\n%+v", d.Name, i+1, lines[i], wantLines[i])
			}
		}
	}
}
