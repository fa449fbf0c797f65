package detect

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/source"
	"banmesh/internal/span"
)

// Replay reads a log with its own times as the clock and gives the decisions that the jails
// would have decided, in order. Nothing is banned and nothing is saved. at is
// the time of lines before the first date; they count as written then.
func Replay(ctx context.Context, o Options, in io.Reader, name string, at time.Time, each func(Decision) error) (Status, error) {
	set, err := dates.Compile(nil, at)
	if err != nil {
		return Status{}, err
	}
	finder, err := set.New(dates.Options{Now: func() time.Time { return at }})
	if err != nil {
		return Status{}, err
	}
	clock := &past{at: at, now: at, dates: finder}
	o.Now = func() time.Time { return clock.now }
	var failed error
	o.Ban = func(_ context.Context, v Decision) error {
		if failed == nil {
			failed = each(v)
		}
		return nil
	}
	o.StatePath = ""
	d, err := prepare(o)
	if err != nil {
		return Status{}, err
	}
	r := newReader(d, &readerGroup{jails: d.jails})
	r.caught.Store(true)
	r.past = clock
	b := bufio.NewReaderSize(in, source.MaxLine)
	for ctx.Err() == nil && failed == nil {
		line, err := readLine(b)
		if line = trimEnd(line); len(line) > 0 {
			r.handle(ctx, source.Line{Text: line, Stream: name})
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Status{}, fmt.Errorf("reading the log: %w", err)
		}
	}
	s := d.Status()
	s.Sources = []SourceStatus{{Matched: r.matched.Load(), Ignored: r.ignored.Load(), Unmatched: r.missed.Load()}}
	return s, errors.Join(ctx.Err(), failed)
}

// past is the clock of a log that is read long after it was written.
type past struct {
	at, now time.Time // when it is read, and how far its lines have come
	dates   *dates.Detector
}

// advance takes the time of a line and gives that of the clock, which goes back for the
// first line alone. Zero says nothing.
func (p *past) advance(written time.Time) time.Time {
	if !written.IsZero() && (written.After(p.now) || p.now.Equal(p.at)) {
		p.now = written
	}
	return p.now
}

// stated gives the time that a field of a line states to a jail of fields, zero
// for none.
func (r *reader) stated(st *stream, line []byte) time.Time {
	for i, j := range r.jails {
		if j.filter.Shares() {
			continue
		}
		f := st.followers[i]
		if f.Cut(line, time.Time{}); f.Dated {
			return f.At
		}
	}
	return time.Time{}
}

// An Explanation is a jail's account of one line.
type Explanation struct {
	Topic ban.Topic `json:"topic"`
	// Reached says how far the line came: "no required text", "prefregex does
	// not match", "no failregex matches", "ignoreregex matches", "no offence",
	// "nobody to ban", "ignored address", "offence".
	Reached string `json:"reached"`
	// Time is the line's; zero when it has none.
	Time time.Time `json:"time,omitzero"`
	// Date is the text that was cut out, Rest the part that filters see.
	Date string `json:"date,omitempty"`
	Rest string `json:"rest,omitempty"`
	// Rule is the failregex that matched, from 1, and Regex its text.
	Rule   int               `json:"rule,omitempty"`
	Regex  string            `json:"regex,omitempty"`
	ID     string            `json:"id,omitempty"`
	Target string            `json:"target,omitempty"`
	Class  string            `json:"class,omitempty"`
	Weight float64           `json:"weight,omitempty"`
	Fields map[string]string `json:"fields,omitempty"`
	// MaxRetry and BanTime are the threshold and the ban.
	MaxRetry int           `json:"maxretry"`
	FindTime span.Duration `json:"findtime"`
	BanTime  span.Duration `json:"bantime"`
	// Corroborate is how recently the kernel must have seen the address
	// connect for the line to count; 0 believes it.
	Corroborate span.Duration `json:"corroborate,omitzero"`
}

// Explain gives each jail's account of a line, without reading or changing
// anything else. journal says that the line is a journal's message, with tag.
func Explain(o Options, line []byte, journal bool, tag string) ([]Explanation, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	d, err := prepare(o)
	if err != nil {
		return nil, err
	}
	r := newReader(d, &readerGroup{jails: d.jails})
	l := source.Line{Text: line, Stream: "line"}
	if journal {
		l.Journal, l.Tag, l.Host, l.PID, l.Time = true, tag, "host", 1, o.Now()
	}
	text := r.text(&l)
	r.scanner.Scan(text, r.hits)
	r.line.begin(o.Now())
	st := r.stream("line")
	var out []Explanation
	for i, j := range d.jails {
		e := Explanation{
			Topic: j.topic, MaxRetry: j.def.Detect.MaxRetry,
			FindTime: j.def.Detect.FindTime, BanTime: j.def.Detect.BanTime,
			Corroborate: j.def.Detect.Corroborate,
		}
		if !jailSet(r.hits.Found()).has(i) {
			e.Reached = "no required text"
			out = append(out, e)
			continue
		}
		f := st.followers[i]
		f.All = true
		ignored := 0
		f.OnIgnore = func(n int) { ignored = n + 1 }
		rest := f.Cut(text, l.Time)
		e.Date, e.Rest, e.Time = f.Date, string(rest), f.At
		j.explain(&e, r, f.Process(rest, f.Date, f.At, nil), ignored)
		if p := j.filter.Prefix(); e.Reached == "no failregex matches" && p != nil {
			buffer := append([]byte(e.Rest), '\n')
			if p.Find(buffer, false, nil) == nil {
				e.Reached = "prefregex does not match"
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// explain judges the matches of a jail's filter.
func (j *jail) explain(e *Explanation, r *reader, matches []filter.Match, ignored int) {
	switch {
	case len(matches) == 0 && ignored > 0:
		e.Reached, e.Rule = "ignoreregex matches", ignored
		e.Regex = j.filter.Ignores()[ignored-1].Source()
		return
	case len(matches) == 0:
		e.Reached = "no failregex matches"
		return
	}
	m := &matches[0]
	meaning := j.rules[min(m.Rule, len(j.rules)-1)]
	if m.Success {
		meaning = ruleMeaning{}
	}
	e.Rule, e.Regex, e.ID = m.Rule+1, j.filter.Describe(m.Rule), m.ID
	e.Class, e.Weight = meaning.class.String(), meaning.weight
	e.Fields = map[string]string{}
	for _, f := range m.Fields {
		e.Fields[f.Name] = f.Value
	}
	id := m.ID
	if m.Address != "" {
		id = m.Address
	}
	t, _, ok := targetOf(id)
	switch {
	case m.NoFail || m.ID == "" || meaning.weight == 0:
		e.Reached = "no offence"
	case !ok || insideAnother(m.Text, m.From, m.From+len(id)):
		e.Reached = "nobody to ban"
	case j.ignore.holds(t) || r.d.o.Ignored != nil && r.d.o.Ignored(t):
		e.Reached, e.Target = "ignored address", t.String()
	default:
		e.Reached, e.Target = "offence", t.String()
	}
}
