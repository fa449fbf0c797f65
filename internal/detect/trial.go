package detect

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/pattern"
	"banmesh/internal/detect/source"
	"banmesh/topics"
)

// A Trial tries one filter on one log and changes nothing.
type Trial struct {
	// Spec is a topic, a fail2ban filter such as "sshd[mode=aggressive]", or a
	// path to one. A plain name is a topic if there is one of that name,
	// unless Fail2banOnly.
	Spec         string
	Topics       []*topics.Definition
	Fail2banDir  string
	Fail2banOnly bool
	// Rule is one failregex to try in place of the filter that Spec names.
	Rule string
	// Logtype is "file" or "journal": the lines are a journal's, without a
	// date. "" is "file", or "journal" when Log is.
	Logtype string
	// Now is the clock; zero is the real one. Zone is that of dates without.
	Now  time.Time
	Zone *time.Location
	// Log is a path, "-" for In, or "journal".
	Log         string
	In          io.Reader
	JournalDirs []string
	// Each is told the fate of each line; may be nil.
	Each func(TrialLine) error
}

// A TrialLine is the fate of one input line.
type TrialLine struct {
	Line int `json:"line"`
	// Matched says that the line is an offence. Skipped lines are empty or
	// comments and were not tried.
	Matched bool `json:"matched"`
	Ignored bool `json:"ignored"`
	Skipped bool `json:"skipped,omitempty"`
	// ID is who did it. Regex is the failregex that says so, counted from 1;
	// Regexes are all, where it is not one alone.
	ID      string `json:"id,omitempty"`
	Regex   int    `json:"regex,omitempty"`
	Regexes []int  `json:"regexes,omitempty"`
	// NoFail are failregexes that know the line and take it for no offence of
	// its own.
	NoFail []int `json:"nofail,omitempty"`
	// Time is when the line was written, null when nothing says it.
	Time *time.Time `json:"time"`
	// Attempts counts the lines that make the offence, Users who was tried.
	Attempts int               `json:"attempts,omitempty"`
	Users    []string          `json:"users,omitempty"`
	Fields   map[string]string `json:"fields,omitempty"`
	Text     string            `json:"-"`
}

// A TrialReport sums a trial up.
type TrialReport struct {
	Kind, Name, Dir string // "topic" or "fail2ban filter"
	MaxLines        int
	DatePattern     []string
	Log             string
	Prefix          *RuleReport
	Rules, Ignores  []RuleReport
	DateHits        []DateHit
	Lines           int
	Ignored         int
	Matched         int
	Missed          int
	MissedLines     []string // the first ones
	IgnoredLines    []string
	Elapsed         time.Duration
}

// A RuleReport says how one expression did.
type RuleReport struct {
	Hits     int
	Source   string
	Engine   string
	Literals []string
	// Cost is the mean time of trying it on a line of this log.
	Cost time.Duration
	// Timeouts is how often the backtracking engine was stopped.
	Timeouts uint64
}

// A DateHit says how often a date template fitted.
type DateHit struct {
	Hits int
	Name string
}

// maxShown is how many lines of each kind a report keeps, and costSample how
// many buffers expressions are timed on.
const (
	maxShown   = 20
	costSample = 200
)

// ErrFilter says that there is no such topic or filter.
var ErrFilter = errors.New("no such topic or fail2ban filter")

// config finds the filter that the trial names.
func (t *Trial) config(r *TrialReport) (filter.Config, []string, error) {
	if t.Rule != "" {
		r.Kind, r.Name = "rule", t.Rule
		return filter.Config{Name: "rule", Failregex: []string{t.Rule}, UseDNS: "no"}, nil, nil
	}
	logtype := t.Logtype
	if logtype == "" && t.Log == "journal" {
		logtype = "journal"
	}
	for _, d := range t.Topics {
		if string(d.Name) == t.Spec && d.Detect != nil && !t.Fail2banOnly {
			r.Kind, r.Name = "topic", t.Spec
			c, err := FilterConfig(d, t.Fail2banDir)
			return c, d.Detect.Journal, err
		}
	}
	dir := t.Fail2banDir
	if dir == "" {
		dir = DefaultFail2banDir
	}
	r.Kind, r.Name, r.Dir = "fail2ban filter", t.Spec, dir
	if logtype == "file" {
		logtype = "" // filters assume it anyway; they may say otherwise
	}
	if _, options, err := f2bconf.ParseSpec(t.Spec); err == nil && t.Logtype == "" && options["logtype"] == "journal" {
		t.Logtype = "journal"
	}
	f, err := f2bconf.ReadFilter(dir, t.Spec, logtype, nil)
	if errors.Is(err, f2bconf.ErrMissing) {
		return filter.Config{}, nil, fmt.Errorf("%q: %w: %w", t.Spec, ErrFilter, err)
	}
	if err != nil {
		return filter.Config{}, nil, err
	}
	return FilterOf(f), f.Journalmatch, nil
}

