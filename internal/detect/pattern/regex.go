// Package pattern runs the regular expressions of fail2ban's filters: Python's
// syntax with fail2ban's tags. What RE2 can say runs on RE2, in time linear in
// the line. The rest runs behind a relaxed form that RE2 can say and that
// matches all that the original matches, then a check of what was let go, and
// only then a backtracking engine, with a time limit and a circuit breaker.
package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// MatchTimeout bounds one run of the backtracking engine: a thousand times
// what a log line needs, and short enough that a hostile line delays its
// source by no more than a scheduler does.
const MatchTimeout = 50 * time.Millisecond

// The circuit breaker: after breakAfter timeouts in a row the expression's
// backtracking part rests for breakFor, and lines that need it count as not
// matched and are counted as skipped.
const (
	breakAfter = 3
	breakFor   = time.Minute
)

// Options say how an expression is meant.
type Options struct {
	// Multiline is Python's re.MULTILINE, which fail2ban sets for maxlines > 1.
	Multiline bool
	// NoNames makes <HOST> mean an address only (usedns = no).
	NoNames bool
}

// Engine says what an expression runs on.
type Engine uint8

// Engines.
const (
	RE2        Engine = iota // linear time
	CheckedRE2               // RE2, then checks; backtracking when a check fails
	Hybrid                   // RE2 first, backtracking when that matches
)

func (e Engine) String() string {
	return [...]string{"re2", "re2+checks", "re2+backtracking"}[e]
}

// A Regex is a compiled expression. It may be used by several goroutines.
type Regex struct {
	source   string
	expanded string
	names    []string
	engine   Engine
	tree     *tree
	ascii    func() *program // nil where RE2 cannot hold it
	wide     func() *program
	literals []string
	machine  func() *machine // nil where it cannot be built

	exact   func() (*regexp2.Regexp, error)
	stats   counters
	failing atomic.Int32
	resting atomic.Int64 // unix nanoseconds until which the breaker is open
}

type counters struct{ searched, matched, backtracked, timeouts, skipped atomic.Uint64 }

// Stats count what an expression did.
type Stats struct {
	Searched, Matched, Backtracked uint64
	// Timeouts is how often the backtracking engine ran into [MatchTimeout],
	// Skipped how often it was not asked because the breaker was open.
	Timeouts, Skipped uint64
}

// A program is one RE2 form of the expression.
type program struct {
	text   string
	re     *regexp.Regexp
	slots  []int
	checks []check
	// verified says that checks decide; else a match is only a hint.
	verified bool
	hint     bool
}

// ErrNoID says that a failregex names nobody: it has none of the groups that
// identify an offender.
var ErrNoID = errors.New("no failure-id group: <HOST>, <ADDR>, <F-ID> or <F-MLFID> is missing")

// Compile reads an expression with fail2ban's tags in it.
func Compile(source string, o Options) (*Regex, error) {
	expanded := Expand(source, o.NoNames)
	if strings.TrimLeft(expanded, " \t\r\n\f\v") == "" {
		return nil, fmt.Errorf("%w: it is empty", ErrSyntax)
	}
	return compile(source, expanded, o)
}

// CompilePlain reads an expression without tags.
func CompilePlain(source string) (*Regex, error) { return compile(source, source, Options{}) }

func compile(source, expanded string, o Options) (*Regex, error) {
	t, err := parse(expanded, o.Multiline)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", clip(source), err)
	}
	r := &Regex{source: source, expanded: expanded, names: t.names, tree: t}
	// Most expressions never meet a line, so a machine waits until one does.
	if assembles(t) {
		r.machine = sync.OnceValue(func() *machine { return assemble(t) })
	}
	printed, err := r.print(false)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", clip(source), err)
	}
	switch {
	case !printed.hint:
		r.engine = RE2
	case printed.verified:
		r.engine = CheckedRE2
	default:
		r.engine = Hybrid
	}
	// Most lines need the machine alone, so RE2's form waits until one does.
	r.ascii = sync.OnceValue(func() *program { return printed.compile() })
	r.wide = sync.OnceValue(func() *program {
		if p, err := r.print(true); err == nil {
			return p.compile()
		}
		return nil
	})
	if r.machine == nil && r.ascii() == nil {
		return nil, fmt.Errorf("%q: %w: it is too large", clip(source), ErrSyntax)
	}
	r.exact = sync.OnceValues(func() (*regexp2.Regexp, error) {
		p := printer{}
		if err := p.node(t.root); err != nil {
			return nil, err
		}
		re, err := regexp2.Compile(p.b.String())
		if err == nil {
			re.MatchTimeout = MatchTimeout
		}
		return re, err
	})
	if r.engine != RE2 && r.machine == nil {
		if _, err := r.exact(); err != nil {
			return nil, fmt.Errorf("%q: %w: %w", clip(source), ErrSyntax, err)
		}
	}
	r.literals = required(t.root)
	return r, nil
}

// print writes the RE2 form.
func (r *Regex) print(wide bool) (*program, error) {
	p := printer{re2: true, unicode: wide}
	err := p.node(r.tree.root)
	hint := false
	if errors.Is(err, errBeyondRE2) {
		hint = true
		root := eliminate(r.tree.root)
		p = printer{re2: true, unicode: wide}
		if root != nil && p.node(root) == nil {
			hint = false // conditionals were all that RE2 could not say
		} else {
			p = printer{re2: true, unicode: wide, relaxed: true, unverifiable: root == nil}
			if root == nil {
				root = r.tree.root
			}
			err = p.node(root)
		}
		if !hint {
			err = nil
		}
	}
	if err != nil {
		return nil, err
	}
	if wide && p.wordBoundary {
		// RE2's \b knows ASCII only.
		hint, p.unverifiable = true, true
	}
	return &program{text: p.b.String(), slots: p.slots, checks: p.checks, hint: hint, verified: hint && !p.unverifiable}, nil
}

