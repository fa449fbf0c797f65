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
	end      int64 // the claim's own end
	capped   int64 // end under the topic's ttl
	long     int64 // end under the topic's confirmed ttl
	use      int64 // the one of the three that is being counted by
	held     bool
}

func (r *rules) ballot(v *Vote) ballot {
	since, end := v.Since.Unix(), v.End.Unix()
	return ballot{
		operator: v.Operator,
		since:    since,
		end:      end,
		capped:   min(end, since+int64(r.ttl/time.Second)),
		long:     min(end, since+int64(r.confirmedTTL/time.Second)),
	}
}

// bound selects which end of a ballot counts.
type bound uint8

const (
	byEnd bound = iota
	byTTL
	byConfirmedTTL
)

// arrange sorts ballots by the chosen end, longest first; ties are broken by
// operator, so that the order in which votes arrived never shows.
func arrange(ballots []ballot, by bound) {
	for i := range ballots {
		b := &ballots[i]
		switch by {
		case byEnd:
			b.use = b.end
		case byTTL:
			b.use = b.capped
		case byConfirmedTTL:
			b.use = b.long
		}
	}
	slices.SortFunc(ballots, func(a, b ballot) int {
		return cmp.Or(cmp.Compare(b.use, a.use), compareOperators(a.operator, b.operator), cmp.Compare(a.since, b.since))
	})
}

// lapse gives the part of n that the ballots meet now, and the exact moment at
// which they will stop to, if nothing changes; a nil part where they do not
// meet it. A claim counts for the topic's ttl, and for its confirmed ttl as
// long as a second seat claims the same. The ballots are left arranged for
// [node.by].
func (n *node) lapse(r *rules, ballots []ballot, now int64) (*node, int64) {
	if n == nil || len(ballots) == 0 {
		return nil, 0
	}
	arrange(ballots, byConfirmedTTL)
	_, confirmed := r.confirm.met(ballots, now)
	if confirmed > now {
		if part, long := n.met(ballots, now); part == nil || long <= confirmed {
			return part, long
		}
	}
	arrange(ballots, byTTL)
	part, short := n.met(ballots, now)
	if confirmed <= now || short > confirmed {
		return part, short
	}
	// It holds under the confirmed ttl until the confirmation lapses.
	arrange(ballots, byConfirmedTTL)
	part, _ = n.met(ballots, now)
	return part, confirmed
}

// met evaluates n over arranged ballots.
func (n *node) met(ballots []ballot, now int64) (*node, int64) {
	switch n.kind {
	case kindOr:
		var best *node
		until := int64(0)
		for _, k := range n.kids {
			if part, end := k.met(ballots, now); part != nil && end > until {
				best, until = part, end
			}
		}
		return best, until
	case kindAnd:
		until := int64(math.MaxInt64)
		for _, k := range n.kids {
			part, end := k.met(ballots, now)
			if part == nil {
				return nil, 0
			}
			until = min(until, end)
		}
		return n, until
	}
	if until := n.count(ballots, now, nil); until > now {
		return n, until
	}
	return nil, 0
}

// by lists the operators whose ballots meet n, a part that [node.lapse] gave.
func (n *node) by(q *Question, ballots []ballot, now int64) (list []ban.Operator) {
	if q.Brief {
		return nil
	}
	n.each(func(n *node) {
		if n.group != nil {
			var picked []ban.Operator
			if n.count(ballots, now, &picked) > now {
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
func (n *node) count(ballots []ballot, now int64, picked *[]ban.Operator) int64 {
	if n.within == 0 {
		return n.window(ballots, now, math.MinInt64, math.MaxInt64, picked)
	}
	// The votes that count lie in some window that begins at one of them.
	best, start := int64(0), int64(0)
	width := int64(n.within / time.Second)
	for i := range ballots {
		from := ballots[i].since
		if until := n.window(ballots, now, from, from+width, nil); until > best {
			best, start = until, from
		}
	}
	if picked != nil && best > now {
		n.window(ballots, now, start, start+width, picked)
	}
	return best
}

// window counts the ballots that arrived from one time to another, both
// included.
func (n *node) window(ballots []ballot, now, from, to int64, picked *[]ban.Operator) int64 {
	if n.kind == kindQuorum && n.group.simple && n.need <= fewSeats {
		return n.fewSimple(ballots, now, from, to, picked)
	}
	var taken []claimed
	sum := 0
	for i := range ballots {
		b := &ballots[i]
		if b.use <= now {
			return 0 // the rest ended even earlier
		}
		if b.since < from || b.since > to {
			continue
		}
		seats := n.group.members[b.operator]
		if len(seats) == 0 {
			continue
		}
		before := sum
		if n.kind == kindWeight {
			taken, sum = weigh(taken, sum, seats[0], b.operator)
		} else if sit(&taken, n.group, b.operator) {
			sum++
		}
		if sum > before && picked != nil {
			*picked = append(*picked, b.operator)
		}
		if sum >= n.need {
			return b.use
		}
	}
	return 0
}

// fewSeats is the largest quorum that is counted without allocating.
const fewSeats = 8

// fewSimple is window for the quorums that nearly all rules have: small, of
// operators with one seat each.
func (n *node) fewSimple(ballots []ballot, now, from, to int64, picked *[]ban.Operator) int64 {
	var taken [fewSeats]*operator
	sum := 0
next:
	for i := range ballots {
		b := &ballots[i]
		if b.use <= now {
			return 0 // the rest ended even earlier
		}
		if b.since < from || b.since > to {
			continue
		}
		seats := n.group.members[b.operator]
		if len(seats) == 0 {
			continue
		}
		for _, seat := range taken[:sum] {
			if seat == seats[0].of {
				continue next
			}
		}
		taken[sum] = seats[0].of
		sum++
		if picked != nil {
			*picked = append(*picked, b.operator)
		}
		if sum >= n.need {
			return b.use
		}
	}
	return 0
}

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
