package policy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/span"
	"banmesh/internal/strict"
)

// node is one part of a compiled expression.
type node struct {
	kind   nodeKind
	kids   []*node       // or, and
	need   int           // quorum: operators; weight: sum
	within time.Duration // quorum, weight: votes must have arrived this close together; 0 is any time
	group  *group        // quorum, weight
	text   string        // as written, for people
}

type nodeKind uint8

const (
	kindOr nodeKind = iota
	kindAnd
	kindQuorum
	kindWeight
)

// each calls f for n and everything below it; n may be nil.
func (n *node) each(f func(*node)) {
	if n == nil {
		return
	}
	f(n)
	for _, k := range n.kids {
		k.each(f)
	}
}

// maxExpression bounds an expression's length, and with it its depth.
const maxExpression = 1000

// word is a lexical unit of an expression; column counts from 1.
type word struct {
	text   string
	column int
}

// lex splits an expression into words, numbers with units, and ( ) , >=.
func lex(s string) []word {
	var words []word
	for i := 0; i < len(s); {
		start := i
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
			continue
		case isWordByte(c):
			for i < len(s) && isWordByte(s[i]) {
				i++
			}
		case c == '>' && i+1 < len(s) && s[i+1] == '=':
			i += 2
		default:
			i++
			for i < len(s) && s[i]&0xc0 == 0x80 { // keep a UTF-8 character whole
				i++
			}
		}
		words = append(words, word{s[start:i], start + 1})
	}
	return words
}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.'
}

// reserved words cannot name operators or groups.
var reserved = []string{
	"any", "all", "of", "or", "and", "within", "weight", "follow", "depth", "most", "never", "everyone",
	"hits", "tcp", "not", "ban", "watch",
}

// parser reads one expression. The first fault stops it.
type parser struct {
	key   string
	text  string
	words []word
	at    int
	names names
	fault *strict.Fault
	// warning is something that is allowed and hardly meant.
	warning *strict.Fault
}

// names resolves the names that expressions use.
type names interface {
	// resolve gives the group of a name, or of several together.
	resolve(of []string) *group
	known(name string) bool
	all() []string
}

func newParser(key, text string, n names) *parser {
	p := &parser{key: key, text: text, names: n}
	if len(text) > maxExpression {
		p.text = clip(text)
		p.fail(word{"", 1}, fmt.Sprintf("an expression has at most %d bytes", maxExpression), "use groups")
		return p
	}
	p.words = lex(text)
	return p
}

func (p *parser) fail(at word, message, hint string) {
	if p.fault == nil {
		p.fault = p.faultAt(at, message, hint)
	}
	p.at = len(p.words)
}

// faultAt is a fault at a word.
func (p *parser) faultAt(w word, message, hint string) *strict.Fault {
	return &strict.Fault{Path: p.key, Column: w.column, Text: message, Excerpt: strict.Underline(p.text, w.column, len(w.text)), Hint: hint}
}

// peek gives the next word, or an empty one at the end of the text.
func (p *parser) peek() word {
	if p.at < len(p.words) {
		return p.words[p.at]
	}
	return word{"", len(p.text) + 1}
}

func (p *parser) next() word {
	w := p.peek()
	p.at++
	return w
}

