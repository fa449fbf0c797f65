package detect

import (
	"context"
	"fmt"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// CheckSamples runs a definition's sample lines through its filter, and
// describes each one that is not found as the definition says.
func CheckSamples(def *topics.Definition, now time.Time) ([]string, error) {
	var faults []string
	for i, s := range def.Samples {
		found, err := offenders(def, s, now)
		if err != nil {
			return nil, err
		}
		want := "nobody"
		if s.Target != "" {
			t, err := ban.ParseTarget(s.Target)
			if err != nil {
				return nil, fmt.Errorf("topic %s: sample %d: %w", def.Name, i+1, err)
			}
			want = fmt.Sprintf("%s (%s)", t, s.Class)
		}
		got := "nobody"
		if found.decision != nil {
			got = fmt.Sprintf("%s (%s)", found.decision.Target, found.decision.Class)
		}
		if got != want {
			faults = append(faults, fmt.Sprintf("topic %s: sample %d: found %s, want %s in %q", def.Name, i+1, got, want, s.Line))
		}
		got = ""
		if found.success != nil {
			got = found.success.Addr.Unmap().String()
		}
		if got != s.Success {
			faults = append(faults, fmt.Sprintf("topic %s: sample %d: a login of %q, want %q in %q", def.Name, i+1, got, s.Success, s.Line))
		}
	}
	return faults, nil
}

// A sampled is what one line alone says.
type sampled struct {
	decision *Decision
	success  *Success
}

// offenders gives the decision that one line alone would make if one offence
// were enough, and the login that it proves.
func offenders(def *topics.Definition, s topics.Sample, now time.Time) (*sampled, error) {
	found := &sampled{}
	o := Options{
		Jails: []Jail{{Definition: def}}, Now: func() time.Time { return now },
		Ban:     func(_ context.Context, v Decision) error { found.decision = &v; return nil },
		Success: func(_ context.Context, v Success) { found.success = &v },
	}
	b := &budget{}
	b.left.Store(DefaultMaxTracked)
	d := &Detector{o: o, tracked: b, pending: map[pendingKey]Decision{}}
	j, err := newJail(o.Jails[0], &d.o, b)
	if err != nil {
		return nil, err
	}
	j.window.limit = 0 // one offence is enough, however little it counts
	r := newReader(d, &readerGroup{jails: []*jail{j}})
	r.caught.Store(true)
	l := source.Line{Text: []byte(s.Line), Stream: "sample"}
	if s.Journal {
		l.Journal, l.Tag, l.PID, l.Host, l.Time = true, s.Tag, 4711, "host", now
		r.journal = []jailSet{newJailSet(1, 0)}
		l.Matched = []int{0}
	}
	r.handle(context.Background(), l)
	return found, nil
}
