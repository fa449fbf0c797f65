package detect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/f2bconf"
	"banmesh/internal/detect/filter"
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
	// Log is a path, "-" for In, or "journal". Logs in place of it are read from Since on.
	Log         string
	Logs        *source.Spec
	Since       time.Time
	DockerRoot  string // as in [source.Options]
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
	// Date is the text of the line's own date, which rules do not see; "" where the line
	// has none.
	Date string `json:"-"`
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
	x, match, err := t.begin()
	if err != nil {
		return nil, err
	}
	started := time.Now()
	if err := x.read(ctx, match); err != nil {
		return nil, err
	}
	x.r.Elapsed = time.Since(started)
	x.finish()
	return x.r, nil
}

// begin compiles the filter. match are its journal matches.
func (t *Trial) begin() (x *trialRun, match []string, err error) {
	x = &trialRun{t: t, r: &TrialReport{Log: t.Log}}
	c, match, err := t.config(x.r)
	if err != nil {
		return nil, nil, err
	}
	if x.f, err = filter.Compile(c); err != nil {
		return nil, nil, err
	}
	x.look()
	if x.follower, err = x.f.Follow(dates.Options{Now: func() time.Time { return x.now }, Location: t.Zone}); err != nil {
		return nil, nil, err
	}
	x.follower.All = true
	x.follower.OnIgnore = func(i int) {
		x.ignored = true
		x.ignores[i]++
	}
	x.r.MaxLines, x.r.DatePattern = max(c.MaxLines, 1), c.DatePattern
	if x.f.MaxLines() == 1 {
		x.gate = newTrialScan([][]string{x.f.Gate()})
		x.rules = newTrialScan(x.f.Literals())
	}
	return x, match, nil
}
