package policy

import (
	"cmp"
	"math"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// ballot is a vote that counts, made ready for the rules. Times are Unix
// seconds, because verdicts are computed for millions of targets.
type ballot struct {
	operator ban.Operator
	since    int64
	end      int64 // its author's, or the topic's ttl, whichever is earlier
	held     bool
	weak     bool // counts only where a rule asks for weak evidence
	first    bool // may be the first vote of a quorum that bans
}

func (r *rules) ballot(v *Vote) ballot {
	since := v.Since.Unix()
	return ballot{operator: v.Operator, since: since, end: min(v.End.Unix(), since+r.ttl.of(v.Class, v.Basis))}
}

// arrange sorts ballots by their end, longest first; ties are broken by
// operator, so that the order in which votes arrived never shows.
func arrange(ballots []ballot) {
	if len(ballots) < 2 {
		return
	}
	slices.SortFunc(ballots, func(a, b ballot) int {
		return cmp.Or(cmp.Compare(b.end, a.end), compareOperators(a.operator, b.operator), cmp.Compare(a.since, b.since))
	})
}

// tally holds the ballots that a rule is evaluated over.
type tally struct {
	ballots []ballot // arranged
	now     int64
	// bans says that the rule bans: then somebody who is named has to have a
	// ballot that may be the first. That need not be one of the quorum: whom a
	// stranger found, those who watch it confirm.
	bans bool
}

// lapse gives the part of n that is met now, and the exact moment at which it
// will stop to be, if nothing changes; a nil part where it is not met. Of
// ballots sorted by end, the one that completes a quorum is the moment at which
// it lapses.
func (n *node) lapse(t tally) (*node, int64) {
	if n == nil || len(t.ballots) == 0 {
		return nil, 0
	}
	switch n.kind {
	case kindOr:
		var best *node
		until := int64(0)
		for _, k := range n.kids {
			if part, end := k.lapse(t); part != nil && end > until {
				best, until = part, end
			}
		}
		return best, until
	case kindAnd:
		until := int64(math.MaxInt64)
		for _, k := range n.kids {
			part, end := k.lapse(t)
			if part == nil {
				return nil, 0
			}
			until = min(until, end)
		}
		return n, until
	}
	if until := n.count(t, nil); until > t.now {
		return n, until
	}
	return nil, 0
}

// by lists the operators whose ballots meet n, a part that [node.lapse] gave.
func (n *node) by(t tally) (list []ban.Operator) {
	n.each(func(n *node) {
		if n.group != nil {
			var picked []ban.Operator
			if n.count(t, &picked) > t.now {
				for _, o := range picked {
					if !slices.Contains(list, o) {
						list = append(list, o)
					}
				}
			}
		}
	})
	return list
}

// count gives the moment at which a quorum or weight lapses, or a time that is
// not after now. With picked it lists whose ballots were counted.
func (n *node) count(t tally, picked *[]ban.Operator) int64 {
	if n.within == 0 {
		return n.window(t, math.MinInt64, math.MaxInt64, picked)
	}
	// The votes that count lie in some window that begins at one of them.
	best, start := int64(0), int64(0)
	width := int64(n.within / time.Second)
	for i := range t.ballots {
		from := t.ballots[i].since
		if until := n.window(t, from, from+width, nil); until > best {
			best, start = until, from
		}
	}
	if picked != nil && best > t.now {
		n.window(t, start, start+width, picked)
	}
	return best
}

// window counts the ballots that arrived from one time to another, both
// included.
func (n *node) window(t tally, from, to int64, picked *[]ban.Operator) int64 {
	var room [fewSeats]*operator
	var taken []claimed
	simple := n.kind == kindQuorum && n.group.simple && n.need <= fewSeats
	sum, first := 0, !t.bans
	for i := range t.ballots {
		b := &t.ballots[i]
		if b.end <= t.now {
			return 0 // the rest ended even earlier
		}
		if b.since < from || b.since > to || b.weak && !n.weak {
			continue
		}
		first = first || b.first
		seats := n.group.members[b.operator]
		before := sum
		switch {
		case sum >= n.need, len(seats) == 0:
			// At most the ballot that may be the first is missing.
		case simple:
			if !slices.Contains(room[:sum], seats[0].of) {
				room[sum] = seats[0].of
				sum++
			}
		case n.kind == kindWeight:
			taken, sum = weigh(taken, sum, seats[0], b.operator)
		case sit(&taken, n.group, b.operator):
			sum++
		}
		if picked != nil && (sum > before || sum >= n.need && first && b.first) {
			*picked = append(*picked, b.operator)
		}
		if sum >= n.need && first {
			return b.end
		}
	}
	return 0
}

// fewSeats is the largest quorum that is counted without allocating, where
// every operator has one seat: nearly all rules are of that kind.
const fewSeats = 8

// claimed is a seat that is counted, and for whom.
type claimed struct {
	seat   *operator
	by     ban.Operator
	weight int
}

// sit gives the operator a seat that nobody has, moving others to another seat
// of theirs where that helps (an augmenting path: the number of seats filled
// is the greatest possible, and never more than there are voters). It reports
// whether one more seat is filled.
func sit(taken *[]claimed, g *group, o ban.Operator) bool {
	for i := range *taken {
		if (*taken)[i].by == o {
			return false
		}
	}
	var room [8]*operator
	tried := room[:0]
	return augment(taken, g, o, &tried)
}

// augment is one step of sit; tried holds the seats that led nowhere.
func augment(taken *[]claimed, g *group, o ban.Operator, tried *[]*operator) bool {
	for _, s := range g.members[o] {
		if slices.Contains(*tried, s.of) {
			continue
		}
		*tried = append(*tried, s.of)
		at := slices.IndexFunc(*taken, func(c claimed) bool { return c.seat == s.of })
		if at < 0 {
			*taken = append(*taken, claimed{seat: s.of, by: o})
			return true
		}
		if augment(taken, g, (*taken)[at].by, tried) {
			(*taken)[at].by = o
			return true
		}
	}
	return false
}

// weigh adds a seat's weight; of several in one seat the heaviest counts.
func weigh(taken []claimed, sum int, s seat, o ban.Operator) ([]claimed, int) {
	for i := range taken {
		if taken[i].seat == s.of {
			if more := s.weight - taken[i].weight; more > 0 {
				taken[i].weight = s.weight
				return taken, sum + more
			}
			return taken, sum
		}
	}
	return append(taken, claimed{s.of, o, s.weight}), sum + s.weight
}
