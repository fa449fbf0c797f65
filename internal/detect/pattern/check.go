package pattern

import (
	"regexp"
)

// A check is an assertion that the relaxed form let go of: it says of the
// relaxed form's path whether the exact form would have taken it too. Both
// engines try paths in the same order and assertions only prune, so when the
// first path passes every check it is the exact engine's answer.
type check struct {
	// first looks at the start of the text, inside one byte before the place,
	// so that \b sees what stands there. inside is nil where first serves.
	first, inside *regexp.Regexp
	negative      bool
	// span says that the assertion stood before each character of a captured
	// stretch, else it stood at one point.
	span bool
}

// holds tells whether the assertion is true where the marker captured.
func (c *check) holds(s []byte, from, to int) bool {
	if c.span {
		at := c.first.FindIndex(s[from:])
		return at == nil || from+at[0] >= to
	}
	if from > 0 && c.inside != nil {
		return c.inside.Match(s[from-1:]) != c.negative
	}
	return c.first.Match(s[from:]) != c.negative
}

// look prints a marker for a look-ahead in the relaxed form.
func (p *printer) look(n *node) {
	if n.behind || p.inLoop {
		p.unverifiable = true
		return
	}
	c := check{negative: n.negative}
	if c.first = p.standalone(n.subs[0], `\A(?:`, false); c.first != nil && looksAround(n.subs[0]) {
		if c.inside = p.standalone(n.subs[0], `\A(?s:.)(?:`, true); c.inside == nil || p.unicode {
			c.first = nil
		}
	}
	if c.first == nil {
		p.unverifiable = true
		return
	}
	p.slots = append(p.slots, ^len(p.checks))
	p.checks = append(p.checks, c)
	p.b.WriteString("()")
}

// tempered recognises (?:(?!X)c)* where c is one character, adds its check and
// gives c; nil for anything else.
func (p *printer) tempered(n *node) *node {
	inner := n.subs[0]
	for inner.op == opGroup && inner.index == 0 {
		inner = inner.subs[0]
	}
	if p.inLoop || inner.op != opCat || len(inner.subs) != 2 || n.possessive || n.min != 0 || n.max >= 0 {
		return nil
	}
	look, step := inner.subs[0], inner.subs[1]
	if look.op != opLook || look.behind || !look.negative || step.op != opAny && step.op != opClass && step.op != opLiteral {
		return nil
	}
	re := p.standalone(look.subs[0], `(?:`, false)
	if re == nil || looksAround(look.subs[0]) {
		return nil
	}
	p.slots = append(p.slots, ^len(p.checks))
	p.checks = append(p.checks, check{first: re, negative: true, span: true})
	return step
}

// standalone compiles a piece so that it can run from the middle of a text,
// or gives nil where it captures or asserts in turn. With notFirst, ^ is never
// true.
func (p *printer) standalone(n *node, open string, notFirst bool) *regexp.Regexp {
	if !portable(n) {
		return nil
	}
	sub := printer{re2: true, unicode: p.unicode, notFirst: notFirst}
	if sub.node(n) != nil {
		return nil
	}
	re, err := regexp.Compile(open + sub.b.String() + ")")
	if err != nil {
		return nil
	}
	return re
}

// portable says that a piece captures nothing and asserts nothing.
func portable(n *node) bool {
	switch n.op {
	case opLook, opBackref, opCond, opAtomic:
		return false
	case opGroup:
		if n.index > 0 {
			return false
		}
	case opBegin:
		if n.multiline {
			return false
		}
	}
	for _, s := range n.subs {
		if !portable(s) {
			return false
		}
	}
	return true
}

// looksAround says that a piece asks what stands before it.
func looksAround(n *node) (yes bool) {
	walk(n, func(m *node) {
		yes = yes || m.op == opBegin || m.op == opTextBegin || m.op == opWord || m.op == opNotWord
	})
	return yes
}
