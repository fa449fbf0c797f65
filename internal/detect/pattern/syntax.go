package pattern

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrSyntax says that a text is not a regular expression that Python's re
// module would take.
var ErrSyntax = errors.New("not a regular expression")

// maxSource bounds a regular expression. The longest one of fail2ban's own
// filters has 6 kB after its tags are expanded.
const maxSource = 64 << 10

// maxNesting bounds parentheses in parentheses, and so every recursion here.
const maxNesting = 200

// maxRepeat is the largest count in {n,m} that this package takes; Python
// allows 2^32, which no engine can hold.
const maxRepeat = 1 << 20

type op uint8

const (
	opEmpty op = iota
	opLiteral
	opClass
	opAny
	opCat
	opAlt
	opGroup     // capturing when index > 0
	opRepeat    // min, max (-1: no limit), lazy, possessive
	opBegin     // ^
	opEnd       // $
	opTextBegin // \A
	opTextEnd   // \Z
	opWord      // \b
	opNotWord   // \B
	opLook      // (?= (?! (?<= (?<!
	opBackref   // (?P=name) or \1
	opCond      // (?(group)yes|no)
	opAtomic    // (?>...)
)

// A node is a piece of a parsed regular expression.
type node struct {
	op         op
	r          rune
	fold       bool // ignore case
	class      *class
	subs       []*node
	min, max   int
	lazy       bool
	possessive bool
	index      int
	name       string
	negative   bool
	behind     bool
	multiline  bool
	dotAll     bool
	// text is how a repetition was written.
	text string
}

// A class is the content of brackets, or an escape such as \d.
type class struct {
	negative bool
	ranges   []runeRange
	escapes  []byte // of d w s D W S
}

type runeRange struct{ low, high rune }

// A tree is a whole parsed regular expression.
type tree struct {
	root   *node
	names  []string // names[i] is group i's name, "" when it has none
	byName map[string]int
}

type flags struct{ fold, multiline, dotAll, verbose bool }

type parser struct {
	s     string
	i     int
	depth int
	flags flags
	tree  *tree
}

// parse reads the syntax of Python 3.11's re module.
func parse(source string, multiline bool) (*tree, error) {
	if len(source) > maxSource {
		return nil, fmt.Errorf("%w: %d bytes are more than %d", ErrSyntax, len(source), maxSource)
	}
	p := &parser{s: source, tree: &tree{names: []string{""}, byName: map[string]int{}}}
	p.flags.multiline = multiline
	root, err := p.alternation()
	if err == nil && p.i < len(p.s) {
		err = p.fault("unbalanced )")
	}
	if err != nil {
		return nil, err
	}
	p.tree.root = root
	walk(root, func(n *node) {
		if n.op == opCond && n.index >= len(p.tree.names) {
			err = fmt.Errorf("%w: invalid group reference %d", ErrSyntax, n.index)
		}
	})
	return p.tree, err
}

func (p *parser) fault(what string) error {
	return fmt.Errorf("%w: %s at position %d", ErrSyntax, what, p.i)
}

func (p *parser) alternation() (*node, error) {
	if p.depth++; p.depth > maxNesting {
		return nil, p.fault("too deep nesting")
	}
	defer func() { p.depth-- }()
	var branches []*node
	for {
		n, err := p.concatenation()
		if err != nil {
			return nil, err
		}
		branches = append(branches, n)
		if p.i >= len(p.s) || p.s[p.i] != '|' {
			break
		}
		p.i++
	}
	if len(branches) == 1 {
		return branches[0], nil
	}
	return &node{op: opAlt, subs: branches}, nil
}

func (p *parser) concatenation() (*node, error) {
	var list []*node
	for p.i < len(p.s) && p.s[p.i] != '|' && p.s[p.i] != ')' {
		if p.flags.verbose && p.skipVerbose() {
			continue
		}
		start := p.i
		n, err := p.atom()
		if err != nil {
			return nil, err
		}
		if n == nil {
			continue
		}
		for {
			repeated, err := p.quantifier(n)
			if err != nil {
				return nil, err
			}
			if repeated == nil {
				break
			}
			if n.op == opRepeat && !n.possessive && repeated != n {
				return nil, p.fault("multiple repeat")
			}
			repeated.text = p.s[start:p.i]
			n = repeated
		}
		list = append(list, n)
	}
	switch len(list) {
	case 0:
		return &node{op: opEmpty}, nil
	case 1:
		return list[0], nil
	}
	return &node{op: opCat, subs: list}, nil
}

