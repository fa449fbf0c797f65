package pattern

import (
	"regexp"
)

// A check is an assertion that the relaxed form let go of: it says of the
// relaxed form's path whether the exact form would have taken it too. Both
// engines try paths in the same order and assertions only prune, so when the
// first path passes every check it is the exact engine's answer.
type check struct {
	re       *regexp.Regexp
	negative bool
	// span says that the assertion stood before each character of a captured
	// stretch, else it stood at one point.
	span bool
}

// holds tells whether the assertion is true where the marker captured.
func (c *check) holds(s []byte, from, to int) bool {
	if !c.span {
		return c.re.Match(s[from:]) != c.negative
	}
	at := c.re.FindIndex(s[from:])
	return at == nil || from+at[0] >= to
}

// look prints a marker for a look-ahead in the relaxed form.
func (p *printer) look(n *node) {
	if n.behind || p.inLoop {
		p.unverifiable = true
		return
	}
	re := p.standalone(n.subs[0], `\A(?:`)
	if re == nil {
		p.unverifiable = true
		return
	}
	p.slots = append(p.slots, ^len(p.checks))
	p.checks = append(p.checks, check{re: re, negative: n.negative})
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
	re := p.standalone(look.subs[0], `(?:`)
	if re == nil {
		return nil
	}
	p.slots = append(p.slots, ^len(p.checks))
	p.checks = append(p.checks, check{re: re, negative: true, span: true})
	return step
}

// standalone compiles a piece so that it can run from the middle of a text,
// or gives nil where it looks back or captures.
func (p *printer) standalone(n *node, open string) *regexp.Regexp {
	if !portable(n) {
		return nil
	}
	sub := printer{re2: true, unicode: p.unicode}
	if sub.node(n) != nil {
		return nil
	}
	re, err := regexp.Compile(open + sub.b.String() + ")")
	if err != nil {
		return nil
	}
	return re
}

// portable says that a piece neither captures nor asks what stood before it.
func portable(n *node) bool {
	switch n.op {
	case opBegin, opTextBegin, opWord, opNotWord, opLook, opBackref, opCond, opAtomic:
		return false
	case opGroup:
		if n.index > 0 {
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
