package pattern

import (
	"slices"
	"strings"
)

// A line holds a client's texts: a user name, a path, a reason. An
// expression can be moved when such a text can make it take an address out of
// the text in place of the one that the program wrote. That needs a repetition
// before the address that may cross the text, and room for the real address
// between the one in the text and the end of the line.

// A Weakness says how a client moves an address group.
type Weakness struct {
	// Group is the group that is moved, Field the part that the client's text may cross:
	// the name of a group, else a repetition as it is written.
	Group, Field string
	// Open says that nothing holds the expression to the start of the line.
	Open bool
	// Shown says that a text exists which moves the group. Else it takes a second
	// text of a client's, behind the address.
	Shown bool
}

// Weaknesses gives the ways to move the groups that name an offender. prefix is
// the expression whose <F-CONTENT> this one sees, nil where it sees the line.
func (r *Regex) Weaknesses(prefix *Regex) []Weakness {
	root := r.tree.root
	before, after, anchored := []*node(nil), []*node(nil), false
	w := &weaknesses{seen: map[Weakness]bool{}}
	if prefix != nil {
		if content := prefix.Group("content"); content > 0 {
			visit(prefix.tree.root, nil, nil, func(n *node, b, a []*node) {
				if n.op == opGroup && n.index == content {
					before, after = b, a
				}
			})
			anchored = true
		}
		visit(prefix.tree.root, nil, nil, func(n *node, b, a []*node) { w.look(n, b, a) })
	}
	visit(root, nil, nil, func(n *node, b, a []*node) {
		if !anchored {
			w.look(n, b, a)
			return
		}
		// The content begins where the prefix says, if the expression does.
		if len(b) == 0 || !isBegin(b[0]) {
			b = append([]*node{anything}, b...)
		} else {
			b = b[1:]
		}
		w.look(n, append(append([]*node{}, before...), b...), append(append([]*node{}, content(a)...), after...))
	})
	return w.list
}

// anything stands for whatever a search passes over.
var anything = &node{op: opRepeat, max: -1, subs: []*node{{op: opAny}}, text: "the start of the line"}

// content replaces the end of a content by that of the prefix around it.
func content(after []*node) []*node {
	out := append([]*node{}, after...)
	if len(out) > 0 {
		if last := out[len(out)-1]; last.op == opEnd && !last.multiline || last.op == opTextEnd {
			return out[:len(out)-1]
		}
	}
	return append(out, anything)
}

func isBegin(n *node) bool { return n.op == opTextBegin || n.op == opBegin && !n.multiline }

// visit calls f with every group and with the pieces before and after it on
// its way through the expression.
func visit(n *node, before, after []*node, f func(n *node, before, after []*node)) {
	switch n.op {
	case opGroup:
		f(n, before, after)
		visit(n.subs[0], before, after, f)
	case opAtomic:
		visit(n.subs[0], before, after, f)
	case opCat:
		for i, sub := range n.subs {
			if !hasGroups(sub) {
				continue
			}
			visit(sub, append(append([]*node{}, before...), n.subs[:i]...), append(append([]*node{}, n.subs[i+1:]...), after...), f)
		}
	case opAlt, opCond:
		for _, sub := range n.subs {
			visit(sub, before, after, f)
		}
	case opRepeat:
		if n.max < 0 || n.max > 1 {
			// It may stand before and after itself.
			before, after = append(append([]*node{}, before...), n), append([]*node{n}, after...)
		}
		visit(n.subs[0], before, after, f)
	}
}

func hasGroups(n *node) (yes bool) {
	walk(n, func(m *node) { yes = yes || m.op == opGroup && m.index > 0 })
	return yes
}

type weaknesses struct {
	seen map[Weakness]bool
	list []Weakness
}

func (w *weaknesses) add(x Weakness) {
	if !w.seen[x] {
		w.seen[x] = true
		w.list = append(w.list, x)
	}
}

// look judges one group with the pieces before and after it.
func (w *weaknesses) look(n *node, before, after []*node) {
	if n.name != "ip4" && n.name != "ip6" && n.name != "fid" {
		return
	}
	before = flattened(before)
	from, i, field := crossing(before)
	open := len(before) == 0 || !isBegin(before[0])
	if i < 0 && open {
		i, field = -1, ""
	} else if i < 0 {
		return // all before it has one length
	}
	middle := append(append([]*node{anything}, before[i+1:]...), n, anything)
	if fixed, ok := w.fixed(before[:i+1], after); ok {
		after = fixed
	}
	again := languageOf(middle, false)
	shown := languageOf(after, true).meets(again)
	held := !shown
	if held && slices.ContainsFunc(flattened(after), crosses) {
		// The rest of the line may be a client's too, so an address in it must
		// not be mistaken for the one before either.
		held = i >= 0 && !open && !languageOf(before[from:i+1], false).meets(again)
	}
	if held {
		return
	}
	w.add(Weakness{Group: n.name, Field: field, Open: i < 0, Shown: shown})
}

