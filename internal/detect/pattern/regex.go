// Package pattern runs the regular expressions of fail2ban's filters: Python's
// syntax with fail2ban's tags. Lines run on a matcher of our own that stops
// after so many steps as are in proportion to the line. The few that it gives
// up run on a backtracking engine that has a limit for a line and an allowance
// for all lines.
package pattern

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dlclark/regexp2/v2"
)

// MatchTimeout bounds one run of the backtracking engine: a thousand times
// the need of a log line, and short enough that a hostile line delays its
// source by no more than a scheduler does.
const MatchTimeout = 50 * time.Millisecond

// Options say how an expression is meant.
type Options struct {
	// Multiline is Python's re.MULTILINE, which fail2ban sets for maxlines > 1.
	Multiline bool
	// NoNames makes <HOST> mean an address only (usedns = no).
	NoNames bool
}

// A Regex is a compiled expression. It may be used by several goroutines.
type Regex struct {
	source   string
	expanded string
	names    []string
	tree     *tree
	literals []string
	// machine reads ASCII, wide the rest; nil where the machine does not know
	// all that the expression asks for. wide may give nil.
	machine, wide func() *machine

	exact     func() (*regexp2.Regexp, error)
	stats     counters
	allowance allowance
}

type counters struct{ searched, matched, steps, backtracked, timeouts, skipped atomic.Uint64 }

// Stats count an expression's searches.
type Stats struct {
	Searched, Matched uint64
	// Steps are those of the machine, a long run's as one in eight of its bytes.
	// Backtracked is how often it gave a line up to the backtracking engine.
	Steps, Backtracked uint64
	// Timeouts is how often the backtracking engine ran into [MatchTimeout],
	// Skipped how often it was not asked because its allowance was spent.
	Timeouts, Skipped uint64
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
		r.machine = sync.OnceValue(func() *machine { return assemble(t, nil) })
		r.wide = sync.OnceValue(func() *machine {
			if a := newAlphabet(t.root); a != nil {
				return assemble(t, a)
			}
			return nil
		})
	}
	r.exact = sync.OnceValues(func() (*regexp2.Regexp, error) {
		var p printer
		p.node(t.root)
		re, err := regexp2.Compile(p.b.String())
		if err == nil {
			re.MatchTimeout = MatchTimeout
		}
		return re, err
	})
	if r.machine == nil {
		if _, err := r.exact(); err != nil {
			return nil, fmt.Errorf("%q: %w: %w", clip(source), ErrSyntax, err)
		}
	}
	r.literals = required(t.root)
	return r, nil
}

// Source is the expression as it was written.
func (r *Regex) Source() string { return r.source }

// Expanded is the expression with its tags replaced.
func (r *Regex) Expanded() string { return r.expanded }

// Backtracks says that the expression is beyond the machine, so that every
// line of it runs on the backtracking engine.
func (r *Regex) Backtracks() bool { return r.machine == nil }

// Engine names the engine that the expression runs on.
func (r *Regex) Engine() string {
	if r.Backtracks() {
		return "backtracking"
	}
	return "steps"
}

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
		Searched: r.stats.searched.Load(), Matched: r.stats.matched.Load(), Steps: r.stats.steps.Load(), Backtracked: r.stats.backtracked.Load(),
		Timeouts: r.stats.timeouts.Load(), Skipped: r.stats.skipped.Load(),
	}
}

// Find searches s. spans[2*i] and spans[2*i+1] of the result bound group i,
// -1 where it took no part; the result reuses spans. ascii says that s holds
// no byte above 127. nil means no match.
func (r *Regex) Find(s []byte, ascii bool, spans []int) []int {
	r.stats.searched.Add(1)
	if m := r.machineFor(ascii); m != nil {
		found, how, steps := m.find(s, spans)
		r.stats.steps.Add(uint64(steps))
		switch how {
		case outcomeFound:
			r.stats.matched.Add(1)
			return found
		case outcomeNone:
			return nil
		}
		spans = found
	}
	return r.backtrack(s, spans)
}

// machineFor gives the machine for a text, nil where there is none.
func (r *Regex) machineFor(ascii bool) *machine {
	switch {
	case r.machine == nil:
		return nil
	case ascii:
		return r.machine()
	}
	return r.wide()
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

// backtrack asks the exact engine, within its limits.
func (r *Regex) backtrack(s []byte, spans []int) []int {
	started := time.Now()
	if !r.allowance.left(started) {
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
	r.allowance.spend(started, min(time.Since(started), MatchTimeout))
	if err != nil {
		r.stats.timeouts.Add(1)
		return nil
	}
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