// Run tries the filter.
func (t *Trial) Run(ctx context.Context) (*TrialReport, error) {
	r := &TrialReport{Log: t.Log}
	c, match, err := t.config(r)
	if err != nil {
		return nil, err
	}
	f, err := filter.Compile(c)
	if err != nil {
		return nil, err
	}
	now := time.Now
	if !t.Now.IsZero() {
		now = func() time.Time { return t.Now }
	}
	follower, err := f.Follow(dates.Options{Now: now, Location: t.Zone})
	if err != nil {
		return nil, err
	}
	follower.All = true
	r.MaxLines, r.DatePattern = max(c.MaxLines, 1), c.DatePattern
	run := trialRun{t: t, r: r, f: f, follower: follower, now: now}
	started := time.Now()
	if err := run.read(ctx, match); err != nil {
		return nil, err
	}
	r.Elapsed = time.Since(started)
	run.finish()
	return r, nil
}

type trialRun struct {
	t        *Trial
	r        *TrialReport
	f        *filter.Filter
	follower *filter.Follower
	now      func() time.Time
	hits     []int
	ignores  []int
	sampled  int // times that the prefix matched for a sample
	buffers  [][]byte
	number   int
}

func (x *trialRun) read(ctx context.Context, match []string) error {
	x.hits, x.ignores = make([]int, x.f.Count()), make([]int, len(x.f.Ignores()))
	if x.t.Log == "journal" {
		return x.readJournal(ctx, match)
	}
	in := x.t.In
	if x.t.Log != "-" {
		file, err := os.Open(x.t.Log)
		if err != nil {
			return fmt.Errorf("opening the log: %w", err)
		}
		defer file.Close()
		in = file
	}
	b := bufio.NewReaderSize(in, source.MaxLine)
	for ctx.Err() == nil {
		line, err := readLine(b)
		if len(line) > 0 || err == nil {
			if err := x.line(trimEnd(line), time.Time{}); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the log: %w", err)
		}
	}
	return ctx.Err()
}

// trimEnd takes off the end of a line.
func trimEnd(line []byte) []byte {
	for n := len(line); n > 0 && (line[n-1] == '\n' || line[n-1] == '\r'); n-- {
		line = line[:n-1]
	}
	return line
}

// readLine reads to the end of a line and cuts one that is too long.
func readLine(b *bufio.Reader) ([]byte, error) {
	line, err := b.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) {
		return line, err
	}
	line = bytes.Clone(line)
	for errors.Is(err, bufio.ErrBufferFull) {
		_, err = b.ReadSlice('\n')
	}
	return line, err
}

func (x *trialRun) readJournal(ctx context.Context, match []string) error {
	if len(match) == 0 {
		match = []string{""}
	}
	s, err := source.Open(source.Spec{Journal: match, JournalDirs: x.t.JournalDirs}, source.Position{}, source.Options{Once: true, Start: source.StartBeginning})
	if err != nil {
		return err
	}
	r := &reader{}
	return s.Run(ctx, func(l source.Line) error { return x.line(r.text(&l), l.Time) })
}

