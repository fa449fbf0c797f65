package pattern

// maxVariants bounds how many copies of a tail conditionals may make.
const maxVariants = 32

// eliminate rewrites conditionals away: X(?P<g>y)?Z(?(g)A|B) is
// X(?:(?P<g>y)ZA|ZB), which tries paths in the same order. It gives nil where
// that cannot be said, and root itself where there is nothing to do.
func eliminate(root *node) *node {
	asked := map[int]bool{}
	walk(root, func(n *node) {
		if n.op == opCond {
			asked[n.index] = true
		}
	})
	e := &eliminator{asked: asked, choices: choices(root)}
	if len(asked)+len(e.choices) == 0 {
		return root
	}
	out := e.tail([]*node{root}, nil)
	if e.failed {
		return nil
	}
	return out
}

func walk(n *node, f func(*node)) {
	f(n)
	for _, s := range n.subs {
		walk(s, f)
	}
}

// choices finds groups of one character out of a few that are referred back
// to, such as (?P<sep>[-/]), and gives their characters.
func choices(root *node) map[int][]rune {
	referred := map[int]bool{}
	walk(root, func(n *node) {
		if n.op == opBackref && !n.fold {
			referred[n.index] = true
		}
	})
	out := map[int][]rune{}
	walk(root, func(n *node) {
		if n.op != opGroup || !referred[n.index] || n.subs[0].op != opClass || n.subs[0].fold {
			return
		}
		c := n.subs[0].class
		if c.negative || len(c.escapes) > 0 {
			return
		}
		var runes []rune
		for _, r := range c.ranges {
			for x := r.low; x <= r.high && len(runes) < maxVariants; x++ {
				runes = append(runes, x)
			}
		}
		if len(runes) <= 4 {
			out[n.index] = runes
		}
	})
	return out
}

type eliminator struct {
	asked   map[int]bool
	choices map[int][]rune
	copies  int
	failed  bool
}

// A fact says which groups have taken part so far.
type fact struct {
	group int
	took  bool
	r     rune // of a choice
	next  *fact
}

func (f *fact) chose(group int) (rune, bool) {
	for ; f != nil; f = f.next {
		if f.group == group && f.r != 0 {
			return f.r, true
		}
	}
	return 0, false
}

func (f *fact) of(group int) (took, known bool) {
	for ; f != nil; f = f.next {
		if f.group == group {
			return f.took, true
		}
	}
	return false, false
}

type variant struct {
	n     *node
	facts *fact
}

// relevant says that n decides or asks whether a group took part.
func (e *eliminator) relevant(n *node) (yes bool) {
	walk(n, func(m *node) {
		yes = yes || m.op == opCond || m.op == opGroup && e.asked[m.index] ||
			(m.op == opBackref || m.op == opGroup) && e.choices[m.index] != nil
	})
	return yes
}

// tail rewrites a sequence; the rest after a choice is copied into each branch.
func (e *eliminator) tail(list []*node, facts *fact) *node {
	var done []*node
	for i, n := range list {
		if e.failed {
			return n
		}
		if n.op == opCat {
			rest := append(append([]*node{}, n.subs...), list[i+1:]...)
			return cat(append(done, e.tail(rest, facts)))
		}
		if !e.relevant(n) {
			done = append(done, n)
			continue
		}
		vs := e.variants(n, facts)
		if len(vs) == 1 {
			done, facts = append(done, vs[0].n), vs[0].facts
			continue
		}
		alt := &node{op: opAlt}
		for _, v := range vs {
			if e.copies++; e.copies > maxVariants {
				e.failed = true
				return n
			}
			alt.subs = append(alt.subs, cat([]*node{v.n, e.tail(list[i+1:], v.facts)}))
		}
		return cat(append(done, alt))
	}
	return cat(done)
}

func cat(list []*node) *node {
	switch len(list) {
	case 0:
		return &node{op: opEmpty}
	case 1:
		return list[0]
	}
	return &node{op: opCat, subs: list}
}

// variants gives the ways in which n can take part, in the order of trying.
func (e *eliminator) variants(n *node, facts *fact) []variant {
	fail := func() []variant {
		e.failed = true
		return []variant{{n, facts}}
	}
	if !e.relevant(n) {
		return []variant{{n, facts}}
	}
	switch n.op {
	case opCond:
		took, known := facts.of(n.index)
		if !known {
			took = false // a group that stands later or nowhere has not taken part
		}
		branch := n.subs[1]
		if took {
			branch = n.subs[0]
		}
		return e.variants(branch, facts)
	case opBackref:
		r, ok := facts.chose(n.index)
		if !ok {
			return fail()
		}
		return []variant{{&node{op: opLiteral, r: r}, facts}}
	case opGroup:
		if runes := e.choices[n.index]; runes != nil {
			var vs []variant
			for _, r := range runes {
				copied := *n
				copied.subs = []*node{{op: opLiteral, r: r}}
				vs = append(vs, variant{&copied, &fact{group: n.index, took: true, r: r, next: facts}})
			}
			return vs
		}
		vs := e.variants(n.subs[0], facts)
		for i := range vs {
			copied := *n
			copied.subs = []*node{vs[i].n}
			vs[i].n = &copied
			if e.asked[n.index] {
				vs[i].facts = &fact{group: n.index, took: true, next: vs[i].facts}
			}
		}
		return vs
	case opAlt:
		var all []variant
		for _, s := range n.subs {
			vs := e.variants(s, facts)
			for i := range vs {
				vs[i].facts = e.absent(n, s, vs[i].facts)
			}
			all = append(all, vs...)
		}
		if len(all) > maxVariants {
			return fail()
		}
		return all
	case opRepeat:
		if n.max != 1 || n.min != 0 || n.possessive {
			if n.max == 1 && n.min == 1 {
				return e.variants(n.subs[0], facts)
			}
			return fail()
		}
		with := e.variants(n.subs[0], facts)
		without := variant{&node{op: opEmpty}, e.absent(n, nil, facts)}
		if n.lazy {
			return append([]variant{without}, with...)
		}
		return append(with, without)
	case opCat:
		// Exact only where the part before the choice has a single path.
		vs := []variant{{&node{op: opEmpty}, facts}}
		for i, s := range n.subs {
			if !e.relevant(s) {
				for j := range vs {
					vs[j].n = cat([]*node{vs[j].n, s})
				}
				continue
			}
			for _, before := range n.subs[:i] {
				if !singlePath(before) {
					return fail()
				}
			}
			var next []variant
			for _, v := range vs {
				for _, w := range e.variants(s, v.facts) {
					next = append(next, variant{cat([]*node{v.n, w.n}), w.facts})
				}
			}
			if vs = next; len(vs) > maxVariants {
				return fail()
			}
		}
		return vs
	}
	return fail()
}

// absent notes every asked group inside whole, but not inside taken, as not
// having taken part.
func (e *eliminator) absent(whole, taken *node, facts *fact) *fact {
	inside := map[int]bool{}
	if taken != nil {
		walk(taken, func(m *node) { inside[m.index] = inside[m.index] || m.op == opGroup })
	}
	walk(whole, func(m *node) {
		if m.op == opGroup && e.asked[m.index] && !inside[m.index] {
			facts = &fact{group: m.index, next: facts}
		}
	})
	return facts
}

// singlePath says that n can match in one way only at any place.
func singlePath(n *node) bool {
	switch n.op {
	case opAlt, opCond:
		return false
	case opRepeat:
		if n.min != n.max {
			return false
		}
	}
	for _, s := range n.subs {
		if !singlePath(s) {
			return false
		}
	}
	return true
}
