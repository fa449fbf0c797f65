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
	"time"

	"banmesh/internal/detect/filter"
	"banmesh/internal/detect/pattern"
	"banmesh/internal/detect/source"
)

// A trialRun is a trial under way.
type trialRun struct {
	t        *Trial
	r        *TrialReport
	f        *filter.Filter
	follower *filter.Follower
	now      time.Time // when the line at hand was read
	// gate tells whether a line may pass the prefix, rules which expressions it need be
	// tried on; nil where several lines are matched together.
	gate, rules *trialScan
	hits        []int
	ignores     []int
	ignored     bool // an ignoreregex matched the line at hand
	sampled     int  // times that the prefix matched for a sample
	buffers     [][]byte
	number      int
	plain       []byte // room for a line without colours
}

// A trialScan looks for the texts of one set of expressions.
type trialScan struct {
	scanner *pattern.Scanner
	hits    *pattern.Hits
}

func newTrialScan(literals [][]string) *trialScan {
	s := pattern.NewScanner([]pattern.Group{{Literals: literals}})
	return &trialScan{s, s.NewHits()}
}

// candidates gives the expressions that may match; ok says that there are some.
func (s *trialScan) candidates(line []byte) (c filter.Candidates, ok bool) {
	ok = s.scanner.Scan(line, s.hits)
	return s.hits.Candidates(0), ok
}

// look reads the clock.
func (x *trialRun) look() {
	if x.now = x.t.Now; x.now.IsZero() {
		x.now = time.Now()
	}
}

func (x *trialRun) read(ctx context.Context, match []string) error {
	x.hits, x.ignores = make([]int, x.f.Count()), make([]int, len(x.f.Ignores()))
	switch {
	case x.t.Logs != nil:
		return x.readLogs(ctx, *x.t.Logs, source.Options{Once: true, Start: source.StartSince, Since: x.t.Since, DockerRoot: x.t.DockerRoot})
	case x.t.Log == "journal":
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
		buffered := b.Buffered()
		line, err := readLine(b)
		if len(line) > buffered {
			x.look() // that took a while, perhaps
		}
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
	return x.readLogs(ctx, source.Spec{Journal: match, JournalDirs: x.t.JournalDirs}, source.Options{Once: true, Start: source.StartBeginning})
}

// readLogs tries the lines that logs hold.
func (x *trialRun) readLogs(ctx context.Context, spec source.Spec, o source.Options) error {
	s, err := source.Open(spec, source.Position{}, o)
	if err != nil {
		return err
	}
	r := &reader{containers: containersAlone(spec)}
	return s.Run(ctx, func(l source.Line) error {
		x.look()
		return x.line(r.text(&l), l.Time)
	})
}

// line tries one line.
func (x *trialRun) line(line []byte, at time.Time) error {
	x.number++
	out := TrialLine{Line: x.number}
	valid := utf8Valid(line)
	told := line // is printed
	if !valid {
		told = bytes.ToValidUTF8(line, []byte("\uFFFD"))
	}
	if x.t.Each != nil {
		out.Text = string(told)
	}
	if trimmed := bytes.TrimSpace(line); len(trimmed) == 0 || trimmed[0] == '#' && at.IsZero() {
		out.Skipped = true
		return x.tell(out)
	}
	if at.IsZero() && x.t.Logtype == "journal" {
		at = x.now
	}
	x.r.Lines++
	x.ignored = false
	line = told
	if x.r.Kind == "topic" {
		// As a source gives it to topics; fail2ban sees the line as it is.
		x.plain = slices.Grow(x.plain[:0], 2*len(line)+2)
		line = plain(line, x.plain)
	}
	matches := x.judge(line, at)
	if !x.follower.At.IsZero() && x.t.Each != nil {
		t := x.follower.At
		out.Time = &t
		if x.follower.Dated && at.IsZero() {
			out.Date = x.follower.Date
		}
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
		if x.t.Each == nil {
			continue
		}
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
	switch out.Ignored = x.ignored; {
	case out.Ignored && !out.Matched:
		x.r.Ignored++
		x.r.IgnoredLines = keep(x.r.IgnoredLines, told)
	case out.Matched, len(out.NoFail) > 0:
		x.r.Matched++
	default:
		x.r.Missed++
		x.r.MissedLines = keep(x.r.MissedLines, told)
	}
	return x.tell(out)
}

// judge tries the expressions that may match a line.
func (x *trialRun) judge(line []byte, at time.Time) []filter.Match {
	if x.gate == nil {
		return x.follower.Line(line, at, nil)
	}
	if _, open := x.gate.candidates(line); !open {
		x.follower.Cut(line, at) // its date counts
		return nil
	}
	candidates, _ := x.rules.candidates(line)
	return x.follower.Line(line, at, candidates)
}

func keep(list []string, line []byte) []string {
	if len(list) < maxShown+1 {
		list = append(list, string(line))
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
