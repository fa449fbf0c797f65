package pattern

import (
	"bytes"
	"unicode/utf8"
)

// Nearly every line runs on the machine: a backtracking matcher over
// bytes that knows all of the syntax, look-around and back-references
// included, and stops after so many steps as are in proportion to the line. A
// line that takes more goes to the engine whose time is bounded by a clock.
// Characters beyond ASCII are a byte each, see [alphabet].

// These bound one search: lines of fail2ban's samples take a tenth of it, and
// the longest recursion stays within some megabytes of stack.
const (
	stepsPerByte = 24
	stepsAtLeast = 2000
	stepsAtMost  = 24 * (64 << 10)
)

type instKind uint8

const (
	instMatch instKind = iota
	instText
	instTextFold
	instSet
	instSetLoop
	instSplit
	instLoop
	instSave
	instBegin
	instEnd
	instLineBegin
	instLineEnd
	instTextEnd
	instWord
	instNotWord
	instLook
	instBackref
	instCond
	instAtomic
	instFail
	instLookText // a look at one text
	instLookSet  // a look at one character
	instRun      // a repetition that can end in one place only
	instKinds
)

type inst struct {
	kind     instKind
	lazy     bool
	negative bool
	fold     bool
	text     []byte
	set      *byteset
	min, max int // max -1: no limit
	slot     int // save, loop number, group
	width    int // of a look-behind
	next     *inst
	subs     []*inst
}

type machine struct {
	code      []code
	anchored  bool    // to the start of the text
	first     *table  // begins every match
	prefix    []byte  // begins every match
	lead      []*code // of an anchored one: texts and characters that come first
	slots     int
	loops     int
	loopsFill bool      // no iteration of any loop takes nothing
	memos     int       // endless repetitions of characters
	watched   []bool    // captures on which a match depends, by slot; nil for none
	alphabet  *alphabet // nil for one that reads ASCII alone
}

// maxLead is how many instructions are looked at before a search is begun.
const maxLead = 2

// maxUnroll bounds the copies that {n,m} of something long becomes.
const (
	maxUnroll = 16
	maxInsts  = 20_000
)

type assembler struct {
	m      *machine
	failed bool
	dry    bool // nothing but whether it can be built is asked
	count  int
}

// assembles says that a machine knows all that an expression asks for.
func assembles(t *tree) bool {
	a := &assembler{m: &machine{slots: 2 * len(t.names)}, dry: true}
	a.root(t)
	return !a.failed
}

// assemble builds a machine, or gives nil for syntax it does not know. Without an
// alphabet it reads ASCII alone.
func assemble(t *tree, wide *alphabet) *machine {
	m, entry, ok := instructions(t, wide)
	if !ok {
		return nil
	}
	m.anchored = entry.skipSaves().kind == instBegin
	if at := entry.skipSaves(); at.kind == instText {
		m.prefix = at.text
	}
	a := &assembler{m: m}
	m.code, m.first, m.memos = flatten(entry, a.set(&node{op: opAny}))
	m.loopsFill = true
	for i := range m.code {
		if c := &m.code[i]; c.kind == instLoop {
			m.loopsFill = m.loopsFill && c.fills
		}
	}
	for c := &m.code[0]; m.anchored && len(m.lead) < maxLead; c = c.next {
		if c.kind == instText || c.kind == instSet {
			m.lead = append(m.lead, c)
		} else if c.kind != instBegin && c.kind != instSave {
			break
		}
	}
	return m
}

func instructions(t *tree, wide *alphabet) (m *machine, entry *inst, ok bool) {
	a := &assembler{m: &machine{slots: 2 * len(t.names), alphabet: wide}}
	entry = a.root(t)
	return a.m, entry, !a.failed
}

func (a *assembler) root(t *tree) *inst {
	root := t.root
	if without := eliminate(root); without != nil {
		root = without // a branch that is known to be taken or not is seen through
	}
	return a.node(root, &inst{kind: instMatch})
}

func (i *inst) skipSaves() *inst {
	for i.kind == instSave {
		i = i.next
	}
	return i
}

func (a *assembler) new(i inst) *inst {
	if a.count++; a.count > maxInsts {
		a.failed = true
	}
	return &i
}

// node assembles n so that next follows it.
func (a *assembler) node(n *node, next *inst) *inst {
	if a.failed {
		return next
	}
	switch n.op {
	case opEmpty:
		return next
	case opLiteral:
		return a.literal(string(n.r), n.fold, next)
	case opClass, opAny:
		return a.new(inst{kind: instSet, set: a.set(n), next: next})
	case opCat:
		return a.cat(n, next)
	case opAlt:
		return a.alternatives(n.subs, next)
	case opGroup:
		if n.index == 0 {
			return a.node(n.subs[0], next)
		}
		end := a.new(inst{kind: instSave, slot: 2*n.index + 1, next: next})
		return a.new(inst{kind: instSave, slot: 2 * n.index, next: a.node(n.subs[0], end)})
	case opRepeat:
		return a.repeat(n, next)
	case opBackref:
		a.watch(n.index)
		return a.new(inst{kind: instBackref, slot: n.index, fold: n.fold, next: next})
	case opCond:
		a.watch(n.index)
		return a.new(inst{kind: instCond, slot: n.index, subs: []*inst{a.node(n.subs[0], next), a.node(n.subs[1], next)}})
	case opAtomic:
		return a.new(inst{kind: instAtomic, subs: []*inst{a.node(n.subs[0], &inst{kind: instMatch})}, next: next})
	case opLook:
		i := inst{kind: instLook, negative: n.negative, width: -1, next: next}
		if n.behind {
			if i.width = width(n.subs[0]); i.width < 0 {
				a.failed = true
			}
		}
		i.subs = []*inst{a.node(n.subs[0], &inst{kind: instMatch})}
		return a.new(i)
	}
	kinds := map[op]instKind{opBegin: instBegin, opEnd: instEnd, opTextBegin: instBegin, opTextEnd: instTextEnd, opWord: instWord, opNotWord: instNotWord}
	kind := kinds[n.op]
	if n.multiline && n.op == opBegin {
		kind = instLineBegin
	}
	if n.multiline && n.op == opEnd {
		kind = instLineEnd
	}
	return a.new(inst{kind: kind, next: next})
}

