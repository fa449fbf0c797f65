package pattern

import (
	"bytes"
	"math/bits"
	"slices"
	"strings"
)

// A Scanner finds, in one pass over a line, which of many expressions may
// match it: an Aho-Corasick automaton over the expressions' required literals,
// letters folded. Expressions without a literal are always candidates.
type Scanner struct {
	groups  int
	first   []int // of each group's words, and the end of the last one's
	always  []hit
	open    []uint64 // groups without a gate, as bits
	class   [256]uint8
	width   uint32   // of a row: a place for each class, then the output
	next    []uint32 // row+class: the next row
	outputs [][]hit
	// single are literals of one byte, which too many states would end in.
	single []singleByte
	// skip finds the literals and gates the groups' gates faster than the automaton; skip is
	// nil where it cannot, gates where there are none too.
	skip, gates *skipper
}

// A Group is a set of expressions that are looked at together.
type Group struct {
	// Literals of each expression, nil when it has none.
	Literals [][]string
	// Gate are literals one of which must be there for any of them to match;
	// nil is no such condition.
	Gate []string
}

// A hit is a literal's meaning: these expressions of a group may match, or
// where word is below 0, its gate is open.
type hit struct {
	group, word int32
	mask        uint64
}

type singleByte struct {
	bytes []byte
	hits  []hit
}

// Hits are a scan's result.
type Hits struct {
	first []int
	words []uint64
	found []uint64 // groups with a candidate, as bits
	gates []uint64 // groups whose gate is open
	// The row after the first bytes of the last line, where no literal ended
	// in them: lines of one second begin alike.
	head      [headSize]byte
	headRow   uint32
	headKnown bool
}

// headSize is how long a date is.
const headSize = 16

// outputFlag marks a transition into a row in which a literal ends.
const outputFlag = 1 << 31

// wordBits is how many expressions a word holds. Each group begins with a word
// of its own.
const wordBits = 64

// NewScanner builds a scanner of groups.
func NewScanner(groups []Group) *Scanner {
	groups = leanest(groups)
	s := &Scanner{groups: len(groups), open: make([]uint64, (len(groups)+wordBits-1)/wordBits)}
	t := &trie{s: s, nodes: []trieNode{{}}}
	for _, g := range groups {
		s.classify(g.Gate)
		for _, texts := range g.Literals {
			s.classify(texts)
		}
	}
	s.width++
	for c := byte('a'); c <= 'z'; c++ {
		s.class[c-'a'+'A'] = s.class[c]
	}
	words, gated := 0, 0
	var literals, gates []piece
	for i, g := range groups {
		s.first = append(s.first, words)
		for j, texts := range g.Literals {
			h := hit{int32(i), int32(words + j/wordBits), 1 << (j % wordBits)}
			if len(texts) == 0 {
				s.always = append(s.always, h)
			}
			t.add(texts, h)
			for _, text := range texts {
				literals = append(literals, piece{text: text, hit: h})
			}
		}
		if len(g.Gate) == 0 {
			s.open[i/wordBits] |= 1 << (i % wordBits)
		} else {
			gated++
		}
		t.add(g.Gate, hit{int32(i), -1, 0})
		for _, text := range g.Gate {
			gates = append(gates, piece{text: text, hit: hit{int32(i), -1, 0}})
		}
		words += (len(g.Literals) + wordBits - 1) / wordBits
	}
	s.first = append(s.first, words)
	t.automaton()
	if s.gates = newSkipper(gates, gated); s.gates != nil || len(gates) == 0 {
		s.skip = newSkipper(literals, len(literals)+1)
	}
	return s
}

// leanest leaves out texts of which another one of their set is a part.
func leanest(groups []Group) []Group {
	lean := func(texts []string) (out []string) {
		for _, text := range texts {
			if !slices.ContainsFunc(texts, func(part string) bool { return part != text && strings.Contains(text, part) }) {
				out = append(out, text)
			}
		}
		return out
	}
	out := make([]Group, len(groups))
	for i, g := range groups {
		out[i].Gate = lean(g.Gate)
		for _, texts := range g.Literals {
			out[i].Literals = append(out[i].Literals, lean(texts))
		}
	}
	return out
}

// classify gives each byte that occurs in a literal a class of its own, a
// letter and its capital the same one; class 0 is everything else.
func (s *Scanner) classify(texts []string) {
	if s.width == 0 {
		s.width = 1
	}
	for _, text := range texts {
		for i := range len(text) {
			if c := text[i]; s.class[c] == 0 {
				s.class[c] = uint8(s.width)
				s.width++
			}
		}
	}
}

type trieNode struct {
	next map[uint8]uint32
	hits []hit
}

type trie struct {
	s     *Scanner
	nodes []trieNode
}

func (t *trie) add(texts []string, h hit) {
	for _, text := range texts {
		if len(text) == 1 {
			t.s.addSingle(text[0], h)
			continue
		}
		at := uint32(0)
		for i := range len(text) {
			c := t.s.class[text[i]]
			to, ok := t.nodes[at].next[c]
			if !ok {
				to = uint32(len(t.nodes))
				if t.nodes[at].next == nil {
					t.nodes[at].next = map[uint8]uint32{}
				}
				t.nodes[at].next[c] = to
				t.nodes = append(t.nodes, trieNode{})
			}
			at = to
		}
		t.nodes[at].hits = join(t.nodes[at].hits, h)
	}
}

