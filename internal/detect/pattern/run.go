package pattern

import (
	"bytes"
	"math/bits"
	"sync"
	"unicode/utf8"
)

// A thread is one search of a machine.
type thread struct {
	m     *machine
	s     []byte
	caps  []int
	loops []int32 // where each loop's iteration began
	stack []frame
	dead  []deadEnds // by code.memo; of use while hasDead
	// hasDead says that some are known.
	hasDead bool
	// visited are the places at which each loop was, as bits, of a long text.
	visited []uint64
	end     int
	steps   int
	// Where s stands for characters beyond ASCII: the text as it is, and where
	// in it each byte of s came from.
	text    []byte
	offsets []int32
	encoded []byte // room for s
}

// A frame is a place to which a search comes back when it fails: a choice that is left,
// or a value to put back on the way there.
type frame struct {
	kind   frameKind
	id     int32 // of the instruction; of a value, its slot
	p, arg int32
	far    int32 // of a repetition, the place from which on all up to p were tried
}

type frameKind uint8

const (
	frameFence   frameKind = iota // nothing: a look or an atomic group begins
	frameCapture                  // caps[id] was p
	frameLoop                     // loops[id] was p
	frameAt                       // go on with id at p
	frameBranch                   // go on with a branch of those in arg of id at p
	frameGreedy                   // a repetition from arg on that ended at p, and at all places up to far before
	frameLazy                     // a repetition that ended at p, at all places from far on before, and may go on to arg
)

// These bound the memory that a thread keeps for the next search.
const (
	maxKeptFrames = 64 << 10
	maxKeptText   = 16 << 10
)

var threads = sync.Pool{New: func() any { return &thread{} }}

// outcome of a search: found, not found, or given up.
type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeFound
	outcomeGaveUp
)

// find searches s. The result reuses spans, which are filled in when something
// was found.
func (m *machine) find(s []byte, spans []int) (found []int, how outcome, steps int) {
	if m.alphabet != nil {
		return m.findWide(s, spans)
	}
	if m.anchored && !m.leads(s) {
		return spans, outcomeNone, 1
	}
	spans = resized(spans, m.slots)
	t := threads.Get().(*thread)
	how, steps = t.find(m, s, spans)
	t.release()
	return spans, how, steps
}

// findWide is find for a text with characters beyond ASCII.
func (m *machine) findWide(text []byte, spans []int) (found []int, how outcome, steps int) {
	t := threads.Get().(*thread)
	defer t.release()
	t.text = text
	t.encoded, t.offsets = m.alphabet.encode(text, t.encoded[:0], t.offsets[:0])
	if m.anchored && !m.leads(t.encoded) {
		return spans, outcomeNone, 1
	}
	spans = resized(spans, m.slots)
	how, steps = t.find(m, t.encoded, spans)
	if how == outcomeFound {
		for i, at := range spans {
			if at >= 0 {
				spans[i] = int(t.offsets[at])
			}
		}
	}
	return spans, how, steps
}

// find searches s and tells how many steps that took.
func (t *thread) find(m *machine, s []byte, spans []int) (how outcome, steps int) {
	most := min(stepsAtLeast+stepsPerByte*len(s), stepsAtMost)
	t.m, t.s, t.caps, t.steps = m, s, spans, most
	if cap(t.loops) < m.loops {
		t.loops = make([]int32, m.loops)
	}
	t.loops = t.loops[:m.loops]
	for i := range t.loops {
		t.loops[i] = -1
	}
	if cap(t.dead) < m.memos {
		t.dead = make([]deadEnds, m.memos)
	}
	t.dead, t.hasDead = t.dead[:m.memos], false
	if t.visited = nil; m.loops > 0 && m.loopsFill && len(s) >= longText {
		t.visited = make([]uint64, m.loops*(len(s)/64+1))
	}
	how = t.search()
	return how, most - t.steps
}

// release gives a thread back for the next search.
func (t *thread) release() {
	t.s, t.caps, t.text = nil, nil, nil
	if cap(t.stack) > maxKeptFrames {
		t.stack = nil
	}
	if cap(t.encoded) > maxKeptText {
		t.encoded, t.offsets = nil, nil
	}
	threads.Put(t)
}

