// Package filter decides which log lines are offences and of whom, as
// fail2ban's filters do: prefregex, failregex, ignoreregex, lines that belong
// together, and dates. A [Filter] is compiled once and shared; a [State]
// follows one stream of lines.
package filter

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"banmesh/internal/detect/dates"
	"banmesh/internal/detect/pattern"
)

// A Config is a filter's source, in fail2ban's words.
type Config struct {
	Name        string
	Prefregex   string
	Failregex   []string
	Ignoreregex []string
	// MaxLines is how many lines are matched together; 0 means 1.
	MaxLines int
	// DatePattern lists where times stand; empty means the usual places.
	DatePattern []string
	// UseDNS is "yes", "warn", "no" or "raw"; "no" makes <HOST> an address
	// only. "" is "warn".
	UseDNS string
	// Success are expressions like Failregex that prove a login; they are tried
	// after those.
	Success []string
	// Taint are expressions of lines after which a client may have written
	// whole lines.
	Taint []string
	// Records, if set, are the rules for lines of fields.
	Records *Records
}

// Bounds of a filter: every one of fail2ban's has a tenth of it.
const (
	maxRules    = 2000
	maxMaxLines = 1000
)

// ErrTooLarge says that a filter is beyond this program's limits.
var ErrTooLarge = errors.New("the filter is too large")

// A Filter is compiled and immutable.
type Filter struct {
	Name        string
	prefregex   *rule
	failregex   []*rule // and after them those of successes
	success     int     // the first failregex that is a success
	ignoreregex []*rule
	taint       []*pattern.Regex
	records     *records // numbered after the expressions
	maxLines    int
	datePattern []string
	dates       *dates.Set
	// ignoreFirst is fail2ban's rule for when ignoreregex is tried on the
	// whole line before everything else.
	ignoreFirst bool
}

// A rule is an expression with the meaning of its groups.
type rule struct {
	*pattern.Regex
	groups []group
	// Group numbers, -1 where there is none.
	content   int
	addresses [2]int // IPv4, IPv6
	skiplines []int
}

type group struct {
	index int
	name  string
	// alternate says that the value counts only where name has none.
	alternate bool
	tuple     bool
}

// identifying are the groups of which a failregex or its prefregex needs one.
var identifying = []string{"fid", "ip4", "ip6", "dns", "mlfid"}

// Compile reads every expression and reports all that are wrong.
func Compile(c Config) (*Filter, error) {
	if len(c.Failregex)+len(c.Ignoreregex)+len(c.Success)+len(c.Taint) > maxRules || c.MaxLines > maxMaxLines {
		return nil, fmt.Errorf("%s: %w: %d expressions, %d lines", c.Name, ErrTooLarge, len(c.Failregex)+len(c.Ignoreregex), c.MaxLines)
	}
	f := &Filter{Name: c.Name, maxLines: max(c.MaxLines, 1), datePattern: slices.Clone(c.DatePattern)}
	o := pattern.Options{Multiline: f.maxLines > 1, NoNames: c.UseDNS == "no"}
	var faults []error
	add := func(kind string, i int, source string) *rule {
		r, err := newRule(source, o)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s %d: %w", c.Name, kind, i+1, err))
		}
		return r
	}
	if c.Prefregex != "" {
		f.prefregex = add("prefregex", 0, c.Prefregex)
	}
	f.success = len(c.Failregex)
	for i, s := range append(append([]string{}, c.Failregex...), c.Success...) {
		r := add("failregex", i, s)
		if r != nil && !r.identifies() && (f.prefregex == nil || !f.prefregex.identifies()) {
			faults = append(faults, fmt.Errorf("%s: failregex %d: %w", c.Name, i+1, pattern.ErrNoID))
		}
		f.failregex = append(f.failregex, r)
	}
	for i, s := range c.Ignoreregex {
		f.ignoreregex = append(f.ignoreregex, add("ignoreregex", i, s))
	}
	for i, s := range c.Taint {
		re, err := pattern.CompilePlain(s)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: taint %d: %w", c.Name, i+1, err))
		}
		f.taint = append(f.taint, re)
	}
	if c.Records != nil {
		r, err := compileRecords(c.Name, c.Records)
		if err != nil {
			faults = append(faults, err)
		}
		f.records = r
	}
	set, err := dates.Compile(c.DatePattern, time.Now())
	if err != nil {
		faults = append(faults, fmt.Errorf("%s: %w", c.Name, err))
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	f.dates = set
	f.ignoreFirst = len(f.ignoreregex) > 0 && len(f.ignoreregex) < f.success-2
	return f, nil
}

