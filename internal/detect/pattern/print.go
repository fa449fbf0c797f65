package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
)

// errBeyondRE2 says that a construct has no form in the dialect asked for.
var errBeyondRE2 = errors.New("needs more than RE2")

// A printer writes a tree in the syntax of an engine.
type printer struct {
	b strings.Builder
	// re2 asks for RE2's syntax, else it is that of regexp2 (.NET).
	re2 bool
	// unicode asks for \d, \w and \s beyond ASCII, as Python has them.
	unicode bool
	// relaxed lets go of what RE2 cannot say: the result matches all that the
	// tree matches, and more. checks tell the more from the less.
	relaxed bool
	// slots[i] is the group that the (i+1)th parenthesis captures; a negative
	// one is ^check.
	slots  []int
	checks []check
	// unverifiable says that checks do not cover all that was let go.
	unverifiable bool
	inLoop       bool
	notFirst     bool
	wordBoundary bool
}

// maxRE2Repeat is regexp/syntax's own limit for {n,m}.
const maxRE2Repeat = 1000

func (p *printer) node(n *node) error {
	switch n.op {
	case opEmpty:
	case opLiteral:
		p.literal(string(n.r), n.fold)
	case opClass:
		return p.class(n)
	case opAny:
		if n.dotAll {
			p.b.WriteString(`(?s:.)`)
		} else {
			p.b.WriteString(`[^\n]`)
		}
	case opCat:
		return p.cat(n)
	case opAlt:
		p.b.WriteString("(?:")
		for i, s := range n.subs {
			if i > 0 {
				p.b.WriteByte('|')
			}
			if err := p.node(s); err != nil {
				return err
			}
		}
		p.b.WriteByte(')')
	case opGroup:
		return p.group(n)
	case opRepeat:
		return p.repeat(n)
	case opBegin, opTextBegin:
		switch {
		case p.notFirst:
			p.b.WriteString(`[^\x{0}-\x{10ffff}]`)
		case n.op == opBegin && n.multiline:
			p.b.WriteString(`(?m:^)`)
		default:
			p.b.WriteString(`\A`)
		}
	case opEnd:
		switch {
		case n.multiline:
			p.b.WriteString(`(?m:$)`)
		case p.re2:
			p.b.WriteString(`(?:\n?\z)`)
		default:
			p.b.WriteString(`(?=\n?\z)`)
		}
	case opTextEnd:
		p.b.WriteString(`\z`)
	case opWord:
		p.wordBoundary = true
		p.b.WriteString(`\b`)
	case opNotWord:
		p.wordBoundary = true
		p.b.WriteString(`\B`)
	default:
		return p.beyond(n)
	}
	return nil
}

// beyond prints look-around, references, conditionals and atomic groups.
func (p *printer) beyond(n *node) error {
	if p.re2 && !p.relaxed {
		return errBeyondRE2
	}
	if p.re2 {
		switch n.op {
		case opLook:
			p.look(n)
			return nil
		case opBackref:
			p.unverifiable = true
			p.b.WriteString(`(?s:.*?)`)
			return nil
		case opCond:
			p.unverifiable = true
			return p.node(&node{op: opAlt, subs: n.subs})
		default:
			p.unverifiable = true
			return p.node(&node{op: opGroup, subs: n.subs})
		}
	}
	var end string
	switch n.op {
	case opLook:
		open := map[[2]bool]string{{false, false}: "(?=", {false, true}: "(?!", {true, false}: "(?<=", {true, true}: "(?<!"}
		p.b.WriteString(open[[2]bool{n.behind, n.negative}])
		end = ")"
	case opBackref:
		if n.fold {
			fmt.Fprintf(&p.b, `(?i:\k<g%d>)`, n.index)
		} else {
			fmt.Fprintf(&p.b, `\k<g%d>`, n.index)
		}
		return nil
	case opCond:
		fmt.Fprintf(&p.b, `(?(g%d)`, n.index)
		for i, s := range n.subs {
			if i > 0 {
				p.b.WriteByte('|')
			}
			p.b.WriteString("(?:")
			if err := p.node(s); err != nil {
				return err
			}
			p.b.WriteByte(')')
		}
		p.b.WriteByte(')')
		return nil
	default:
		p.b.WriteString("(?>")
		end = ")"
	}
	if err := p.node(n.subs[0]); err != nil {
		return err
	}
	p.b.WriteString(end)
	return nil
}

func (p *printer) literal(s string, fold bool) {
	if fold && strings.ToLower(s) != strings.ToUpper(s) {
		p.b.WriteString("(?i:" + regexp.QuoteMeta(s) + ")")
		return
	}
	p.b.WriteString(regexp.QuoteMeta(s))
}

