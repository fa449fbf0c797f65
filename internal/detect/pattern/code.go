package pattern

import "encoding/binary"

// A byteset is a set of bytes, and whether the end of the text is in it.
type byteset struct {
	bits [4]uint64
	end  bool
}

func (b *byteset) has(c byte) bool { return b.bits[c>>6]&(1<<(c&63)) != 0 }

func (b *byteset) add(c byte) { b.bits[c>>6] |= 1 << (c & 63) }

func (b *byteset) join(other *byteset) {
	for i, w := range other.bits {
		b.bits[i] |= w
	}
	b.end = b.end || other.end
}

func (b *byteset) disjoint(other *byteset) bool {
	for i, w := range other.bits {
		if b.bits[i]&w != 0 {
			return false
		}
	}
	return true
}

// A table is a set of bytes as it is looked up; the last one is for the end of
// the text. No table is the set of all.
type table [257]bool

const atEnd = 256

func (t *table) admits(s []byte, p int) bool {
	if t == nil {
		return true
	}
	if p < len(s) {
		return t[s[p]]
	}
	return t[atEnd]
}

// ways tells by the next byte which branches of a split can match, as bits;
// the last one is for the end of the text.
type ways [257]uint8

// maxWays is how many branches a split has; more are a split in the last one.
const maxWays = 8

func (w *ways) at(s []byte, p int) uint8 {
	if p < len(s) {
		return w[s[p]]
	}
	return w[atEnd]
}

// A code is one instruction as it runs. What a search remembers names it by
// its id, so that it holds no pointers.
type code struct {
	kind     instKind
	lazy     bool
	negative bool
	fold     bool
	// sole says of a repeated character that only its longest run can be
	// followed by what follows, so that there is nothing to come back to.
	sole bool
	// line says of a repeated character that it is any but a newline.
	line bool
	id   int32
	slot int32 // save, loop number, group
	// save is set where this instruction matched, none where it is 0.
	save     int32
	min, max int32 // max -1: no limit
	width    int32 // of a look-behind, -1 for a look-ahead
	next     *code
	text     string
	head     uint64 // the first bytes of text, as they stand in memory
	mask     uint64 // of as many as text has
	set      *table // a character, or the first bytes of a loop's body
	// The text that must follow a repetition: a text, else a byte of after.
	follows string
	after   *table
	// stop are the characters, one after the other, of a text that may not begin at
	// a repeated character; nil is none.
	stop   []*table
	inside bool  // of a look or an atomic group
	fills  bool  // of a loop: no iteration takes nothing
	memo   int32 // of an endless repetition, the number of its dead ends; -1
	// tail is set where nothing follows but characters of it up to the end, and before
	// them at most slack others.
	tail     *table
	slack    int
	branches []*code
	ways     *ways // of a split
}

// A flattener makes code of instructions.
type flattener struct {
	ids    map[*inst]int32
	list   []*inst
	firsts map[*inst]*byteset
	sets   map[byteset]*byteset
	tables map[*byteset]*table
	ways   map[fan]*ways
	any    *byteset // the bytes that . takes
	memos  int32
	nested map[*inst]bool
}

// flatten gives the code that entry leads to, entry first, and the bytes a match
// can begin with.
func flatten(entry *inst, any *byteset) (out []code, first *table, memos int) {
	f := &flattener{
		ids: map[*inst]int32{}, firsts: map[*inst]*byteset{}, sets: map[byteset]*byteset{},
		tables: map[*byteset]*table{}, ways: map[fan]*ways{}, any: any,
	}
	f.number(entry)
	f.nest()
	out = make([]code, len(f.list))
	at := func(i *inst) *code { return &out[f.ids[i]] }
	for id, i := range f.list {
		c := code{
			kind: i.kind, lazy: i.lazy, negative: i.negative, fold: i.fold, text: string(i.text), id: int32(id), slot: int32(i.slot),
			min: int32(i.min), max: int32(i.max), width: int32(i.width), memo: -1,
		}
		if i.set != nil {
			c.set = f.table(f.shared(*i.set))
		}
		next := i.next
		for _, sub := range i.subs {
			c.branches = append(c.branches, at(sub))
		}
		switch i.kind {
		case instSetLoop:
			next = f.repeated(&c, i.set, next)
		case instLoop:
			if stop, set := f.tempered(i); set != nil {
				c.kind, c.max, c.stop, c.set, c.branches = instSetLoop, -1, stop, f.table(f.shared(*set)), nil
				next = f.repeated(&c, set, next)
				break
			}
			c.inside, c.fills = f.nested[i], f.takesSome(i.subs[0], i, map[*inst]bool{})
			c.set, c.after = f.table(f.first(i.subs[0])), f.table(f.first(i.next))
		case instSplit:
			c.ways = f.fork(i)
		case instLook:
			switch sub := i.subs[0]; {
			case sub.kind == instText && sub.next.kind == instMatch:
				c.kind, c.text = instLookText, string(sub.text)
			case sub.kind == instSet && sub.next.kind == instMatch:
				c.kind, c.set = instLookSet, f.table(f.shared(*sub.set))
			}
		}
		if c.kind == instSetLoop && c.lazy && c.line && c.max < 0 {
			c.tail, c.slack = f.tail(next)
		}
		if c.kind == instSetLoop && c.max < 0 {
			c.memo = f.memos
			f.memos++
		}
		if c.kind == instSetLoop && c.sole && !c.line && c.stop == nil {
			c.kind = instRun
		}
		if consumes[c.kind] && next.kind == instSave {
			c.save, next = int32(next.slot), next.next
		}
		if next != nil {
			c.next = at(next)
		}
		c.setHead()
		out[id] = c
	}
	return out, f.table(f.first(entry)), int(f.memos)
}

