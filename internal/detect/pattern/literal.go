package pattern

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of the search for literals: enough for every filter of
// fail2ban, small enough that hostile expressions cost nothing.
const (
	maxLiterals = 24
	maxLiteral  = 48
)

// A literalSet holds the literals of a piece: the finite set of texts that it
// matches (exact), and the best set of which one must occur in it (needed).
type literalSet struct {
	exact  []string
	finite bool
	needed []string
}

// required gives texts in lower case, one of which stands in all that root
// matches even after a date was cut out of the line, or nil.
func required(root *node) []string {
	s := literalsOf(root)
	best := better(s.needed, candidate(s))
	slices.Sort(best)
	return slices.Compact(best)
}

func literalsOf(n *node) literalSet {
	switch n.op {
	case opEmpty, opBegin, opEnd, opTextBegin, opTextEnd, opWord, opNotWord, opLook:
		return literalSet{exact: []string{""}, finite: true}
	case opLiteral:
		if n.r >= utf8.RuneSelf && n.fold {
			return literalSet{}
		}
		return literalSet{exact: []string{lower(string(n.r))}, finite: true}
	case opClass:
		return classLiterals(n)
	case opGroup, opAtomic:
		return literalsOf(n.subs[0])
	case opAlt, opCond:
		return alternatives(n.subs)
	case opCat:
		return sequence(n.subs)
	case opRepeat:
		s := literalsOf(n.subs[0])
		switch {
		case n.min == 1 && n.max == 1:
			return s
		case n.min >= 1:
			return literalSet{needed: better(s.needed, candidate(s))}
		case n.max == 1 && s.finite && len(s.exact) < maxLiterals:
			return literalSet{exact: append([]string{""}, s.exact...), finite: true}
		}
	}
	return literalSet{}
}

func classLiterals(n *node) literalSet {
	c := n.class
	if c.negative || len(c.escapes) > 0 || n.fold {
		if !n.fold {
			return literalSet{}
		}
	}
	if c.negative || len(c.escapes) > 0 {
		return literalSet{}
	}
	var out []string
	for _, r := range c.ranges {
		if r.high-r.low > 4 || r.high >= utf8.RuneSelf && n.fold {
			return literalSet{}
		}
		for x := r.low; x <= r.high; x++ {
			out = append(out, lower(string(x)))
		}
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > 4 {
		return literalSet{}
	}
	return literalSet{exact: out, finite: true}
}

func alternatives(subs []*node) literalSet {
	out := literalSet{finite: true}
	needed := true
	for _, sub := range subs {
		s := literalsOf(sub)
		best := better(s.needed, candidate(s))
		needed = needed && best != nil
		out.needed = append(out.needed, best...)
		out.finite = out.finite && s.finite
		out.exact = append(out.exact, s.exact...)
	}
	if !needed || len(out.needed) > 4*maxLiterals {
		out.needed = nil
	}
	if len(out.exact) > maxLiterals {
		out.finite = false
	}
	if !out.finite {
		out.exact = nil
	}
	return out
}

func sequence(subs []*node) literalSet {
	run := literalSet{exact: []string{""}, finite: true}
	var best []string
	whole := true
	for _, sub := range subs {
		s := literalsOf(sub)
		best = better(best, s.needed)
		if s.finite {
			if product := cross(run.exact, s.exact); product != nil {
				run.exact = product
				best = better(best, candidate(run))
				continue
			}
		}
		whole = false
		run.exact = []string{""}
		if s.finite {
			run.exact = s.exact
			best = better(best, candidate(run))
		}
	}
	if !whole {
		return literalSet{needed: best}
	}
	return literalSet{exact: run.exact, finite: true, needed: best}
}

func cross(a, b []string) []string {
	if len(a)*len(b) > maxLiterals {
		return nil
	}
	var out []string
	for _, x := range a {
		for _, y := range b {
			if len(x)+len(y) > maxLiteral {
				return nil
			}
			out = append(out, x+y)
		}
	}
	return out
}

// candidate turns a finite set into texts to look for. A date may be cut out
// of a line between two characters that are no word characters, so such
// places split a text, and its longest piece is looked for.
func candidate(s literalSet) []string {
	if !s.finite || len(s.exact) == 0 {
		return nil
	}
	out := make([]string, 0, len(s.exact))
	for _, text := range s.exact {
		longest := ""
		from := 0
		for i := 1; i <= len(text); i++ {
			if i == len(text) || !isWordByte(text[i-1]) && !isWordByte(text[i]) || text[i-1] == '\n' || text[i] == '\n' {
				if i-from > len(longest) && text[from:i] != "\n" {
					longest = text[from:i]
				}
				from = i
			}
		}
		if longest == "" {
			return nil
		}
		out = append(out, longest)
	}
	return out
}

func isWordByte(c byte) bool { return isNameByte(c) || c >= utf8.RuneSelf }

// better chooses the set that fewer lines hold: longer texts, then fewer.
func better(a, b []string) []string {
	if a == nil || b != nil && score(b) > score(a) {
		return b
	}
	return a
}

func score(set []string) int {
	shortest := maxLiteral
	for _, s := range set {
		shortest = min(shortest, len(strings.TrimSpace(s)))
	}
	return 8*min(shortest, 24) - len(set)
}

// lower folds ASCII letters alone, as the scanner does.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