func newRule(source string, o pattern.Options) (*rule, error) {
	re, err := pattern.Compile(source, o)
	if err != nil {
		return nil, err
	}
	r := &rule{Regex: re, content: re.Group("content"), addresses: [2]int{re.Group("ip4"), re.Group("ip6")}}
	for i, name := range re.Names() {
		if name == "" {
			continue
		}
		r.groups = append(r.groups, newGroup(i, name))
	}
	slices.SortStableFunc(r.groups, func(a, b group) int { return strings.Compare(re.Names()[a.index], re.Names()[b.index]) })
	for n := 0; ; n++ {
		i := re.Group(fmt.Sprintf("skiplines%d", n))
		if i < 0 {
			break
		}
		r.skiplines = append(r.skiplines, i)
	}
	return r, nil
}

func (r *rule) identifies() bool {
	return slices.ContainsFunc(identifying, func(name string) bool { return r.Group(name) >= 0 })
}

// Rules gives the failregexes and, after them, the expressions of successes.
func (f *Filter) Rules() []*pattern.Regex { return regexes(f.failregex) }

// Describe gives a rule as it was written: an expression, or conditions.
func (f *Filter) Describe(rule int) string {
	if i := rule - len(f.failregex); i >= 0 {
		return f.records.texts[i]
	}
	return f.failregex[rule].Source()
}

// Count gives the number of rules, those of successes included.
func (f *Filter) Count() int {
	if f.records != nil {
		return len(f.failregex) + len(f.records.rules)
	}
	return len(f.failregex)
}

// Shares says that the filter looks for the usual dates and so may share dates that
// others found in a line.
func (f *Filter) Shares() bool { return f.records == nil }

// Tainted says that a client may have written the lines after this one: text
// is the line as it was written. rule counts from [Filter.Count].
func (f *Filter) Tainted(text []byte, candidates Candidates) bool {
	from := f.Count()
	n := from + len(f.taint)
	ascii := pattern.IsASCII(text)
	for i := candidates.next(from, n); i < n; i = candidates.next(i+1, n) {
		if f.taint[i-from].Find(text, ascii, nil) != nil {
			return true
		}
	}
	return false
}

// Taints says that there are lines after which a client may have written whole
// ones.
func (f *Filter) Taints() bool { return len(f.taint) > 0 }

// TaintRules gives the expressions of [Filter.Taints].
func (f *Filter) TaintRules() []*pattern.Regex { return f.taint }

// Ignores gives the ignoreregexes.
func (f *Filter) Ignores() []*pattern.Regex { return regexes(f.ignoreregex) }

// Prefix gives the prefregex, or nil.
func (f *Filter) Prefix() *pattern.Regex {
	if f.prefregex == nil {
		return nil
	}
	return f.prefregex.Regex
}

func regexes(rules []*rule) []*pattern.Regex {
	out := make([]*pattern.Regex, len(rules))
	for i, r := range rules {
		out[i] = r.Regex
	}
	return out
}

// MaxLines is how many lines are matched together.
func (f *Filter) MaxLines() int { return f.maxLines }

// Literals gives, for each rule and for each expression of a taint after them, texts in lower case of which one stands
// in every line that it matches; nil where that cannot be said. With several
// lines matched together, one of them holds it: see [Filter.MaxLines].
func (f *Filter) Literals() [][]string {
	var out [][]string
	for _, r := range f.failregex {
		out = append(out, f.literals(r))
	}
	if f.records != nil {
		out = append(out, f.records.literals()...)
	}
	for _, re := range f.taint {
		out = append(out, re.Literals())
	}
	return out
}

// Gate gives texts in lower case of which one stands in every line that is not
// passed over at once, nil where that cannot be said.
func (f *Filter) Gate() []string {
	if f.prefregex == nil || f.ignoreFirst || f.maxLines > 1 || f.records != nil {
		return nil
	}
	return f.literals(f.prefregex)
}

func (f *Filter) literals(r *rule) []string {
	if unbounded(f.datePattern) {
		return halves(r.Literals())
	}
	return r.Literals()
}

// halves gives texts of which one is whole wherever a single cut splits one of
// the texts given, or nil where they would say too little.
func halves(texts []string) []string {
	const shortest = 3
	var out []string
	for _, s := range texts {
		if len(s) < 2*shortest {
			return nil
		}
		out = append(out, s[:len(s)/2], s[len(s)/2:])
	}
	return out
}

// Dates makes a date detector for one stream of lines.
func (f *Filter) Dates(o dates.Options) (*dates.Detector, error) {
	return f.dates.New(o)
}
