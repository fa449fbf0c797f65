package policy

import (
	"fmt"
	"strconv"
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
	weak   bool          // quorum: weak evidence counts too
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

// groups lists the groups that an expression names.
func (n *node) groups() (list []*group) {
	n.each(func(n *node) {
		if n.group != nil {
			list = append(list, n.group)
		}
	})
	return list
}

const ruleHint = "write `any of GROUP`, `2 of GROUP within 6h`, `weight of GROUP >= 100`, joined with `or` and `and`; or `never`"

// rule reads a whole ban, watch, suspect or dispute expression. nil stands for
// never.
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

func (p *parser) term() *node {
	from := p.peek()
	if p.accept("(") {
		inner := p.or()
		p.expect(")", "")
		return inner
	}
	n := &node{kind: kindQuorum}
	p.amount(n)
	if w := p.peek(); n.kind == kindQuorum && p.accept("weak") {
		if n.weak = true; n.need == 1 {
			p.fail(w, "weak evidence of one operator counts for nothing", "write `3 weak of GROUP`")
		}
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

// amount reads how many operators a term needs: `any`, `all`, a number, or
// `weight`.
func (p *parser) amount(n *node) {
	from := p.next()
	switch {
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