func (p *parser) skipVerbose() bool {
	switch c := p.s[p.i]; {
	case strings.IndexByte(" \t\n\r\f\v", c) >= 0:
		p.i++
	case c == '#':
		for p.i < len(p.s) && p.s[p.i] != '\n' {
			p.i++
		}
	default:
		return false
	}
	return true
}

// quantifier wraps n when a quantifier follows, and gives nil when none does.
func (p *parser) quantifier(n *node) (*node, error) {
	if p.i >= len(p.s) {
		return nil, nil
	}
	low, high := 0, -1
	switch p.s[p.i] {
	case '*':
		p.i++
	case '+':
		low = 1
		p.i++
	case '?':
		high = 1
		p.i++
	case '{':
		var ok bool
		var width int
		if low, high, width, ok = braces(p.s[p.i:]); !ok {
			return nil, nil
		}
		if low > maxRepeat || high > maxRepeat || high >= 0 && high < low {
			return nil, p.fault("bad repeat count")
		}
		p.i += width
	default:
		return nil, nil
	}
	switch n.op {
	case opBegin, opTextBegin:
		return nil, p.fault("nothing to repeat")
	}
	r := &node{op: opRepeat, subs: []*node{n}, min: low, max: high}
	if p.i < len(p.s) {
		switch p.s[p.i] {
		case '?':
			r.lazy = true
			p.i++
		case '+':
			r.possessive = true
			p.i++
		}
	}
	return r, nil
}

// braces reads {m}, {m,}, {,n} and {m,n}; anything else is a literal brace.
func braces(s string) (low, high, width int, ok bool) {
	end := strings.IndexByte(s, '}')
	if end < 0 {
		return 0, 0, 0, false
	}
	a, b, comma := strings.Cut(s[1:end], ",")
	if a == "" && !comma || a == "" && b == "" && !comma {
		return 0, 0, 0, false
	}
	number := func(t string, empty int) (int, bool) {
		if t == "" {
			return empty, true
		}
		if len(t) > 9 || strings.Trim(t, "0123456789") != "" {
			return 0, false
		}
		n, _ := strconv.Atoi(t)
		return n, true
	}
	if low, ok = number(a, 0); !ok {
		return 0, 0, 0, false
	}
	if !comma {
		return low, low, end + 1, true
	}
	high, ok = number(b, -1)
	return low, high, end + 1, ok
}

func (p *parser) atom() (*node, error) {
	c := p.s[p.i]
	switch c {
	case '.':
		p.i++
		return &node{op: opAny, dotAll: p.flags.dotAll}, nil
	case '^':
		p.i++
		return &node{op: opBegin, multiline: p.flags.multiline}, nil
	case '$':
		p.i++
		return &node{op: opEnd, multiline: p.flags.multiline}, nil
	case '(':
		return p.group()
	case '[':
		return p.bracket()
	case '\\':
		return p.escape()
	case '*', '+', '?':
		return nil, p.fault("nothing to repeat")
	}
	r, width := utf8.DecodeRuneInString(p.s[p.i:])
	p.i += width
	return &node{op: opLiteral, r: r, fold: p.flags.fold}, nil
}