// compile gives the program ready to run, or nil when RE2 finds it too large.
func (p *program) compile() *program {
	re, err := regexp.Compile(p.text)
	if err != nil {
		return nil
	}
	p.re = re
	return p
}

// Source is the expression as it was written.
func (r *Regex) Source() string { return r.source }

// Expanded is the expression with its tags replaced.
func (r *Regex) Expanded() string { return r.expanded }

// Engine says what the expression runs on.
func (r *Regex) Engine() Engine { return r.engine }

// Literals gives texts in lower case, one of which stands in every line that
// the expression matches, or nil when there are none.
func (r *Regex) Literals() []string { return r.literals }

// Names gives the groups' names by number; unnamed ones are "".
func (r *Regex) Names() []string { return r.names }

// Group gives a named group's number, or -1.
func (r *Regex) Group(name string) int {
	if i, ok := r.tree.byName[name]; ok {
		return i
	}
	return -1
}

// Stats gives a copy of the counters.
func (r *Regex) Stats() Stats {
	return Stats{
		Searched: r.stats.searched.Load(), Matched: r.stats.matched.Load(), Backtracked: r.stats.backtracked.Load(),
		Timeouts: r.stats.timeouts.Load(), Skipped: r.stats.skipped.Load(),
	}
}

// Find searches s. spans[2*i] and spans[2*i+1] of the result bound group i,
// -1 where it took no part; the result reuses spans. ascii says that s holds
// no byte above 127. nil means no match.
func (r *Regex) Find(s []byte, ascii bool, spans []int) []int {
	r.stats.searched.Add(1)
	if ascii && r.machine != nil {
		found, how := r.machine().find(s, spans)
		switch how {
		case outcomeFound:
			r.stats.matched.Add(1)
			return found
		case outcomeNone:
			return nil
		}
		spans = found
	}
	get := r.ascii
	if !ascii {
		get = r.wide
	}
	p := get()
	if p == nil {
		return r.backtrack(s, spans)
	}
	found := p.re.FindSubmatchIndex(s)
	if found == nil {
		return nil
	}
	if p.hint && !(p.verified && p.verify(s, found)) {
		return r.backtrack(s, spans)
	}
	r.stats.matched.Add(1)
	spans = r.blank(spans)
	spans[0], spans[1] = found[0], found[1]
	for i, group := range p.slots {
		if group > 0 && found[2*i+2] >= 0 {
			spans[2*group], spans[2*group+1] = found[2*i+2], found[2*i+3]
		}
	}
	return spans
}

func (r *Regex) blank(spans []int) []int {
	n := 2 * len(r.names)
	if cap(spans) < n {
		spans = make([]int, n)
	}
	spans = spans[:n]
	for i := range spans {
		spans[i] = -1
	}
	return spans
}

func (p *program) verify(s []byte, found []int) bool {
	for i, group := range p.slots {
		if group < 0 && found[2*i+2] >= 0 && !p.checks[^group].holds(s, found[2*i+2], found[2*i+3]) {
			return false
		}
	}
	return true
}

// backtrack asks the exact engine, within its limits.
func (r *Regex) backtrack(s []byte, spans []int) []int {
	now := time.Now()
	if until := r.resting.Load(); until != 0 && now.UnixNano() < until {
		r.stats.skipped.Add(1)
		return nil
	}
	re, err := r.exact()
	if err != nil {
		r.stats.skipped.Add(1)
		return nil
	}
	r.stats.backtracked.Add(1)
	text, offsets := runes(s)
	m, err := re.FindRunesMatch(text)
	if err != nil {
		r.stats.timeouts.Add(1)
		if r.failing.Add(1) >= breakAfter {
			r.failing.Store(0)
			r.resting.Store(now.Add(breakFor).UnixNano())
		}
		return nil
	}
	r.failing.Store(0)
	if m == nil {
		return nil
	}
	r.stats.matched.Add(1)
	spans = r.blank(spans)
	at := func(i int) int {
		if offsets != nil {
			return offsets[i]
		}
		return i
	}
	spans[0], spans[1] = at(m.RuneIndex), at(m.RuneIndex+m.RuneLength)
	for i := 1; i < len(r.names); i++ {
		g := m.GroupByName(groupName(i))
		if g != nil && len(g.Captures) > 0 {
			spans[2*i], spans[2*i+1] = at(g.RuneIndex), at(g.RuneIndex+g.RuneLength)
		}
	}
	return spans
}

func groupName(i int) string { return fmt.Sprintf("g%d", i) }

// runes gives the text's characters, and each one's byte offset where they
// differ. A byte that is no UTF-8 is one U+FFFD, as Python's decoder says.
func runes(s []byte) (text []rune, offsets []int) {
	text = make([]rune, 0, len(s))
	wide := false
	for i, r := range string(s) {
		if r >= 0x80 && !wide {
			wide = true
			offsets = make([]int, len(text), len(s)+1)
			for j := range offsets {
				offsets[j] = j
			}
		}
		text = append(text, r)
		if wide {
			offsets = append(offsets, i)
		}
	}
	if wide {
		offsets = append(offsets, len(s))
	}
	return text, offsets
}

// IsASCII says that s holds no byte above 127.
func IsASCII(s []byte) bool {
	const high = 0x8080808080808080
	for ; len(s) >= 8; s = s[8:] {
		if binary.LittleEndian.Uint64(s)&high != 0 {
			return false
		}
	}
	for _, c := range s {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

// clip bounds foreign text that an error repeats.
func clip(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