// slack is how much longer one fixed rest of a line may be than another for a
// text that the line repeats after the address to hold the address in place: a
// name U that forges is shorter than the real one by a whole address at least,
// twice.
const slack = 26

// fixed sees through a reference to a group that stands before the address:
// the program's repetition of the client's text after the address cannot be
// shorter or longer than it was.
func (w *weaknesses) fixed(before, after []*node) ([]*node, bool) {
	flat := flattened(after)
	for i, n := range flat {
		if n.op != opBackref || !holdsGroup(before, n.index) {
			continue
		}
		rest := append(append([]*node{}, flat[:i]...), flat[i+1:]...)
		if low, high := lengths(rest); high >= 0 && high-low <= slack {
			return rest, true
		}
	}
	return nil, false
}

func holdsGroup(list []*node, index int) (yes bool) {
	for _, n := range list {
		walk(n, func(m *node) { yes = yes || m.op == opGroup && m.index == index })
	}
	return yes
}

// lengths gives the least and most characters that nodes match, -1 for no
// limit.
func lengths(list []*node) (low, high int) {
	add := func(l, h int) {
		low += l
		if high < 0 || h < 0 {
			high = -1
		} else {
			high += h
		}
	}
	for _, n := range list {
		switch n.op {
		case opLiteral, opClass, opAny:
			add(1, 1)
		case opCat:
			add(lengths(n.subs))
		case opGroup, opAtomic:
			add(lengths(n.subs[:1]))
		case opBackref:
			add(0, -1)
		case opAlt, opCond:
			l, h := lengths(n.subs[:1])
			for _, s := range n.subs[1:] {
				a, b := lengths([]*node{s})
				l = min(l, a)
				if h >= 0 && b >= 0 {
					h = max(h, b)
				} else {
					h = -1
				}
			}
			add(l, h)
		case opRepeat:
			l, h := lengths(n.subs)
			if n.max < 0 || h < 0 {
				add(l*n.min, -1)
			} else {
				add(l*n.min, h*n.max)
			}
		}
	}
	return low, high
}

// flattened gives a sequence without groups around sequences.
func flattened(list []*node) []*node {
	var out []*node
	for _, n := range list {
		switch {
		case n.op == opCat:
			out = append(out, flattened(n.subs)...)
		case n.op == opGroup && n.index == 0 || n.op == opAtomic:
			out = append(out, flattened(n.subs[:1])...)
		case n.op == opGroup && n.subs[0].op != opAlt && n.name != "" && n.name != hostGroup && !strings.HasPrefix(n.name, ownGroup) && !crosses(n):
			out = append(out, flattened(n.subs[:1])...)
		case n.op == opEmpty:
		default:
			out = append(out, n)
		}
	}
	return out
}

// headerWords is how many words without a space a line may begin with that
// nobody but the logging service writes: a host name, and a date's rest. A tag
// may follow, which ends in a colon and a space.
const headerWords = 2

// A header follows a line's beginning as far as a logging service wrote it.
type header struct {
	over    bool
	words   int
	pending int  // a piece of the word at hand that repeats, -1 for none
	letters bool // the word at hand has letters of its own
	colon   bool // it ends in a colon
}

// blank ends a word, and gives the piece of it that a client's text may be, -1
// for none.
func (h *header) blank() int {
	pending, tag := h.pending, h.colon
	switch {
	case h.over || pending < 0 && !h.letters:
		pending = -1
	case tag:
		h.over, pending = true, -1
	case h.letters:
		h.over = true
	default:
		pending = h.word(pending)
	}
	h.pending, h.letters, h.colon = -1, false, false
	return pending
}

// word counts a word of the header.
func (h *header) word(at int) int {
	if h.words++; h.words <= headerWords {
		return -1
	}
	h.over = true
	return at
}

// crossing gives the first and the last element of a sequence that may cross a
// client's text, and the last one's name; -1 for none.
func crossing(list []*node) (from, index int, field string) {
	from, index = -1, -1
	h := header{pending: -1}
	for i, n := range list {
		at := -1
		switch {
		case isBlank(n):
			at = h.blank()
		case !crosses(n):
			h.letters = h.letters || n.op != opBegin && n.op != opTextBegin && !n.numeric()
			h.colon = n.op == opLiteral && n.r == ':'
		case h.over || !wordwise(n):
			h.over, at = true, i
		case endsBlank(n):
			at = h.word(i)
		default:
			h.pending = i
		}
		if at >= 0 && from < 0 {
			from = at
		}
		if at >= 0 {
			index = at
		}
	}
	if !h.over && h.pending >= 0 {
		index = h.pending
		if from < 0 {
			from = index
		}
	}
	if index >= 0 {
		field = crossingName(list[index])
	}
	return from, index, field
}

