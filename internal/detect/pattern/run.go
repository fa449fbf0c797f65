package pattern

import (
	"bytes"
	"sync"
)

// A thread is one search of a machine.
type thread struct {
	m     *machine
	s     []byte
	caps  []int
	loops []int // where each loop's iteration began
	end   int
	steps int
}

var threads = sync.Pool{New: func() any { return &thread{} }}

// outcome of a search: found, not found, or given up.
type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeFound
	outcomeGaveUp
)

// find searches s. spans is filled in when something was found.
func (m *machine) find(s []byte, spans []int) ([]int, outcome) {
	t := threads.Get().(*thread)
	defer threads.Put(t)
	t.m, t.s, t.steps = m, s, min(stepsAtLeast+stepsPerByte*len(s), stepsAtMost)
	t.caps = resized(t.caps, m.slots)
	t.loops = resized(t.loops, m.loops)
	for at := 0; at <= len(s); at++ {
		switch {
		case m.anchored:
			if at > 0 {
				return spans, outcomeNone
			}
		case m.prefix != nil:
			i := bytes.Index(s[at:], m.prefix)
			if i < 0 {
				return spans, outcomeNone
			}
			at += i
		case m.first != nil:
			for at < len(s) && !m.first[s[at]] {
				at++
			}
			if at == len(s) {
				return spans, outcomeNone
			}
		}
		if t.run(m.entry, at) {
			spans = resized(spans, m.slots)
			copy(spans, t.caps)
			spans[0], spans[1] = at, t.end
			for i := 2; i < len(spans); i += 2 {
				if spans[i+1] < 0 {
					spans[i] = -1
				}
			}
			return spans, outcomeFound
		}
		if t.steps < 0 {
			return spans, outcomeGaveUp
		}
	}
	return spans, outcomeNone
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

// run matches from i at p to the end of the expression.
func (t *thread) run(i *inst, p int) bool {
	s := t.s
	for {
		if t.steps--; t.steps < 0 {
			return false
		}
		switch i.kind {
		case instMatch:
			t.end = p
			return true
		case instText:
			n := len(i.text)
			if len(s)-p < n || string(s[p:p+n]) != string(i.text) {
				return false
			}
			p += n
			i = i.next
		case instTextFold:
			if len(s)-p < len(i.text) || !equalFold(s[p:p+len(i.text)], i.text) {
				return false
			}
			p += len(i.text)
			i = i.next
		case instSet:
			if p >= len(s) || !i.set[s[p]] {
				return false
			}
			p++
			i = i.next
		case instSetLoop:
			return t.setLoop(i, p)
		case instSplit:
			last := len(i.subs) - 1
			for _, sub := range i.subs[:last] {
				if t.run(sub, p) {
					return true
				}
				if t.steps < 0 {
					return false
				}
			}
			i = i.subs[last]
		case instLoop:
			return t.loop(i, p)
		case instSave:
			old := t.caps[i.slot]
			t.caps[i.slot] = p
			if t.run(i.next, p) {
				return true
			}
			t.caps[i.slot] = old
			return false
		case instBackref:
			n, ok := t.backref(i, p)
			if !ok {
				return false
			}
			p += n
			i = i.next
		case instCond:
			if t.caps[2*i.slot] >= 0 && t.caps[2*i.slot+1] >= 0 {
				i = i.subs[0]
			} else {
				i = i.subs[1]
			}
		case instAtomic:
			if !t.run(i.subs[0], p) {
				return false
			}
			p = t.end
			i = i.next
		case instLook:
			if !t.look(i, p) {
				return false
			}
			i = i.next
		default:
			if !t.holds(i.kind, p) {
				return false
			}
			i = i.next
		}
	}
}

func (t *thread) holds(k instKind, p int) bool {
	s := t.s
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
		before := p > 0 && isNameByte(s[p-1])
		after := p < len(s) && isNameByte(s[p])
		return (before != after) == (k == instWord)
	}
	return false
}

// setLoop matches a repeated single character.
func (t *thread) setLoop(i *inst, p int) bool {
	s, set := t.s, i.set
	most := len(s) - p
	if i.max >= 0 && i.max < most {
		most = i.max
	}
	if i.lazy {
		n := 0
		defer func() { t.steps -= n / 8 }()
		for ; n < i.min; n++ {
			if n >= most || !set[s[p+n]] {
				return false
			}
		}
		for {
			if !i.hasAfter || p+n < len(s) && s[p+n] == i.after {
				if t.run(i.next, p+n) {
					return true
				}
				if t.steps < 0 {
					return false
				}
			}
			if n >= most || !set[s[p+n]] {
				return false
			}
			n++
		}
	}
	n := 0
	for n < most && set[s[p+n]] {
		n++
	}
	t.steps -= n / 8 // long runs cost time too
	for ; n >= i.min; n-- {
		if i.hasAfter && (p+n >= len(s) || s[p+n] != i.after) {
			continue
		}
		if t.run(i.next, p+n) {
			return true
		}
		if t.steps < 0 {
			return false
		}
	}
	return false
}

// loop matches a repeated group; an iteration that takes nothing ends it.
func (t *thread) loop(i *inst, p int) bool {
	began := t.loops[i.slot]
	if began == p {
		return t.leave(i, p)
	}
	if i.lazy && t.leave(i, p) {
		return true
	}
	t.loops[i.slot] = p
	if t.run(i.subs[0], p) {
		return true
	}
	t.loops[i.slot] = began
	return !i.lazy && t.steps >= 0 && t.leave(i, p)
}

// leave goes on after a loop, which may be entered anew from an outer one.
func (t *thread) leave(i *inst, p int) bool {
	began := t.loops[i.slot]
	t.loops[i.slot] = -1
	if t.run(i.next, p) {
		return true
	}
	t.loops[i.slot] = began
	return false
}

func (t *thread) backref(i *inst, p int) (int, bool) {
	from, to := t.caps[2*i.slot], t.caps[2*i.slot+1]
	if from < 0 || to < from || len(t.s)-p < to-from {
		return 0, false
	}
	a, b := t.s[from:to], t.s[p:p+to-from]
	if i.fold {
		return to - from, bytes.EqualFold(a, b)
	}
	return to - from, bytes.Equal(a, b)
}

func (t *thread) look(i *inst, p int) bool {
	at := p
	if i.width >= 0 {
		if at -= i.width; at < 0 {
			return i.negative
		}
	}
	var kept [32]int
	caps := append(kept[:0], t.caps...)
	end := t.end
	ok := t.run(i.subs[0], at)
	t.end = end
	if !ok || i.negative {
		copy(t.caps, caps)
	}
	return ok != i.negative && t.steps >= 0
}

// equalFold compares with text in lower case.
func equalFold(s, text []byte) bool {
	for i, c := range s {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != text[i] {
			return false
		}
	}
	return true
}
