package pattern

// deadEnds are places, from to to, at which an endless repetition may end and the
// rest of the expression does not match, whatever came before. Every character
// between them is one that it repeats. A search that comes there again, as it does
// from each blank of a long row, goes on behind them; so no line costs its length
// squared. What follows depends on the place alone, but for back-references,
// conditions and the loops that remember where they began: where one of these
// changes, all dead ends are forgotten.
type deadEnds struct{ from, to int32 }

func (d *deadEnds) has(p int) bool { return int(d.from) <= p && p <= int(d.to) }

// longText is the length from which on it is remembered where loops were.
const longText = 512

// worthNoting is how many places are looked at anew sooner than remembered.
const worthNoting = 16

// note adds dead ends of one run of characters to those that are known of it.
func (t *thread) note(c *code, from, to int) {
	if c.memo < 0 || to-from < worthNoting {
		return
	}
	if !t.hasDead {
		for i := range t.dead {
			t.dead[i] = deadEnds{0, -1}
		}
		t.hasDead = true
	}
	d := &t.dead[c.memo]
	if a, b := int(d.from), int(d.to); a <= b && t.joins(c, from, to, a, b) {
		from, to = min(from, a), max(to, b)
	}
	d.from, d.to = int32(from), int32(to)
}

// joins says that two rows of places are of one run.
func (t *thread) joins(c *code, from, to, a, b int) bool {
	switch {
	case from <= b && a <= to:
		return true
	case to == a-1:
		return c.takes(t.s, to)
	case b == from-1:
		return c.takes(t.s, b)
	}
	return false
}

// forget lets go of all dead ends.
func (t *thread) forget() { t.hasDead, t.visited = false, nil }