// leads says that s begins as every match does.
func (m *machine) leads(s []byte) bool {
	p := 0
	for _, c := range m.lead {
		switch {
		case c.kind == instText:
			if !c.begins(s, p) {
				return false
			}
			p += len(c.text)
		case p < len(s) && c.set[s[p]]:
			p++
		default:
			return false
		}
	}
	return len(m.lead) > 0 || m.first.admits(s, 0)
}

func (t *thread) search() outcome {
	m, s := t.m, t.s
	for at := 0; at <= len(s); at++ {
		switch {
		case m.anchored:
			if at > 0 {
				return outcomeNone
			}
		case m.prefix != nil:
			i := bytes.Index(s[at:], m.prefix)
			if i < 0 {
				return outcomeNone
			}
			at += i
		case m.first != nil:
			for at < len(s) && !m.first[s[at]] {
				at++
			}
			if at == len(s) && !m.first[atEnd] {
				return outcomeNone
			}
		}
		t.stack = t.stack[:0]
		if !m.anchored {
			t.push(frame{}) // so that captures of this place are put back
		}
		if t.run(&m.code[0], at) {
			t.caps[0], t.caps[1] = at, t.end
			for i := 2; i < len(t.caps); i += 2 {
				if t.caps[i+1] < 0 {
					t.caps[i] = -1
				}
			}
			return outcomeFound
		}
		if t.steps < 0 {
			return outcomeGaveUp
		}
	}
	return outcomeNone
}

// resized gives n values of -1, reusing list.
func resized(list []int, n int) []int {
	if cap(list) < n {
		list = make([]int, n)
	}
	list = list[:n]
	for i := range list {
		list[i] = -1
	}
	return list
}

func (t *thread) push(f frame) { t.stack = append(t.stack, f) }

// set notes where a capture begins or ends.
func (t *thread) set(slot int32, p int) {
	if len(t.stack) > 0 {
		t.push(frame{kind: frameCapture, id: slot, p: int32(t.caps[slot])})
	}
	t.caps[slot] = p
	if t.m.watched != nil && t.m.watched[slot] {
		t.forget()
	}
}

// run matches from c at p to the end of the expression or of its piece. What
// it leaves on the stack after a match puts captures back.
func (t *thread) run(c *code, p int) bool {
	s, base, steps := t.s, len(t.stack), 0
	for {
		steps++
		ok := false
		switch c.kind {
		case instMatch:
			t.end = p
			if base > 0 {
				t.commit(base)
			}
			t.steps -= steps
			return true
		case instText:
			if ok = c.begins(s, p); ok {
				p += len(c.text)
			}
		case instTextFold:
			if ok = len(s)-p >= len(c.text) && equalFold(s[p:p+len(c.text)], c.text); ok {
				p += len(c.text)
			}
		case instSet:
			if ok = p < len(s) && c.set[s[p]]; ok {
				p++
			}
		case instRun:
			if t.hasDead && c.memo >= 0 && t.dead[c.memo].has(p) {
				break
			}
			run := s[p:]
			if c.max >= 0 && int(c.max) < len(run) {
				run = run[:c.max]
			}
			n := 0
			for set := c.set; n < len(run) && set[run[n]]; {
				n++
			}
			steps += n / 8 // long runs cost time too
			switch p += n; {
			case n < int(c.min):
			case c.text == "":
				if ok = c.after.admits(s, p); !ok {
					t.note(c, p-n, p)
				}
			case c.begins(s, p):
				p += len(c.text)
				ok = true
			default:
				t.note(c, p-n, p)
			}
		case instSetLoop:
			p, ok = t.repeat(c, p)
		case instSplit:
			if open := c.ways.at(s, p); open != 0 {
				if rest := open & (open - 1); rest != 0 {
					t.push(frame{kind: frameBranch, id: c.id, p: int32(p), arg: int32(rest)})
				}
				c = c.branches[bits.TrailingZeros8(open)]
				continue
			}
		case instLoop:
			if t.steps -= steps; t.steps < 0 {
				return false
			}
			steps = 0
			if next := t.loop(c, p); next != nil {
				c = next
				continue
			}
		case instSave:
			t.set(c.slot, p)
			ok = true
		case instBackref:
			n := 0
			n, ok = t.backref(c, p)
			p += n
		case instCond:
			if t.caps[2*c.slot] >= 0 && t.caps[2*c.slot+1] >= 0 {
				c = c.branches[0]
			} else {
				c = c.branches[1]
			}
			continue
		case instAtomic:
			t.push(frame{})
			if ok = t.run(c.branches[0], p); ok {
				p = t.end
			}
		case instLook:
			ok = t.look(c, p)
		case instLookText:
			at := p - max(0, int(c.width))
			ok = (at >= 0 && c.begins(s, at)) != c.negative
		case instLookSet:
			at := p - max(0, int(c.width))
			ok = (at >= 0 && at < len(s) && c.set[s[at]]) != c.negative
		default:
			ok = holds(s, c.kind, p)
		}
		if ok {
			if c.save != 0 {
				t.set(c.save, p)
			}
			c = c.next
			continue
		}
		if t.steps -= steps; t.steps < 0 {
			return false
		}
		steps = 0
		if c, p = t.back(base); c == nil {
			return false
		}
	}
}

