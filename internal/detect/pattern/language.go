package pattern

import "unicode/utf8"

// A language is a nondeterministic automaton for pieces of an expression. It
// takes at least the texts that they match: look-around and word boundaries are let go.
type language struct {
	states []state
	start  int
	accept int
}

// symbols are the ASCII characters and one for all others.
const symbols = utf8.RuneSelf + 1

type state struct {
	empty []int // may go on to these for nothing
	set   *[symbols]bool
	to    int
}

// These bound an automaton, and how many copies a counted repetition becomes;
// more is taken for any number.
const (
	maxStates = 20_000
	maxCopies = 16
)

// languageOf gives the language of nodes that follow each other. open says
// that any text may follow where no end of the text is asked for.
func languageOf(list []*node, open bool) *language {
	l := &language{}
	l.accept = l.state()
	last := l.accept
	if open {
		last = l.any(l.accept)
	}
	l.start = l.sequence(list, last)
	return l
}

func (l *language) state() int {
	l.states = append(l.states, state{to: -1})
	return len(l.states) - 1
}

func (l *language) full() bool { return len(l.states) > maxStates }

// any gives a state for every text before next.
func (l *language) any(next int) int {
	all := &[symbols]bool{}
	for i := range all {
		all[i] = true
	}
	loop := l.state()
	step := l.state()
	l.states[step].set, l.states[step].to = all, loop
	l.states[loop].empty = []int{step, next}
	return loop
}

func (l *language) sequence(list []*node, next int) int {
	for i := len(list) - 1; i >= 0; i-- {
		next = l.node(list[i], next)
	}
	return next
}

// node gives the state before n, which goes on to next.
func (l *language) node(n *node, next int) int {
	if l.full() {
		return next
	}
	switch n.op {
	case opLiteral, opClass, opAny:
		set := &[symbols]bool{}
		for c := range rune(utf8.RuneSelf) {
			set[c] = n.takes(c)
		}
		// Some character beyond ASCII: too many is safe.
		set[utf8.RuneSelf] = n.op != opLiteral && !digitsOnly(n) || n.op == opLiteral && n.r >= utf8.RuneSelf
		s := l.state()
		l.states[s].set, l.states[s].to = set, next
		return s
	case opCat:
		return l.sequence(n.subs, next)
	case opGroup, opAtomic:
		return l.node(n.subs[0], next)
	case opAlt, opCond:
		s := l.state()
		for _, sub := range n.subs {
			to := l.node(sub, next)
			l.states[s].empty = append(l.states[s].empty, to)
		}
		return s
	case opRepeat:
		return l.repeat(n, next)
	case opBackref:
		return l.any(next)
	case opEnd, opTextEnd:
		if !n.multiline {
			return l.accept
		}
	}
	return next
}

func (l *language) repeat(n *node, next int) int {
	if stop, step := without(n); step != nil {
		return l.tempered(stop, step, next)
	}
	out := next
	copies := n.max - n.min
	if n.max < 0 || n.max > maxCopies {
		loop := l.state()
		body := l.node(n.subs[0], loop)
		l.states[loop].empty = []int{body, next}
		out, copies = loop, 0
	}
	for range copies {
		s := l.state()
		body := l.node(n.subs[0], out)
		l.states[s].empty = []int{body, next}
		out = s
	}
	for range min(n.min, maxCopies) {
		out = l.node(n.subs[0], out)
	}
	return out
}

// without recognises (?:(?!stop)c)* and gives its parts.
func without(n *node) (stop string, step *node) {
	inner := n.subs[0]
	for inner.op == opGroup && inner.index == 0 {
		inner = inner.subs[0]
	}
	if n.max >= 0 || inner.op != opCat || len(inner.subs) != 2 {
		return "", nil
	}
	look := inner.subs[0]
	if look.op != opLook || look.behind || !look.negative || single(inner.subs[1]) == nil {
		return "", nil
	}
	for _, c := range flattened(look.subs) {
		if c.op != opLiteral || c.fold || c.r >= utf8.RuneSelf {
			return "", nil
		}
		stop += string(c.r)
	}
	return stop, single(inner.subs[1])
}

// tempered gives the state before any number of characters that step takes and
// in which stop does not stand.
func (l *language) tempered(stop string, step *node, next int) int {
	// at[k] is after the first k characters of stop.
	at := make([]int, len(stop))
	for k := range at {
		at[k] = l.state()
	}
	for k := range at {
		l.states[at[k]].empty = []int{next}
		sets := map[int]*[symbols]bool{}
		for c := range symbols {
			if c < utf8.RuneSelf && !step.takes(rune(c)) {
				continue
			}
			to := 0
			if c < utf8.RuneSelf {
				to = longest(stop, stop[:k]+string(rune(c)))
			}
			if to == len(stop) {
				continue
			}
			if sets[to] == nil {
				sets[to] = &[symbols]bool{}
			}
			sets[to][c] = true
		}
		for to := range at {
			if sets[to] != nil {
				s := l.state()
				l.states[s].set, l.states[s].to = sets[to], at[to]
				l.states[at[k]].empty = append(l.states[at[k]].empty, s)
			}
		}
	}
	if len(at) == 0 {
		return next
	}
	return at[0]
}

// longest gives how many characters of text's end begin stop.
func longest(stop, text string) int {
	for n := min(len(stop), len(text)); n > 0; n-- {
		if text[len(text)-n:] == stop[:n] {
			return n
		}
	}
	return 0
}

// closure adds the states that from reaches for nothing.
func (l *language) closure(from int, into []bool) []int {
	var list []int
	var add func(int)
	add = func(s int) {
		if into[s] {
			return
		}
		into[s] = true
		list = append(list, s)
		for _, next := range l.states[s].empty {
			add(next)
		}
	}
	add(from)
	return list
}

// meets says that some text is in both languages; a newline ends a text, and
// automatons that are too large are said to meet.
func (l *language) meets(o *language) bool {
	if l.full() || o.full() {
		return true
	}
	type pair struct{ a, b int }
	seen := map[pair]bool{}
	var queue []pair
	add := func(a, b int) {
		for _, x := range l.closure(a, make([]bool, len(l.states))) {
			for _, y := range o.closure(b, make([]bool, len(o.states))) {
				if p := (pair{x, y}); !seen[p] {
					seen[p] = true
					queue = append(queue, p)
				}
			}
		}
	}
	add(l.start, o.start)
	for len(queue) > 0 {
		p := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		if p.a == l.accept && p.b == o.accept {
			return true
		}
		if len(seen) > 40*maxStates {
			return true
		}
		x, y := &l.states[p.a], &o.states[p.b]
		if x.set == nil || y.set == nil {
			continue
		}
		for c := range symbols {
			if c != '\n' && x.set[c] && y.set[c] {
				add(x.to, y.to)
				break
			}
		}
	}
	return false
}