// consumes are the kinds that can set a capture on the way.
var consumes = [instKinds]bool{instText: true, instTextFold: true, instSet: true, instSetLoop: true, instRun: true, instSave: true}

func (c *code) setHead() {
	for i := range min(len(c.text), 8) {
		c.head |= uint64(c.text[i]) << (8 * i)
		c.mask |= 0xff << (8 * i)
	}
}

// begins says that the code's text stands at s[p].
func (c *code) begins(s []byte, p int) bool {
	n := len(c.text)
	switch {
	case len(s)-p < n:
		return false
	case len(s)-p < 8:
		return string(s[p:p+n]) == c.text
	case binary.LittleEndian.Uint64(s[p:])&c.mask != c.head:
		return false
	}
	return n <= 8 || string(s[p+8:p+n]) == c.text[8:]
}

// number lists the instructions so that mostly the next one follows.
func (f *flattener) number(i *inst) {
	if _, ok := f.ids[i]; ok {
		return
	}
	f.ids[i] = int32(len(f.list))
	f.list = append(f.list, i)
	if i.next != nil {
		f.number(i.next)
	}
	for _, sub := range i.subs {
		f.number(sub)
	}
}

// shared gives the one copy of a set.
func (f *flattener) shared(b byteset) *byteset {
	if known := f.sets[b]; known != nil {
		return known
	}
	f.sets[b] = &b
	return &b
}

func (f *flattener) table(b *byteset) *table {
	if b == nil {
		return nil
	}
	if known := f.tables[b]; known != nil {
		return known
	}
	t := &table{}
	for c := range atEnd {
		t[c] = b.has(byte(c))
	}
	t[atEnd] = b.end
	f.tables[b] = t
	return t
}

// inLine says that a set takes every character of a line but its newline.
func (f *flattener) inLine(set *byteset) bool { return *set == *f.any }

// repeated notes what can follow a repeated character, and gives what comes
// next.
func (f *flattener) repeated(c *code, set *byteset, next *inst) *inst {
	after := f.first(next)
	c.after = f.table(after)
	c.sole = after != nil && set.disjoint(after)
	c.line = f.inLine(set) && c.stop == nil
	switch text := next.skipSaves(); {
	case text.kind != instText:
	case c.sole && text == next:
		// One instruction: the text follows, or nothing does.
		c.text = string(text.text)
		return text.next
	default:
		c.follows = string(text.text)
	}
	return next
}

// A fan holds the first bytes of each of n branches.
type fan struct {
	n      int
	firsts [maxWays]*byteset
}

func (f *flattener) fork(i *inst) *ways {
	key := fan{n: len(i.subs)}
	for n, sub := range i.subs {
		key.firsts[n] = f.first(sub)
	}
	if known := f.ways[key]; known != nil {
		return known
	}
	w := &ways{}
	for n := range i.subs {
		first := key.firsts[n]
		for c := range atEnd {
			if first == nil || first.has(byte(c)) {
				w[c] |= 1 << n
			}
		}
		if first == nil || first.end {
			w[atEnd] |= 1 << n
		}
	}
	f.ways[key] = w
	return w
}