func begins(s []byte, p int, text string) bool {
	return len(s)-p >= len(text) && string(s[p:p+len(text)]) == text
}

// back goes back to the last choice above base; nil when there is none.
func (t *thread) back(base int) (*code, int) {
	for len(t.stack) > base {
		f := &t.stack[len(t.stack)-1]
		switch f.kind {
		case frameCapture:
			t.caps[f.id] = int(f.p)
			if t.m.watched != nil && t.m.watched[f.id] {
				t.forget()
			}
		case frameLoop:
			t.loops[f.id] = f.p
			if !t.m.loopsFill {
				t.forget()
			}
		case frameAt:
			t.stack = t.stack[:len(t.stack)-1]
			return &t.m.code[f.id], int(f.p)
		case frameBranch:
			open := uint8(f.arg)
			c, p := t.m.code[f.id].branches[bits.TrailingZeros8(open)], int(f.p)
			if open &= open - 1; open != 0 {
				f.arg = int32(open)
			} else {
				t.stack = t.stack[:len(t.stack)-1]
			}
			return c, p
		case frameGreedy:
			c := &t.m.code[f.id]
			t.note(c, int(f.p), int(f.far))
			if p := t.backward(c, int(f.arg), int(f.p)-1); p >= 0 {
				if f.p = int32(p); f.p == f.arg {
					t.stack = t.stack[:len(t.stack)-1]
				}
				return t.after(c, p), p
			}
		case frameLazy:
			c := &t.m.code[f.id]
			t.note(c, int(f.far), int(f.p))
			if p := int(f.p); c.takes(t.s, p) {
				if p = t.forward(c, p+1, int(f.arg)); p >= 0 {
					if f.p = int32(p); f.p == f.arg {
						t.stack = t.stack[:len(t.stack)-1]
					}
					return t.after(c, p), p
				}
			}
		}
		t.stack = t.stack[:len(t.stack)-1]
	}
	return nil, 0
}

// after goes on where c has ended.
func (t *thread) after(c *code, p int) *code {
	if c.save != 0 {
		t.set(c.save, p)
	}
	return c.next
}

// commit forgets the choices above base and keeps the frames that put values back.
func (t *thread) commit(base int) {
	kept := t.stack[:base]
	for _, f := range t.stack[base:] {
		if f.kind <= frameLoop {
			kept = append(kept, f)
		}
	}
	t.stack = kept
}

func holds(s []byte, k instKind, p int) bool {
	switch k {
	case instBegin:
		return p == 0
	case instLineBegin:
		return p == 0 || s[p-1] == '\n'
	case instEnd:
		return p == len(s) || p == len(s)-1 && s[p] == '\n'
	case instLineEnd:
		return p == len(s) || s[p] == '\n'
	case instTextEnd:
		return p == len(s)
	case instWord, instNotWord:
		before := p > 0 && isWordClass(s[p-1])
		after := p < len(s) && isWordClass(s[p])
		return (before != after) == (k == instWord)
	}
	return false
}

// takes says that one more of a repeated character stands at p.
func (c *code) takes(s []byte, p int) bool {
	return p < len(s) && c.set[s[p]] && (c.stop == nil || !c.stops(s, p))
}