func (p *parser) group() (*node, error) {
	start := p.i
	p.i++
	if !strings.HasPrefix(p.s[p.i:], "?") {
		return p.capture("")
	}
	rest := p.s[p.i+1:]
	switch {
	case strings.HasPrefix(rest, "P<"):
		end := strings.IndexByte(rest, '>')
		if end < 0 || !isName(rest[2:end]) {
			return nil, p.fault("bad group name")
		}
		p.i += 1 + end + 1
		return p.capture(rest[2:end])
	case strings.HasPrefix(rest, "P="):
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return nil, p.fault("missing )")
		}
		index, ok := p.tree.byName[rest[2:end]]
		if !ok {
			return nil, p.fault("unknown group name " + strconv.Quote(rest[2:end]))
		}
		p.i += 1 + end + 1
		return &node{op: opBackref, index: index, fold: p.flags.fold}, nil
	case strings.HasPrefix(rest, "#"):
		end := strings.IndexByte(rest, ')')
		if end < 0 {
			return nil, p.fault("missing )")
		}
		p.i += 1 + end + 1
		return nil, nil
	case strings.HasPrefix(rest, ":"):
		p.i += 2
		n, err := p.scoped(p.flags)
		return &node{op: opGroup, subs: []*node{n}}, err
	case strings.HasPrefix(rest, ">"):
		p.i += 2
		n, err := p.scoped(p.flags)
		return &node{op: opAtomic, subs: []*node{n}}, err
	case strings.HasPrefix(rest, "="), strings.HasPrefix(rest, "!"):
		p.i += 2
		n, err := p.scoped(p.flags)
		return &node{op: opLook, negative: rest[0] == '!', subs: []*node{n}}, err
	case strings.HasPrefix(rest, "<="), strings.HasPrefix(rest, "<!"):
		p.i += 3
		n, err := p.scoped(p.flags)
		return &node{op: opLook, behind: true, negative: rest[1] == '!', subs: []*node{n}}, err
	case strings.HasPrefix(rest, "("):
		return p.conditional(rest)
	}
	return p.flagGroup(start)
}

// scoped reads to the closing parenthesis; flags set inside end with it.
func (p *parser) scoped(with flags) (*node, error) {
	saved := p.flags
	p.flags = with
	n, err := p.alternation()
	p.flags = saved
	if err != nil {
		return nil, err
	}
	if p.i >= len(p.s) || p.s[p.i] != ')' {
		return nil, p.fault("missing )")
	}
	p.i++
	return n, nil
}

func (p *parser) capture(name string) (*node, error) {
	index := len(p.tree.names)
	if name != "" {
		if _, taken := p.tree.byName[name]; taken {
			return nil, p.fault("redefinition of group name " + strconv.Quote(name))
		}
		p.tree.byName[name] = index
	}
	p.tree.names = append(p.tree.names, name)
	n, err := p.scoped(p.flags)
	return &node{op: opGroup, index: index, name: name, subs: []*node{n}}, err
}

func (p *parser) conditional(rest string) (*node, error) {
	end := strings.IndexByte(rest, ')')
	if end < 0 {
		return nil, p.fault("missing )")
	}
	id := rest[1:end]
	index, ok := p.tree.byName[id]
	if !ok {
		n, err := strconv.Atoi(id)
		if err != nil || n < 1 || n > maxNesting {
			return nil, p.fault("unknown group name " + strconv.Quote(id))
		}
		index = n
	}
	p.i += 1 + end + 1
	n, err := p.scoped(p.flags)
	if err != nil {
		return nil, err
	}
	yes, no := n, &node{op: opEmpty}
	if n.op == opAlt {
		if len(n.subs) > 2 {
			return nil, p.fault("conditional with more than two branches")
		}
		yes, no = n.subs[0], n.subs[1]
	}
	return &node{op: opCond, index: index, subs: []*node{yes, no}}, nil
}

// flagGroup reads (?i), which holds to the end of the enclosing group here and
// for everything when it stands first, and (?i:...), (?-i:...).
func (p *parser) flagGroup(start int) (*node, error) {
	p.i = start + 2
	f, on := p.flags, true
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case 'i':
			f.fold = on
		case 'm':
			f.multiline = on
		case 's':
			f.dotAll = on
		case 'x':
			f.verbose = on
		case 'a', 'L', 'u':
		case '-':
			on = false
		case ')':
			p.i++
			p.flags = f
			return nil, nil
		case ':':
			p.i++
			n, err := p.scoped(f)
			return &node{op: opGroup, subs: []*node{n}}, err
		default:
			return nil, p.fault("unknown extension (?" + string(c))
		}
	}
	return nil, p.fault("missing )")
}

func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