// join adds a hit to a list, to the one of its word where there is one.
func join(list []hit, h hit) []hit {
	for i := range list {
		if list[i].group == h.group && list[i].word == h.word {
			list[i].mask |= h.mask
			return list
		}
	}
	return append(list, h)
}

func (s *Scanner) addSingle(c byte, h hit) {
	for i := range s.single {
		if s.single[i].bytes[0] == c {
			s.single[i].hits = join(s.single[i].hits, h)
			return
		}
	}
	both := []byte{c}
	if c >= 'a' && c <= 'z' {
		both = append(both, c-'a'+'A')
	}
	s.single = append(s.single, singleByte{both, []hit{h}})
}

// automaton makes the table: rows are premultiplied, so that a step is one add
// and one load.
func (t *trie) automaton() {
	s := t.s
	classes := int(s.width) - 1
	s.next = make([]uint32, len(t.nodes)*int(s.width))
	row := func(node uint32) []uint32 { return s.next[int(node)*int(s.width):][:s.width] }
	fail := make([]uint32, len(t.nodes))
	queue := []uint32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		own := row(at)
		if at != 0 {
			copy(own[:classes], row(fail[at]))
		}
		for c, to := range t.nodes[at].next {
			if at != 0 {
				fail[to] = own[c]
			}
			own[c] = to
			queue = append(queue, to)
		}
		if at != 0 {
			for _, h := range t.nodes[fail[at]].hits {
				t.nodes[at].hits = join(t.nodes[at].hits, h)
			}
		}
		if hits := t.nodes[at].hits; len(hits) > 0 {
			own[classes] = uint32(len(s.outputs))
			s.outputs = append(s.outputs, hits)
		}
	}
	for node := range t.nodes {
		for c, to := range row(uint32(node))[:classes] {
			premultiplied := to * s.width
			if len(t.nodes[to].hits) > 0 {
				premultiplied |= outputFlag
			}
			row(uint32(node))[c] = premultiplied
		}
	}
}

// NewHits gives room for a scan's result.
func (s *Scanner) NewHits() *Hits {
	return &Hits{first: s.first, words: make([]uint64, s.first[s.groups]), found: make([]uint64, len(s.open)), gates: make([]uint64, len(s.open))}
}

// Candidates tells which expressions of a group may match, bit i for
// expression i.
func (h *Hits) Candidates(group int) []uint64 { return h.words[h.first[group]:h.first[group+1]] }

// Found tells which groups have a candidate, as bits.
func (h *Hits) Found() []uint64 { return h.found }

// Open says that the gate of a group that has a candidate is open.
func (h *Hits) Open(group int) bool { return h.gates[group/wordBits]&(1<<(group%wordBits)) != 0 }

func (h *Hits) takeAll(list []hit) {
	for i := range list {
		h.take(&list[i])
	}
}

// take says whether a hit is new.
func (h *Hits) take(x *hit) bool {
	group := uint64(1) << (x.group % wordBits)
	if x.word < 0 {
		word := &h.gates[x.group/wordBits]
		was := *word
		*word |= group
		return *word != was
	}
	word := &h.words[x.word]
	was := *word
	*word |= x.mask
	h.found[x.group/wordBits] |= group
	return *word != was
}

// any says that a group has a candidate.
func (h *Hits) any() bool {
	for _, w := range h.found {
		if w != 0 {
			return true
		}
	}
	return false
}

// Scan finds the expressions that may match line and says whether anything may.
func (s *Scanner) Scan(line []byte, h *Hits) bool {
	for i, w := range h.found {
		for ; w != 0; w &= w - 1 {
			clear(h.Candidates(i*wordBits + bits.TrailingZeros64(w)))
		}
		h.found[i] = 0
	}
	copy(h.gates, s.open)
	h.takeAll(s.always)
	if s.skip != nil && s.skip.scan(line, h) {
		if !h.any() {
			return false
		}
		if s.gates == nil || s.gates.scan(line, h) {
			return true
		}
	}
	for i := range s.single {
		for _, c := range s.single[i].bytes {
			if bytes.IndexByte(line, c) >= 0 {
				h.takeAll(s.single[i].hits)
				break
			}
		}
	}
	row, next, class := uint32(0), s.next, &s.class
	if len(line) > headSize {
		if !h.headKnown || string(line[:headSize]) != string(h.head[:]) {
			copy(h.head[:], line)
			h.headRow, h.headKnown = s.quiet(h.head[:])
		}
		if h.headKnown {
			row, line = h.headRow, line[headSize:]
		}
	}
	for _, c := range line {
		row = next[row+uint32(class[c])]
		if row&outputFlag != 0 {
			row &^= outputFlag
			h.takeAll(s.outputs[next[row+s.width-1]])
		}
	}
	return h.any()
}

// quiet gives the row after text where no literal ends in it.
func (s *Scanner) quiet(text []byte) (row uint32, ok bool) {
	for _, c := range text {
		if row = s.next[row+uint32(s.class[c])]; row&outputFlag != 0 {
			return 0, false
		}
	}
	return row, true
}