// watch notes that the match depends on a group.
func (a *assembler) watch(group int) {
	if a.m.watched == nil {
		a.m.watched = make([]bool, a.m.slots)
	}
	a.m.watched[2*group], a.m.watched[2*group+1] = true, true
}

func (a *assembler) alternatives(subs []*node, next *inst) *inst {
	split := a.new(inst{kind: instSplit})
	for i, s := range subs {
		if i == maxWays-1 && len(subs) > maxWays {
			split.subs = append(split.subs, a.alternatives(subs[i:], next))
			break
		}
		split.subs = append(split.subs, a.node(s, next))
	}
	return split
}

// literal assembles a text, character by character where one beyond ASCII has
// other cases.
func (a *assembler) literal(s string, fold bool, next *inst) *inst {
	if !fold || lower(s) == upper(s) && isASCII(s) {
		return a.new(inst{kind: instText, text: a.classes(s), next: next})
	}
	if isASCII(s) {
		return a.new(inst{kind: instTextFold, text: []byte(lower(s)), next: next})
	}
	text := []rune(s)
	for i := len(text) - 1; i >= 0; i-- {
		n := &node{op: opLiteral, r: text[i], fold: true}
		next = a.new(inst{kind: instSet, set: a.set(n), next: next})
	}
	return next
}

// classes gives a text as the machine sees it. No ASCII machine sees what
// stands for a character beyond ASCII.
func (a *assembler) classes(s string) []byte {
	out := make([]byte, 0, len(s))
	for _, r := range s {
		switch {
		case r < utf8.RuneSelf:
			out = append(out, byte(r))
		case a.m.alphabet == nil:
			out = append(out, 0xff)
		default:
			out = append(out, a.m.alphabet.class(r))
		}
	}
	return out
}

// isASCII says that s is ASCII.
func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

func upper(s string) string { return string(bytes.ToUpper([]byte(s))) }

// cat assembles from the end and joins literals.
func (a *assembler) cat(n *node, next *inst) *inst {
	for i := len(n.subs) - 1; i >= 0; i-- {
		s := n.subs[i]
		if s.op != opLiteral {
			next = a.node(s, next)
			continue
		}
		j := i
		for j > 0 && n.subs[j-1].op == opLiteral && n.subs[j-1].fold == s.fold {
			j--
		}
		var text []rune
		for _, l := range n.subs[j : i+1] {
			text = append(text, l.r)
		}
		next = a.literal(string(text), s.fold, next)
		i = j
	}
	return next
}

func single(n *node) *node {
	for n.op == opGroup && n.index == 0 {
		n = n.subs[0]
	}
	if n.op == opClass || n.op == opAny || n.op == opLiteral {
		return n
	}
	return nil
}

func (a *assembler) repeat(n *node, next *inst) *inst {
	if n.possessive {
		copied := *n
		copied.possessive = false
		return a.node(&node{op: opAtomic, subs: []*node{&copied}}, next)
	}
	if s := single(n.subs[0]); s != nil {
		return a.new(inst{kind: instSetLoop, set: a.set(s), min: n.min, max: n.max, lazy: n.lazy, next: next})
	}
	if n.min > maxUnroll || n.max > maxUnroll {
		a.failed = true
		return next
	}
	out := next
	if n.max < 0 {
		loop := a.new(inst{kind: instLoop, lazy: n.lazy, slot: a.m.loops, next: next})
		a.m.loops++
		loop.subs = []*inst{a.node(n.subs[0], loop)}
		out = loop
	} else {
		for range n.max - n.min {
			body := a.node(n.subs[0], out)
			split := a.new(inst{kind: instSplit, subs: []*inst{body, next}})
			if n.lazy {
				split.subs = []*inst{next, body}
			}
			out = split
		}
	}
	for range n.min {
		out = a.node(n.subs[0], out)
	}
	return out
}

// width gives the fixed number of characters that n matches, -1 for none.
func width(n *node) int {
	switch n.op {
	case opEmpty, opBegin, opEnd, opTextBegin, opTextEnd, opWord, opNotWord, opLook:
		return 0
	case opLiteral, opClass, opAny:
		return 1
	case opGroup, opAtomic:
		return width(n.subs[0])
	case opRepeat:
		if w := width(n.subs[0]); n.min == n.max && w >= 0 {
			return w * n.min
		}
	case opCat:
		sum := 0
		for _, s := range n.subs {
			w := width(s)
			if w < 0 {
				return -1
			}
			sum += w
		}
		return sum
	case opAlt:
		w := width(n.subs[0])
		for _, s := range n.subs[1:] {
			if width(s) != w {
				return -1
			}
		}
		return w
	}
	return -1
}

// set gives the bytes that a one-character node takes.
func (a *assembler) set(n *node) *byteset {
	if a.dry {
		return nil
	}
	set := asciiSet(n)
	if a.m.alphabet != nil {
		a.m.alphabet.each(func(class byte, r rune) {
			if n.takes(r) {
				set.add(class)
			}
		})
	}
	return set
}

// asciiSet gives the ASCII characters that a one-character node takes.
func asciiSet(n *node) *byteset {
	var set byteset
	for c := range byte(utf8.RuneSelf) {
		if n.takes(rune(c)) {
			set.add(c)
		}
	}
	return &set
}
