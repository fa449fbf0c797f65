package federation

import (
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// changes are successive steps of a feed gathered into one: the last word
// about each target.
type changes map[ban.Key]lastWord

// A lastWord is the entry that was put, or nil and why the claim was withdrawn.
type lastWord struct {
	entry  *wire.Entry
	reason ban.Reason
}

// add gathers a step.
func (c changes) add(up []wire.Entry, down []wire.Withdrawal) {
	for i := range up {
		e := up[i]
		c[e.Key] = lastWord{entry: &e}
	}
	for _, w := range down {
		c[w.Key] = lastWord{reason: w.Reason}
	}
}

// step gives the gathered step, sorted.
func (c changes) step() (up []wire.Entry, down []wire.Withdrawal) {
	for k, last := range c {
		if last.entry != nil {
			up = append(up, *last.entry)
		} else {
			down = append(down, wire.Withdrawal{Key: k, Reason: last.reason})
		}
	}
	slices.SortFunc(up, func(x, y wire.Entry) int { return ban.CompareKeys(&x.Key, &y.Key) })
	slices.SortFunc(down, wire.CompareWithdrawals)
	return up, down
}