func (p *parser) escape() (*node, error) {
	if p.i+1 >= len(p.s) {
		return nil, p.fault("bad escape (end of pattern)")
	}
	switch c := p.s[p.i+1]; c {
	case 'd', 'D', 'w', 'W', 's', 'S':
		p.i += 2
		return &node{op: opClass, class: &class{escapes: []byte{c}}}, nil
	case 'b':
		p.i += 2
		return &node{op: opWord}, nil
	case 'B':
		p.i += 2
		return &node{op: opNotWord}, nil
	case 'A':
		p.i += 2
		return &node{op: opTextBegin}, nil
	case 'Z':
		p.i += 2
		return &node{op: opTextEnd}, nil
	case '1', '2', '3', '4', '5', '6', '7', '8', '9':
		end := p.i + 2
		if end < len(p.s) && p.s[end] >= '0' && p.s[end] <= '9' {
			end++
		}
		index, _ := strconv.Atoi(p.s[p.i+1 : end])
		if index >= len(p.tree.names) {
			return nil, p.fault("invalid group reference")
		}
		p.i = end
		return &node{op: opBackref, index: index, fold: p.flags.fold}, nil
	}
	r, err := p.escapedRune()
	return &node{op: opLiteral, r: r, fold: p.flags.fold}, err
}

// escapedRune reads an escape that stands for one character.
func (p *parser) escapedRune() (rune, error) {
	c, width := utf8.DecodeRuneInString(p.s[p.i+1:])
	p.i += 1 + width
	switch c {
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'f':
		return '\f', nil
	case 'v':
		return '\v', nil
	case 'a':
		return '\a', nil
	case 'x':
		return p.number(2, 16)
	case 'u':
		return p.number(4, 16)
	case 'U':
		return p.number(8, 16)
	case '0':
		end := p.i
		for end < len(p.s) && end < p.i+2 && p.s[end] >= '0' && p.s[end] <= '7' {
			end++
		}
		v, _ := strconv.ParseInt("0"+p.s[p.i:end], 8, 32)
		p.i = end
		return rune(v), nil
	}
	if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
		return 0, p.fault(`bad escape \` + string(c))
	}
	return c, nil
}

func (p *parser) number(digits, base int) (rune, error) {
	if p.i+digits > len(p.s) {
		return 0, p.fault("incomplete escape")
	}
	v, err := strconv.ParseUint(p.s[p.i:p.i+digits], base, 32)
	if err != nil || v > utf8.MaxRune || v >= 0xd800 && v < 0xe000 {
		return 0, p.fault("bad character number")
	}
	p.i += digits
	return rune(v), nil
}

func (p *parser) bracket() (*node, error) {
	p.i++
	c := &class{}
	if p.i < len(p.s) && p.s[p.i] == '^' {
		c.negative = true
		p.i++
	}
	for first := true; ; first = false {
		if p.i >= len(p.s) {
			return nil, p.fault("unterminated character set")
		}
		if p.s[p.i] == ']' && !first {
			p.i++
			return &node{op: opClass, class: c, fold: p.flags.fold}, nil
		}
		low, escape, err := p.classItem()
		if err != nil {
			return nil, err
		}
		if escape != 0 {
			c.escapes = append(c.escapes, escape)
			continue
		}
		high := low
		if p.i+1 < len(p.s) && p.s[p.i] == '-' && p.s[p.i+1] != ']' {
			p.i++
			if high, escape, err = p.classItem(); err != nil {
				return nil, err
			}
			if escape != 0 || high < low {
				return nil, p.fault("bad character range")
			}
		}
		c.ranges = append(c.ranges, runeRange{low, high})
	}
}

func (p *parser) classItem() (r rune, escape byte, err error) {
	if p.s[p.i] != '\\' {
		r, width := utf8.DecodeRuneInString(p.s[p.i:])
		p.i += width
		return r, 0, nil
	}
	if p.i+1 >= len(p.s) {
		return 0, 0, p.fault("bad escape (end of pattern)")
	}
	switch c := p.s[p.i+1]; c {
	case 'd', 'D', 'w', 'W', 's', 'S':
		p.i += 2
		return 0, c, nil
	case 'b':
		p.i += 2
		return '\b', 0, nil
	}
	r, err = p.escapedRune()
	return r, 0, err
}