// stops says that the text that ends a repetition begins at p.
func (c *code) stops(s []byte, p int) bool {
	if len(s)-p < len(c.stop) {
		return false
	}
	for i, set := range c.stop {
		if !set[s[p+i]] {
			return false
		}
	}
	return true
}

// repeat matches a repeated character and gives where it ends.
func (t *thread) repeat(c *code, p int) (int, bool) {
	s := t.s
	limit := len(s)
	if c.max >= 0 && int(c.max) < limit-p {
		limit = p + int(c.max)
	}
	low := p + int(c.min)
	if c.lazy && !c.sole {
		for ; p < low; p++ {
			if p >= limit || !c.takes(s, p) {
				return p, false
			}
		}
		if c.tail != nil {
			to := t.lastPart(c)
			if to > p && bytes.IndexByte(s[p:to], '\n') >= 0 {
				return p, false
			}
			p = max(p, to)
		}
		if p = t.forward(c, p, limit); p < 0 {
			return p, false
		}
		if p < limit {
			t.push(frame{kind: frameLazy, id: c.id, p: int32(p), arg: int32(limit), far: int32(low)})
		}
		return p, true
	}
	began := p
	p = t.extent(c, p, limit)
	if p < low {
		return p, false
	}
	switch {
	case !c.sole:
	case c.text != "":
		if !c.begins(s, p) {
			t.note(c, began, p)
			return p, false
		}
		return p + len(c.text), true
	default:
		if !c.after.admits(s, p) {
			t.note(c, began, p)
			return p, false
		}
		return p, true
	}
	far := p
	if p = t.backward(c, low, p); p < 0 {
		return p, false
	}
	if p > low {
		t.push(frame{kind: frameGreedy, id: c.id, p: int32(p), arg: int32(low), far: int32(far)})
	}
	return p, true
}

// lastPart gives the first place at which c can end, so that its tail follows.
func (t *thread) lastPart(c *code) int {
	p := len(t.s)
	if p > 0 && t.s[p-1] == '\n' {
		p--
	}
	from := p
	for p > 0 && c.tail[t.s[p-1]] {
		p--
	}
	t.steps -= (from - p) / 8
	return max(0, p-c.slack)
}

// extent gives the place behind the repeated characters that begin at p. Known dead
// ends are characters of one run and are not looked at again.
func (t *thread) extent(c *code, p, limit int) int {
	if t.hasDead && c.memo >= 0 {
		switch d := &t.dead[c.memo]; {
		case d.has(p):
			p = int(d.to)
		case p < int(d.from) && int(d.from) <= limit:
			if p = t.taken(c, p, int(d.from)); p < int(d.from) {
				return p
			}
			p = int(d.to)
		}
	}
	return t.taken(c, p, limit)
}

// taken gives the first place from p up to limit at which c takes no character.
func (t *thread) taken(c *code, p, limit int) int {
	from, s := p, t.s
	switch {
	case c.line:
		if i := bytes.IndexByte(s[p:limit], '\n'); i >= 0 {
			limit = p + i
		}
		p = limit
	case c.stop != nil:
		for p < limit && c.takes(s, p) {
			p++
		}
	default:
		for set := c.set; p < limit && set[s[p]]; {
			p++
		}
	}
	t.steps -= (p - from) / 8 // long runs cost time too
	return p
}

// backward gives the last place from p down to low at which what follows c may
// begin, or -1.
func (t *thread) backward(c *code, low, p int) int {
	var d *deadEnds // none of them is tried again
	if t.hasDead && c.memo >= 0 {
		d = &t.dead[c.memo]
		if d.has(p) {
			p = int(d.from) - 1
		}
	}
	from := p
	switch {
	case c.follows != "":
		p = min(p, len(t.s)-len(c.follows))
		for first := c.follows[0]; p >= low && (t.s[p] != first || !begins(t.s, p, c.follows)); {
			p--
		}
	case c.after != nil:
		for p >= low && !c.after.admits(t.s, p) {
			p--
		}
	}
	t.steps -= (from - p) / 8
	if from-p >= worthNoting {
		t.note(c, max(p+1, low), from)
	}
	if p < low {
		return -1
	}
	if d != nil && d.has(p) {
		return t.backward(c, low, p)
	}
	return p
}

