package detect

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// A Sampler judges single lines by a definition, if one offence is
// enough to ban.
type Sampler struct {
	d       *Detector
	r       *reader
	jail    *jail
	now     time.Time
	found   Sampled
	written int
}

// A Sampled is one line's evidence: whom it blames, and whose login it
// proves. Either may be zero.
type Sampled struct {
	Target  ban.Target
	Class   ban.Class
	Success netip.Addr
	Account Account
	// At is when the line was written, by its own date; zero where it has none
	// that is read.
	At time.Time
}

// NewSampler compiles a definition.
func NewSampler(def *topics.Definition, now time.Time) (*Sampler, error) {
	s := &Sampler{now: now}
	o := Options{
		Now: func() time.Time { return s.now },
		Ban: func(_ context.Context, v Decision) error {
			s.found.Target, s.found.Class = v.Target, v.Class
			return nil
		},
		Success: func(_ context.Context, v Success) { s.found.Success, s.found.Account = v.Addr.Unmap(), v.Account },
		Log:     slog.New(slog.DiscardHandler),
	}
	b := &budget{}
	b.left.Store(DefaultMaxTracked)
	s.d = &Detector{o: o, tracked: b, pending: map[pendingKey]Decision{}}
	j, err := newJail(Jail{Definition: def}, &s.d.o, b)
	if err != nil {
		return nil, err
	}
	j.window.limit = 0 // one offence is enough, however little it counts
	s.jail = j
	s.r = newReader(s.d, &readerGroup{jails: []*jail{j}})
	s.r.caught.Store(true)
	s.r.journal = []jailSet{newJailSet(1, 0)}
	return s, nil
}

// Find judges a sample's line by itself.
func (s *Sampler) Find(x topics.Sample) Sampled {
	s.written++
	stream := "sample " + strconv.Itoa(s.written)
	found := s.judge(x, stream)
	delete(s.r.streams, stream) // a date's place is another one's in the next log
	return found
}

// FindNext judges a line as the next one of a log that all lines given to it
// make: earlier lines of a connection may say whose it is.
func (s *Sampler) FindNext(x topics.Sample) Sampled { return s.judge(x, "log") }

func (s *Sampler) judge(x topics.Sample, stream string) Sampled {
	s.found = Sampled{}
	clear(s.jail.bans)
	s.jail.stall = stall{}
	l := source.Line{Text: []byte(x.Line), Stream: stream}
	if x.Journal {
		l.Journal, l.Tag, l.PID, l.Host, l.Time = true, x.Tag, 4711, "host", s.now
		l.Matched = []int{0}
	}
	s.r.handle(context.Background(), l)
	if st := s.r.streams[stream]; st != nil && st.followers[0].Dated && !x.Journal {
		s.found.At = st.followers[0].At
	}
	return s.found
}

// Work is the work of expressions on the lines so far: the machine's steps, and how
// often a line went to the backtracking engine.
func (s *Sampler) Work() (steps, backtracked uint64) {
	f := s.jail.filter
	list := slices.Concat(f.Rules(), f.Ignores(), f.TaintRules())
	if p := f.Prefix(); p != nil {
		list = append(list, p)
	}
	for _, r := range list {
		steps, backtracked = steps+r.Stats().Steps, backtracked+r.Stats().Backtracked
	}
	return steps, backtracked
}

// CheckSamples runs a definition's sample lines through its filter, and
// describes each one that is not found as the definition says.
func CheckSamples(def *topics.Definition, now time.Time) ([]string, error) {
	sampler, err := NewSampler(def, now)
	if err != nil {
		return nil, err
	}
	var faults []string
	zone := time.Local
	if f, err := sampler.jail.filter.Follow(dates.Options{Zone: def.Detect.Timezone}); err == nil {
		zone = f.Dates.Zone()
	}
	for i, s := range def.Samples {
		written, err := s.Written(zone)
		if err != nil {
			return nil, fmt.Errorf("topic %s: sample %d: %w", def.Name, i+1, err)
		}
		sampler.now = now
		if !written.IsZero() {
			sampler.now = written.Add(time.Minute) // of a date without a year
		}
		found := sampler.Find(s)
		if !written.IsZero() && !found.At.Truncate(time.Second).Equal(written) {
			at := "no time is"
			if !found.At.IsZero() {
				at = found.At.Format(time.RFC3339) + " is"
			}
			faults = append(faults, fmt.Sprintf("topic %s: sample %d: %s read, want %s in %q", def.Name, i+1, at, written.Format(time.RFC3339), s.Line))
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
		if !found.Target.IsZero() {
			got = fmt.Sprintf("%s (%s)", found.Target, found.Class)
		}
		if got != want {
			faults = append(faults, fmt.Sprintf("topic %s: sample %d: found %s, want %s in %q", def.Name, i+1, got, want, s.Line))
		}
		got = ""
		if found.Success.IsValid() {
			got = found.Success.String()
		}
		if got != s.Success {
			faults = append(faults, fmt.Sprintf("topic %s: sample %d: a login of %q, want %q in %q", def.Name, i+1, got, s.Success, s.Line))
		}
	}
	return faults, nil
}