// tempered recognises (?:(?!stop)c)* where stop is characters one after the other,
// and gives nil for anything else.
func (f *flattener) tempered(loop *inst) (stop []*table, set *byteset) {
	look := loop.subs[0]
	if look.kind != instLook || !look.negative || look.width >= 0 {
		return nil, nil
	}
	at, step := look.subs[0], look.next
	if step.kind != instSet || step.next != loop {
		return nil, nil
	}
	for ; at.kind == instText || at.kind == instSet; at = at.next {
		if at.kind == instSet {
			stop = append(stop, f.table(f.shared(*at.set)))
		}
		for _, c := range at.text {
			var one byteset
			one.add(c)
			stop = append(stop, f.table(f.shared(one)))
		}
	}
	if at.kind != instMatch || len(stop) == 0 {
		return nil, nil
	}
	return stop, step.set
}

// tail recognises what may follow the last part of a line: an optional text, and
// blanks up to the end. It gives the blanks and the length of the text, nil for
// anything else.
func (f *flattener) tail(i *inst) (blanks *table, slack int) {
	switch i = i.skipSaves(); i.kind {
	case instText:
		blanks, slack = f.tail(i.next)
		return blanks, slack + len(i.text)
	case instSplit, instCond:
		for n, sub := range i.subs {
			set, most := f.tail(sub)
			if set == nil || n > 0 && set != blanks {
				return nil, 0
			}
			blanks, slack = set, max(slack, most)
		}
		return blanks, slack
	case instSetLoop:
		end := i.next.skipSaves()
		if i.min == 0 && i.max < 0 && end.kind == instEnd && end.next.skipSaves().kind == instMatch {
			return f.table(f.shared(*i.set)), 0
		}
	}
	return nil, 0
}

// takesSome says that every way from i to the end of a loop's body takes a character.
func (f *flattener) takesSome(i, loop *inst, seen map[*inst]bool) bool {
	if i == loop || seen[i] {
		return false
	}
	switch i.kind {
	case instText, instTextFold, instSet, instFail:
		return true
	case instSetLoop:
		return i.min > 0 || f.takesSome(i.next, loop, seen)
	case instSplit, instCond:
		seen[i] = true
		for _, s := range i.subs {
			if !f.takesSome(s, loop, seen) {
				return false
			}
		}
		delete(seen, i)
		return true
	case instSave, instWord, instNotWord, instLook, instBegin, instLineBegin, instEnd, instLineEnd, instTextEnd:
		return f.takesSome(i.next, loop, seen)
	}
	return false
}

// nest notes the loops within looks and atomic groups.
func (f *flattener) nest() {
	f.nested = map[*inst]bool{}
	var mark func(i *inst)
	mark = func(i *inst) {
		if i == nil || f.nested[i] {
			return
		}
		f.nested[i] = true
		mark(i.next)
		for _, s := range i.subs {
			mark(s)
		}
	}
	for _, i := range f.list {
		if i.kind == instLook || i.kind == instAtomic {
			mark(i.subs[0])
		}
	}
}

// first gives what a match from i on can begin with, nil where that is not
// known.
func (f *flattener) first(i *inst) *byteset {
	if known, ok := f.firsts[i]; ok {
		return known
	}
	f.firsts[i] = nil // for one that leads back here
	var b byteset
	if !f.collect(i, &b) {
		return nil
	}
	f.firsts[i] = f.shared(b)
	return f.firsts[i]
}

func (f *flattener) collect(i *inst, b *byteset) bool {
	join := func(next *inst) bool {
		other := f.first(next)
		if other != nil {
			b.join(other)
		}
		return other != nil
	}
	switch i.kind {
	case instText:
		b.add(i.text[0])
		return true
	case instTextFold:
		c := i.text[0]
		b.add(c)
		if c >= 'a' && c <= 'z' {
			b.add(c - 'a' + 'A')
		}
		for i := range folds {
			if foldTo[i] == c {
				b.add(wideFolds + byte(i))
			}
		}
		return true
	case instSet:
		b.join(i.set)
		return true
	case instSetLoop:
		b.join(i.set)
		return i.min > 0 || join(i.next)
	case instSplit, instCond:
		for _, s := range i.subs {
			if !join(s) {
				return false
			}
		}
		return true
	case instLoop:
		return join(i.subs[0]) && join(i.next)
	case instEnd, instLineEnd:
		b.add('\n')
		b.end = true
		return true
	case instTextEnd:
		b.end = true
		return true
	case instSave, instWord, instNotWord, instLook, instBegin, instLineBegin:
		return join(i.next)
	case instFail:
		return true
	}
	return false
}