// forward gives the first place from p up to limit, over characters that c
// repeats, at which what follows c may begin, or -1.
func (t *thread) forward(c *code, p, limit int) int {
	dead := deadEnds{0, -1}
	if t.hasDead && c.memo >= 0 {
		dead = t.dead[c.memo]
	}
	from := p
	found := false
	for {
		if dead.has(p) {
			t.steps -= (p - from) / 8
			if p = int(dead.to); p >= limit || !c.takes(t.s, p) {
				return -1
			}
			p++
			from = p
		}
		if c.follows != "" {
			found = begins(t.s, p, c.follows)
		} else {
			found = c.after.admits(t.s, p)
		}
		if found || p >= limit || !c.takes(t.s, p) {
			break
		}
		p++
	}
	t.steps -= (p - from) / 8
	if p-from >= worthNoting {
		t.note(c, from, p-1)
	}
	if !found {
		return -1
	}
	return p
}

// loop goes into a repeated group once more or leaves it; an iteration that
// takes nothing ends it.
func (t *thread) loop(c *code, p int) *code {
	const left = -1
	switch {
	case !c.fills:
		t.forget() // where an iteration began tells whether there is another
	case t.m.loopsFill && t.visited != nil && !c.inside:
		// Whatever led here before did not end in a match.
		word, bit := &t.visited[int(c.slot)*(len(t.s)/64+1)+p/64], uint64(1)<<(p%64)
		if *word&bit != 0 {
			return nil
		}
		*word |= bit
	}
	began, now := t.loops[c.slot], int32(p)
	again := began != now && c.set.admits(t.s, p)
	choice := again && (c.lazy || c.after.admits(t.s, p))
	if choice || len(t.stack) > 0 {
		t.push(frame{kind: frameLoop, id: c.slot, p: began})
	}
	into := c.branches[0]
	if again && !c.lazy {
		if choice {
			t.push(frame{kind: frameAt, id: c.next.id, p: now})
			t.push(frame{kind: frameLoop, id: c.slot, p: left})
		}
		t.loops[c.slot] = now
		return into
	}
	if choice {
		t.push(frame{kind: frameAt, id: into.id, p: now})
		t.push(frame{kind: frameLoop, id: c.slot, p: now})
	}
	t.loops[c.slot] = left
	return c.next
}

func (t *thread) backref(c *code, p int) (int, bool) {
	from, to := t.caps[2*c.slot], t.caps[2*c.slot+1]
	if from < 0 || to < from || len(t.s)-p < to-from {
		return 0, false
	}
	a, b := t.s[from:to], t.s[p:p+to-from]
	if t.m.alphabet != nil {
		// Equal classes are not equal characters.
		a, b = t.characters(from, to), t.characters(p, p+to-from)
	}
	if c.fold {
		return to - from, bytes.EqualFold(a, b)
	}
	return to - from, bytes.Equal(a, b)
}

// characters gives the text between two places; each byte that is no UTF-8 is
// U+FFFD.
func (t *thread) characters(from, to int) []byte {
	text := t.text[t.offsets[from]:t.offsets[to]]
	if utf8.Valid(text) {
		return text
	}
	var out []byte
	for _, r := range string(text) {
		out = utf8.AppendRune(out, r)
	}
	return out
}

func (t *thread) look(c *code, p int) bool {
	at := p
	if c.width >= 0 {
		if at -= int(c.width); at < 0 {
			return c.negative
		}
	}
	base := len(t.stack)
	t.push(frame{})
	end := t.end
	ok := t.run(c.branches[0], at)
	t.end = end
	if ok && c.negative {
		t.back(base) // nothing but values to put back
	}
	if !ok || len(t.stack) == base+1 {
		t.stack = t.stack[:base]
	}
	return ok != c.negative && t.steps >= 0
}

// equalFold compares with text in lower case.
func equalFold(s []byte, text string) bool {
	for i, c := range s {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c >= wideFolds && c < wideRanges {
			c = foldTo[c-wideFolds]
		}
		if c != text[i] {
			return false
		}
	}
	return true
}