// cat joins neighbouring literals, so that engines see them as one.
func (p *printer) cat(n *node) error {
	for i := 0; i < len(n.subs); i++ {
		s := n.subs[i]
		if s.op != opLiteral {
			if err := p.node(s); err != nil {
				return err
			}
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
	return nil
}

func (p *printer) group(n *node) error {
	switch {
	case n.index == 0:
		p.b.WriteString("(?:")
	case p.re2:
		p.slots = append(p.slots, n.index)
		p.b.WriteByte('(')
	default:
		fmt.Fprintf(&p.b, "(?<g%d>", n.index)
	}
	if err := p.node(n.subs[0]); err != nil {
		return err
	}
	p.b.WriteByte(')')
	return nil
}

func (p *printer) repeat(n *node) error {
	low, high := n.min, n.max
	if p.re2 && (low > maxRE2Repeat || high > maxRE2Repeat) {
		if !p.relaxed {
			return errBeyondRE2
		}
		p.unverifiable = true
		low, high = min(low, maxRE2Repeat), -1
	}
	if n.possessive && p.re2 {
		if !p.relaxed {
			return errBeyondRE2
		}
		p.unverifiable = true
	}
	span := false
	if p.re2 && p.relaxed {
		if step := p.tempered(n); step != nil {
			span = true
			p.b.WriteByte('(')
			n = &node{op: opRepeat, subs: []*node{step}, max: -1, lazy: n.lazy}
		}
	}
	if n.possessive && !p.re2 {
		p.b.WriteString("(?>")
	}
	p.b.WriteString("(?:")
	outer := p.inLoop
	p.inLoop = outer || high < 0 || high > 1
	err := p.node(n.subs[0])
	p.inLoop = outer
	if err != nil {
		return err
	}
	p.b.WriteByte(')')
	switch {
	case low == 0 && high < 0:
		p.b.WriteByte('*')
	case low == 1 && high < 0:
		p.b.WriteByte('+')
	case low == 0 && high == 1:
		p.b.WriteByte('?')
	case high < 0:
		fmt.Fprintf(&p.b, "{%d,}", low)
	case low == high:
		fmt.Fprintf(&p.b, "{%d}", low)
	default:
		fmt.Fprintf(&p.b, "{%d,%d}", low, high)
	}
	if n.lazy {
		p.b.WriteByte('?')
	}
	if n.possessive && !p.re2 || span {
		p.b.WriteByte(')')
	}
	return nil
}

// class prints a set of characters.
func (p *printer) class(n *node) error {
	c := n.class
	var b strings.Builder
	b.WriteByte('[')
	if c.negative {
		b.WriteByte('^')
	}
	for _, r := range c.ranges {
		p.classRune(&b, r.low)
		if r.high != r.low {
			b.WriteByte('-')
			p.classRune(&b, r.high)
		}
	}
	for _, e := range c.escapes {
		b.WriteString(p.classEscape(e))
	}
	b.WriteByte(']')
	if n.fold && len(c.ranges) > 0 {
		p.b.WriteString("(?i:" + b.String() + ")")
	} else {
		p.b.WriteString(b.String())
	}
	return nil
}

func (p *printer) classRune(b *strings.Builder, r rune) {
	switch {
	case r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z':
		b.WriteRune(r)
	case p.re2:
		fmt.Fprintf(b, `\x{%x}`, r)
	case r <= 0xffff:
		fmt.Fprintf(b, `\u%04x`, r)
	default:
		b.WriteRune(r)
	}
}

// Python's \s: what str.isspace says, ASCII part and the whole.
const (
	asciiSpace   = `\x{9}-\x{d}\x{1c}-\x{20}`
	unicodeSpace = asciiSpace + `\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}`
	asciiNoSpace = `\x{0}-\x{8}\x{e}-\x{1b}\x{21}-\x{7f}`
)

func (p *printer) classEscape(e byte) string {
	if !p.re2 {
		return `\` + string(e)
	}
	if !p.unicode {
		switch e {
		case 's':
			return asciiSpace
		case 'S':
			return asciiNoSpace
		}
		return `\` + string(e)
	}
	switch e {
	case 'd':
		return `\p{Nd}`
	case 'D':
		return `\P{Nd}`
	case 'w':
		return `\pL\pN_`
	case 's':
		return unicodeSpace
	case 'S':
		return notSpace()
	}
	return notWord()
}

var notSpace = sync.OnceValue(func() string {
	return ranges(func(r rune) bool { return !isSpace(r) })
})

var notWord = sync.OnceValue(func() string {
	return ranges(func(r rune) bool { return !isWord(r) })
})

// isWord says what Python's \w does: str.isalnum or the underscore.
func isWord(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsNumber(r) }

// isSpace says what Python's \s does.
func isSpace(r rune) bool {
	return unicode.IsSpace(r) || r >= 0x1c && r <= 0x1f
}

// ranges writes every character that f takes as ranges of a class.
func ranges(f func(rune) bool) string {
	var b strings.Builder
	from := rune(-1)
	for r := rune(0); r <= unicode.MaxRune+1; r++ {
		switch in := r <= unicode.MaxRune && f(r); {
		case in && from < 0:
			from = r
		case !in && from >= 0:
			fmt.Fprintf(&b, `\x{%x}-\x{%x}`, from, r-1)
			from = -1
		}
	}
	return b.String()
}