func isBlank(n *node) bool {
	switch n.op {
	case opRepeat:
		return isBlank(n.subs[0])
	case opLiteral, opClass:
		for c := range rune(0x80) {
			if n.takes(c) && c != ' ' && (c < '\t' || c > '\r') && (c < 0x1c || c > 0x1f) {
				return false
			}
		}
		return true
	}
	return false
}

// endsBlank says that a piece ends in a space wherever it is not empty.
func endsBlank(n *node) bool {
	switch n.op {
	case opGroup, opRepeat, opAtomic:
		return endsBlank(n.subs[0])
	case opCat:
		return endsBlank(n.subs[len(n.subs)-1])
	case opAlt:
		for _, s := range n.subs {
			if !endsBlank(s) {
				return false
			}
		}
		return true
	}
	return isBlank(n)
}

// crosses says that a piece repeats characters of which a client's text may be
// made.
func crosses(n *node) (yes bool) {
	if n.op == opGroup && (n.name == hostGroup && hostOnly(n) || strings.HasPrefix(n.name, ownGroup) && wordwise(n)) {
		return false
	}
	if n.op == opGroup || n.op == opCat || n.op == opAlt || n.op == opRepeat && n.max >= 0 && n.max <= 3 {
		for _, s := range n.subs {
			yes = yes || crosses(s)
		}
		return yes
	}
	walk(n, func(m *node) {
		if m.op == opRepeat && (m.max < 0 || m.max > 3) && !m.subs[0].numeric() || m.op == opBackref {
			yes = true
		}
	})
	return yes
}

// ownGroup begins the name of a group of a word that the program or the machine
// chose, and no client: <F-OWN>\S+</F-OWN>.
const ownGroup = "own"

// hostGroup names a group of a host name that the program looked up itself:
// <F-HOSTNAME>[\w.-]+</F-HOSTNAME>. No such name holds the character that ends it.
const hostGroup = "hostname"

// hostOnly says that a piece takes nothing but the characters of host names.
func hostOnly(n *node) bool {
	ok := true
	walk(n, func(m *node) {
		switch m.op {
		case opLiteral, opClass, opAny:
			for c := range rune(0x80) {
				if m.takes(c) && !isNameByte(byte(c)) && c != '.' && c != '-' {
					ok = false
				}
			}
		}
	})
	return ok
}

// numeric says that a piece matches numbers, spaces and the separators of
// numbers, alone.
func (n *node) numeric() bool {
	ok := true
	walk(n, func(m *node) {
		switch m.op {
		case opLiteral, opClass, opAny:
			for c := range rune(symbols) {
				if m.takes(c) && strings.IndexByte("0123456789abcdefABCDEF .:,*#-\t\n\v\f\r\x1c\x1d\x1e\x1f", byte(c)) < 0 {
					ok = ok && c >= 0x80 && digitsOnly(m)
				}
			}
		}
	})
	return ok
}

// digitsOnly says that a set takes nothing but digits and spaces beyond ASCII.
func digitsOnly(n *node) bool {
	if n.op != opClass || n.class.negative {
		return false
	}
	for _, e := range n.class.escapes {
		if e != 'd' && e != 's' {
			return false
		}
	}
	for _, r := range n.class.ranges {
		if r.high >= 0x80 {
			return false
		}
	}
	return true
}

// wordwise says that a piece repeats no space.
func wordwise(n *node) bool {
	ok := true
	walk(n, func(m *node) {
		if m.op == opRepeat && (m.max < 0 || m.max > 3) && !m.subs[0].numeric() {
			walk(m.subs[0], func(c *node) {
				if (c.op == opLiteral || c.op == opClass || c.op == opAny) && c.takes(' ') {
					ok = false
				}
			})
		}
	})
	return ok
}

// crossingName names a crossing piece: a group in it, else the repetition's text.
func crossingName(n *node) string {
	name := ""
	walk(n, func(m *node) {
		if m.op == opGroup && m.name != "" && crosses(m) && name == "" {
			name = "<" + m.name + ">"
		}
	})
	walk(n, func(m *node) {
		if name == "" && m.op == opRepeat && (m.max < 0 || m.max > 3) && !m.subs[0].numeric() {
			name = m.text
		}
	})
	return name
}