func (p *parser) accept(text string) bool {
	if p.peek().text == text {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(text, hint string) {
	if w := p.peek(); !p.accept(text) {
		p.fail(w, fmt.Sprintf("expected %q, got %s", text, quote(w)), hint)
	}
}

func quote(w word) string {
	if w.text == "" {
		return "the end"
	}
	return strconv.Quote(clip(w.text))
}

const ruleHint = "write `any of GROUP`, `2 of GROUP within 6h`, `weight of GROUP >= 100`, joined with `or` and `and`; or `never`"

// rule reads a whole ban, watch or dispute expression. nil stands for never.
func (p *parser) rule() *node {
	if p.fault != nil {
		return nil
	}
	if len(p.words) == 1 && p.accept("never") {
		return nil
	}
	n := p.or()
	if w := p.peek(); w.text != "" {
		p.fail(w, "unexpected "+quote(w), ruleHint)
	}
	return n
}

func (p *parser) or() *node {
	return p.join("or", kindOr, p.and)
}

func (p *parser) and() *node {
	return p.join("and", kindAnd, p.term)
}

func (p *parser) join(with string, kind nodeKind, part func() *node) *node {
	from := p.peek()
	first := part()
	if p.peek().text != with {
		return first
	}
	n := &node{kind: kind, kids: []*node{first}}
	for p.accept(with) {
		n.kids = append(n.kids, part())
	}
	n.text = p.since(from)
	return n
}

// since gives the text from a word to the one before the next.
func (p *parser) since(from word) string {
	if p.fault != nil || p.at == 0 || p.at > len(p.words) {
		return ""
	}
	last := p.words[p.at-1]
	return strings.Join(strings.Fields(p.text[from.column-1:last.column-1+len(last.text)]), " ")
}

func (p *parser) term() *node {
	from := p.next()
	n := &node{kind: kindQuorum}
	switch {
	case from.text == "(":
		inner := p.or()
		p.expect(")", "")
		return inner
	case from.text == "any":
		n.need = 1
	case from.text == "all":
		n.need = -1
	case from.text == "weight":
		n.kind = kindWeight
	case from.text == "never":
		p.fail(from, "`never` stands alone", "leave the rule out, or write `never` and nothing else")
	case from.text != "" && from.text[0] >= '0' && from.text[0] <= '9':
		k, err := strconv.Atoi(from.text)
		if err != nil || k < 1 || k > MaxOperators {
			p.fail(from, fmt.Sprintf("a quorum is a whole number from 1 to %d", MaxOperators), "")
		}
		n.need = k
	case p.names.known(from.text):
		p.fail(from, fmt.Sprintf("%q alone is no rule", clip(from.text)), "write `any of "+from.text+"`")
	default:
		hint := ruleHint
		if near := strict.Nearest(from.text, []string{"any", "all", "weight", "never"}); near != "" {
			hint = fmt.Sprintf("did you mean %q?", near)
		}
		p.fail(from, "expected `any`, a number, `weight` or `(`, got "+quote(from), hint)
	}
	p.expect("of", ruleHint)
	listFrom := p.peek()
	n.group = p.names.resolve(p.list())
	if n.kind == kindWeight {
		p.expect(">=", "write `weight of GROUP >= 100`")
		w := p.next()
		sum, err := strconv.Atoi(w.text)
		if err != nil || sum < 1 || sum > MaxOperators*MaxWeight {
			p.fail(w, "expected a weight, got "+quote(w), "write `weight of GROUP >= 100`")
		}
		n.need = sum
	}
	if p.accept("within") {
		w := p.next()
		d, err := span.Parse(w.text)
		if err != nil || d < time.Second || d == span.Permanent {
			p.fail(w, "expected a length of time, got "+quote(w), "write 90s, 10m, 6h, 7d or 2w")
		}
		n.within = d
	}
	if p.fault != nil {
		return n
	}
	n.text = p.since(from)
	seats := n.group.seats()
	if n.need < 0 {
		n.need = max(1, seats)
	}
	if n.kind == kindQuorum && n.need > seats {
		p.warning = p.faultAt(listFrom, fmt.Sprintf("%d of %d can never be reached", n.need, seats), "name more operators; all that is reached through one follow counts as one")
	}
	return n
}

// list reads `core` or `alice, bob`.
func (p *parser) list() []string {
	var list []string
	for {
		w := p.next()
		switch {
		case p.fault != nil:
			return nil
		case p.names.known(w.text):
			list = append(list, w.text)
		default:
			hint := "groups are defined in [groups], operators in [operators.NAME]"
			if near := strict.Nearest(w.text, p.names.all()); near != "" {
				hint = fmt.Sprintf("did you mean %q?", near)
			}
			p.fail(w, "no group or operator is called "+quote(w), hint)
			return nil
		}
		if !p.accept(",") {
			return list
		}
	}
}

// evidence reads `hits >= 3 and tcp`.
func (p *parser) evidence() (e evidence) {
	const hint = "write `hits >= 3`, `tcp`, or `hits >= 3 and tcp`"
	if p.fault != nil || len(p.words) == 0 {
		return e
	}
	for {
		switch w := p.next(); w.text {
		case "tcp":
			e.established = true
		case "hits":
			p.expect(">=", hint)
			w := p.next()
			n, err := strconv.Atoi(w.text)
			if err != nil || n < 1 || n > 255 {
				p.fail(w, "expected a number from 1 to 255, got "+quote(w), hint)
			}
			e.hits = n
		default:
			p.fail(w, "expected `hits` or `tcp`, got "+quote(w), hint)
		}
		if p.peek().text == "" {
			e.text = strings.Join(strings.Fields(p.text), " ")
			return e
		}
		p.expect("and", hint)
	}
}

// member is one entry of a group: an operator, or the follow of one's list.
type member struct {
	name        string
	follow      bool
	depth, most int
	weight      int // 0: the followed operator's
}

// Bounds of a follow.
const (
	maxDepth    = 2    // a friend's friend; farther, nobody knows whom they trust
	defaultMost = 25   // operators that one follow may bring
	maxMost     = 1000 //
)

// member reads `alice` or `follow alice depth 2 most 10 weight 40`.
func (p *parser) member() (m member) {
	const hint = "write `NAME` or `follow NAME depth 1 most 25`"
	if p.fault != nil {
		return m
	}
	m.follow = p.accept("follow")
	m.depth, m.most = 1, defaultMost
	w := p.next()
	m.name = w.text
	if !p.names.known(w.text) {
		h := hint
		if near := strict.Nearest(w.text, p.names.all()); near != "" {
			h = fmt.Sprintf("did you mean %q?", near)
		}
		p.fail(w, "no operator is called "+quote(w), h)
	}
	for p.fault == nil && m.follow && p.peek().text != "" {
		option := p.next()
		value := p.next()
		n, err := strconv.Atoi(value.text)
		var into *int
		high := 0
		switch option.text {
		case "depth":
			into, high = &m.depth, maxDepth
		case "most":
			into, high = &m.most, maxMost
		case "weight":
			into, high = &m.weight, MaxWeight
		default:
			p.fail(option, "unexpected "+quote(option), hint)
			return m
		}
		if err != nil || n < 1 || n > high {
			p.fail(value, fmt.Sprintf("%s is a number from 1 to %d, got %s", option.text, high, quote(value)), hint)
			return m
		}
		*into = n
	}
	if w := p.peek(); w.text != "" {
		p.fail(w, "unexpected "+quote(w), hint)
	}
	return m
}
