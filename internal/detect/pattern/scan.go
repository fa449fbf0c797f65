package pattern

// A Scanner finds, in one pass over a line, which of many expressions may
// match it: an Aho-Corasick automaton over the expressions' required literals,
// letters folded. Expressions without a literal are always candidates.
type Scanner struct {
	words   int // of a candidate set
	always  []uint64
	class   [256]uint8
	classes int
	next    []uint32 // state*classes+class: the next state, times classes
	output  []int32  // by state: index into sets, -1 for none
	sets    [][]uint64
}

// outputFlag marks a transition into a state in which a literal ends.
const outputFlag = 1 << 31

// NewScanner builds a scanner of sets of literals; literals[i] are those of
// expression i, nil when it has none.
func NewScanner(literals [][]string) *Scanner {
	s := &Scanner{words: (len(literals) + 63) / 64}
	s.always = make([]uint64, s.words)
	s.classify(literals)
	type trieNode struct {
		next map[uint8]uint32
		set  []uint64
	}
	trie := []trieNode{{next: map[uint8]uint32{}}}
	for id, texts := range literals {
		if len(texts) == 0 {
			s.always[id/64] |= 1 << (id % 64)
		}
		for _, text := range texts {
			at := uint32(0)
			for i := range len(text) {
				c := s.class[text[i]]
				to, ok := trie[at].next[c]
				if !ok {
					to = uint32(len(trie))
					trie[at].next[c] = to
					trie = append(trie, trieNode{next: map[uint8]uint32{}})
				}
				at = to
			}
			if trie[at].set == nil {
				trie[at].set = make([]uint64, s.words)
			}
			trie[at].set[id/64] |= 1 << (id % 64)
		}
	}
	s.next = make([]uint32, len(trie)*s.classes)
	s.output = make([]int32, len(trie))
	fail := make([]uint32, len(trie))
	queue := []uint32{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c := range s.classes {
			to, ok := trie[at].next[uint8(c)]
			switch {
			case !ok && at == 0:
			case !ok:
				s.next[int(at)*s.classes+c] = s.next[int(fail[at])*s.classes+c]
			default:
				if at != 0 {
					fail[to] = s.next[int(fail[at])*s.classes+c]
				}
				s.next[int(at)*s.classes+c] = to
				queue = append(queue, to)
			}
		}
		set := trie[at].set
		if inherited := trie[fail[at]].set; at != 0 && inherited != nil {
			if set == nil {
				set = make([]uint64, s.words)
			}
			for i, w := range inherited {
				set[i] |= w
			}
		}
		trie[at].set = set
		s.output[at] = -1
		if set != nil {
			s.output[at] = int32(len(s.sets))
			s.sets = append(s.sets, set)
		}
	}
	// Premultiply, so that a step is one add and one load; the flag says that
	// a literal ends here.
	for i, to := range s.next {
		s.next[i] = to * uint32(s.classes)
		if s.output[to] >= 0 {
			s.next[i] |= outputFlag
		}
	}
	return s
}

// classify gives each byte that occurs in a literal a class of its own, a
// letter and its capital the same one; class 0 is everything else.
func (s *Scanner) classify(literals [][]string) {
	s.classes = 1
	for _, texts := range literals {
		for _, text := range texts {
			for i := range len(text) {
				if c := text[i]; s.class[c] == 0 {
					s.class[c] = uint8(s.classes)
					s.classes++
				}
			}
		}
	}
	for c := byte('a'); c <= 'z'; c++ {
		s.class[c-'a'+'A'] = s.class[c]
	}
}

// Words is the length of a candidate set.
func (s *Scanner) Words() int { return s.words }

// Scan sets candidates to the expressions that may match line, bit i for
// expression i, and says whether there are any.
func (s *Scanner) Scan(line []byte, candidates []uint64) bool {
	copy(candidates, s.always)
	any := false
	for _, w := range s.always {
		any = any || w != 0
	}
	state, next, class := uint32(0), s.next, &s.class
	for _, c := range line {
		state = next[state+uint32(class[c])]
		if state&outputFlag != 0 {
			state &^= outputFlag
			any = true
			for i, w := range s.sets[s.output[state/uint32(s.classes)]] {
				candidates[i] |= w
			}
		}
	}
	return any
}
