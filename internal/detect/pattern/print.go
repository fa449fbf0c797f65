package pattern

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// A printer writes a tree in the syntax of regexp2, which is .NET's, so that
// it means the same as in Python.
type printer struct{ b strings.Builder }

func (p *printer) node(n *node) {
	switch n.op {
	case opEmpty:
	case opLiteral:
		p.literal(string(n.r), n.fold)
	case opClass:
		p.class(n)
	case opAny:
		if n.dotAll {
			p.b.WriteString(`(?s:.)`)
		} else {
			p.b.WriteString(`[^\n]`)
		}
	case opCat:
		p.cat(n)
	case opAlt:
		p.list("(?:", n.subs)
	case opGroup:
		if n.index == 0 {
			p.list("(?:", n.subs)
		} else {
			p.list(fmt.Sprintf("(?<g%d>", n.index), n.subs)
		}
	case opRepeat:
		p.repeat(n)
	case opBegin:
		if n.multiline {
			p.b.WriteString(`(?m:^)`)
		} else {
			p.b.WriteString(`\A`)
		}
	case opTextBegin:
		p.b.WriteString(`\A`)
	case opEnd:
		if n.multiline {
			p.b.WriteString(`(?m:$)`)
		} else {
			p.b.WriteString(`(?=\n?\z)`)
		}
	case opTextEnd:
		p.b.WriteString(`\z`)
	case opWord:
		p.b.WriteString(wordBoundary)
	case opNotWord:
		p.b.WriteString(noWordBoundary)
	case opLook:
		open := map[[2]bool]string{{false, false}: "(?=", {false, true}: "(?!", {true, false}: "(?<=", {true, true}: "(?<!"}
		p.list(open[[2]bool{n.behind, n.negative}], n.subs)
	case opBackref:
		if n.fold {
			fmt.Fprintf(&p.b, `(?i:\k<g%d>)`, n.index)
		} else {
			fmt.Fprintf(&p.b, `\k<g%d>`, n.index)
		}
	case opCond:
		fmt.Fprintf(&p.b, `(?(g%d)`, n.index)
		p.list("(?:", n.subs[:1])
		p.b.WriteByte('|')
		p.list("(?:", n.subs[1:])
		p.b.WriteByte(')')
	case opAtomic:
		p.list("(?>", n.subs)
	}
}

// list writes alternatives between a group's opening and its end.
func (p *printer) list(open string, subs []*node) {
	p.b.WriteString(open)
	for i, s := range subs {
		if i > 0 {
			p.b.WriteByte('|')
		}
		p.node(s)
	}
	p.b.WriteByte(')')
}

// Python's \b asks its own \w, which is not .NET's.
const (
	word           = `[\p{L}\p{N}_]`
	wordBoundary   = `(?:(?<=` + word + `)(?!` + word + `)|(?<!` + word + `)(?=` + word + `))`
	noWordBoundary = `(?:(?<=` + word + `)(?=` + word + `)|(?<!` + word + `)(?!` + word + `))`
)

func (p *printer) literal(s string, fold bool) {
	if fold && strings.ToLower(s) != strings.ToUpper(s) {
		p.b.WriteString("(?i:" + regexp.QuoteMeta(s) + ")")
		return
	}
	p.b.WriteString(regexp.QuoteMeta(s))
}

// cat joins neighbouring literals, so that the engine sees them as one.
func (p *printer) cat(n *node) {
	for i := 0; i < len(n.subs); i++ {
		s := n.subs[i]
		if s.op != opLiteral {
			p.node(s)
			continue
		}
		var run strings.Builder
		j := i
		for ; j < len(n.subs) && n.subs[j].op == opLiteral && n.subs[j].fold == s.fold; j++ {
			run.WriteRune(n.subs[j].r)
		}
		p.literal(run.String(), s.fold)
		i = j - 1
	}
}

func (p *printer) repeat(n *node) {
	if n.possessive {
		p.b.WriteString("(?>")
	}
	p.list("(?:", n.subs)
	switch {
	case n.min == 0 && n.max < 0:
		p.b.WriteByte('*')
	case n.min == 1 && n.max < 0:
		p.b.WriteByte('+')
	case n.min == 0 && n.max == 1:
		p.b.WriteByte('?')
	case n.max < 0:
		fmt.Fprintf(&p.b, "{%d,}", n.min)
	case n.min == n.max:
		fmt.Fprintf(&p.b, "{%d}", n.min)
	default:
		fmt.Fprintf(&p.b, "{%d,%d}", n.min, n.max)
	}
	if n.lazy {
		p.b.WriteByte('?')
	}
	if n.possessive {
		p.b.WriteByte(')')
	}
}

// class prints a set of characters.
func (p *printer) class(n *node) {
	c := n.class
	var b strings.Builder
	b.WriteByte('[')
	if c.negative {
		b.WriteByte('^')
	}
	for _, r := range c.ranges {
		classRune(&b, r.low)
		if r.high != r.low {
			b.WriteByte('-')
			classRune(&b, r.high)
		}
	}
	for _, e := range c.escapes {
		b.WriteString(classEscape(e))
	}
	b.WriteByte(']')
	if n.fold && len(c.ranges) > 0 {
		p.b.WriteString("(?i:" + b.String() + ")")
	} else {
		p.b.WriteString(b.String())
	}
}

func classRune(b *strings.Builder, r rune) {
	switch {
	case r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
		b.WriteRune(r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

// classEscape writes Python's \d, \w, \s and their opposites as a part of a
// set.
func classEscape(e byte) string {
	switch e {
	case 'd':
		return `\p{Nd}`
	case 'D':
		return `\P{Nd}`
	case 'w':
		return `\p{L}\p{N}_`
	case 's':
		return spaces()
	case 'S':
		return noSpaces()
	}
	return noWords()
}

var (
	spaces   = sync.OnceValue(func() string { return ranges(isSpace) })
	noSpaces = sync.OnceValue(func() string { return ranges(func(r rune) bool { return !isSpace(r) }) })
	noWords  = sync.OnceValue(func() string { return ranges(func(r rune) bool { return !isWord(r) }) })
)

// ranges writes every character that f takes as ranges of a set.
func ranges(f func(rune) bool) string {
	var b strings.Builder
	from := rune(-1)
	for r := rune(0); r <= unicode.MaxRune+1; r++ {
		switch in := r <= unicode.MaxRune && f(r); {
		case in && from < 0:
			from = r
		case !in && from >= 0:
			classRune(&b, from)
			b.WriteByte('-')
			classRune(&b, r-1)
			from = -1
		}
	}
	return b.String()
}