// line tries one line.
func (x *trialRun) line(line []byte, at time.Time) error {
	x.number++
	out := TrialLine{Line: x.number, Text: strings.ToValidUTF8(string(line), "\uFFFD")}
	if trimmed := bytes.TrimSpace(line); len(trimmed) == 0 || trimmed[0] == '#' && at.IsZero() {
		out.Skipped = true
		return x.tell(out)
	}
	if at.IsZero() && x.t.Logtype == "journal" {
		at = x.now()
	}
	x.r.Lines++
	x.follower.OnIgnore = func(i int) {
		out.Ignored = true
		x.ignores[i]++
	}
	if !utf8Valid(line) {
		line = []byte(out.Text)
	}
	if x.r.Kind == "topic" {
		// As a source gives it to topics; fail2ban sees the line as it is.
		line = plain(line, make([]byte, 0, 2*len(line)+2))
	}
	matches := x.follower.Line(line, at, nil)
	if !x.follower.At.IsZero() {
		t := x.follower.At
		out.Time = &t
	}
	x.sample(line)
	for i := range matches {
		m := &matches[i]
		x.hits[m.Rule]++
		if nofail, _ := m.Fields.Get("nofail"); m.ID == "" || nofail != "" || m.Success {
			out.NoFail = append(out.NoFail, m.Rule+1)
			continue
		}
		out.Regexes = append(out.Regexes, m.Rule+1)
		if out.Matched {
			continue
		}
		out.Matched, out.ID, out.Regex = true, m.ID, m.Rule+1
		out.Attempts, out.Users = len(m.Lines), slices.Clone(m.Users)
		out.Fields = map[string]string{}
		for _, f := range m.Fields {
			if f.Name != "mlfid" {
				out.Fields[f.Name] = f.Value
			}
		}
	}
	if len(out.Regexes) == 1 {
		out.Regexes = nil
	}
	switch {
	case out.Ignored && !out.Matched:
		x.r.Ignored++
		x.r.IgnoredLines = keep(x.r.IgnoredLines, out.Text)
	case out.Matched, len(out.NoFail) > 0:
		x.r.Matched++
	default:
		x.r.Missed++
		x.r.MissedLines = keep(x.r.MissedLines, out.Text)
	}
	return x.tell(out)
}

func keep(list []string, line string) []string {
	if len(list) < maxShown+1 {
		list = append(list, line)
	}
	return list
}

func utf8Valid(b []byte) bool { return pattern.IsASCII(b) || bytes.Equal(bytes.ToValidUTF8(b, nil), b) }

func (x *trialRun) tell(l TrialLine) error {
	if x.t.Each == nil {
		return nil
	}
	return x.t.Each(l)
}

// sample keeps a line as the failregexes see it, for timing them.
func (x *trialRun) sample(line []byte) {
	if len(x.buffers) >= costSample {
		return
	}
	text := append(bytes.Clone(line[min(len(x.follower.Date), len(line)):]), '\n')
	if p := x.f.Prefix(); p != nil {
		spans := p.Find(text, pattern.IsASCII(text), nil)
		if spans == nil {
			return
		}
		x.sampled++
		if g := p.Group("content"); g >= 0 && spans[2*g] >= 0 {
			text = append(bytes.Clone(text[spans[2*g]:spans[2*g+1]]), '\n')
		}
	}
	x.buffers = append(x.buffers, text)
}

func (x *trialRun) finish() {
	if p := x.f.Prefix(); p != nil {
		report := x.rule(p, int(p.Stats().Matched)-x.sampled)
		x.r.Prefix = &report
	}
	for i, re := range x.f.Rules() {
		x.r.Rules = append(x.r.Rules, x.rule(re, x.hits[i]))
	}
	for i := len(x.r.Rules); i < x.f.Count(); i++ {
		x.r.Rules = append(x.r.Rules, RuleReport{Hits: x.hits[i], Source: x.f.Describe(i), Engine: "fields"})
	}
	for i, re := range x.f.Ignores() {
		x.r.Ignores = append(x.r.Ignores, x.rule(re, x.ignores[i]))
	}
	hits := x.follower.Dates.Hits()
	for _, name := range slices.Sorted(maps.Keys(hits)) {
		x.r.DateHits = append(x.r.DateHits, DateHit{hits[name], name})
	}
}

func (x *trialRun) rule(re *pattern.Regex, hits int) RuleReport {
	out := RuleReport{Hits: hits, Source: re.Source(), Engine: re.Engine(), Literals: re.Literals(), Timeouts: re.Stats().Timeouts}
	if len(x.buffers) == 0 {
		return out
	}
	started := time.Now()
	for _, b := range x.buffers {
		re.Find(b, pattern.IsASCII(b), nil)
	}
	out.Cost = time.Since(started) / time.Duration(len(x.buffers))
	return out
}
