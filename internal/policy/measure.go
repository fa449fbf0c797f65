package policy

import (
	"slices"

	"banmesh/internal/ban"
)

// A Record counts an operator's claims of addresses, weak ones left out, and
// those among them that were of guests of this node.
type Record struct {
	Claims int `json:"claims"`
	Guests int `json:"guests"`
}

// Rate is the share of claims that were of guests: the false positives that
// this node can see.
func (r Record) Rate() float64 { return float64(r.Guests) / float64(max(1, r.Claims)) }

// When an operator's claims are of guests too often: a few by chance, and a
// share, are forgiven. The rest is relative to the core, because attackers who
// log in somewhere become guests there, and honest peers who ban them would all
// be above any fixed share.
const (
	fewGuests   = 4
	guestsShare = 0.01
	overMedian  = 3
)

// Mistaken gives the operators whose claims are of guests far more often than
// those of the core: their claims should count for nothing until a person says
// otherwise. An operator of the core is compared with the others of it. Sorted.
func Mistaken(records map[ban.Operator]Record, core []ban.Operator) (list []ban.Operator) {
	for o, r := range records {
		if r.Guests < fewGuests || r.Rate() <= guestsShare {
			continue
		}
		var others []float64
		for _, c := range core {
			if c != o {
				others = append(others, records[c].Rate())
			}
		}
		if r.Rate() > overMedian*median(others) {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, compareOperators)
	return list
}

// median is the lower one of an even number of values, and 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}

// Core gives the operators that the topic's ban rule names, sorted.
func (p *Policy) Core(topic ban.Topic) (list []ban.Operator) {
	r := p.topics[topic]
	if r == nil {
		return nil
	}
	for _, g := range r.ban.groups() {
		for o := range g.members {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, compareOperators)
	return slices.Compact(list)
}
