package lists

import (
	"fmt"
	"slices"

	"banmesh/internal/ban"
)

// A Change compares an edition with the one before it.
type Change struct {
	Before int `json:"before"`
	After  int `json:"after"`
	Added  int `json:"added"`
	Gone   int `json:"gone"`
}

// Compare counts how a set of targets changed into another. Each has a target once.
func Compare(before, after []ban.Target) Change {
	was := make(map[ban.Target]struct{}, len(before))
	for _, t := range before {
		was[t] = struct{}{}
	}
	c := Change{Before: len(before), After: len(after)}
	for _, t := range after {
		if _, ok := was[t]; !ok {
			c.Added++
		}
	}
	c.Gone = c.Before - (c.After - c.Added)
	return c
}

// slack is how many entries any list may change by at once.
const slack = 50

// DefaultMaxChange is by how much of itself a list may change at once, in percent.
const DefaultMaxChange = 50

// Suspicious says why a person should look at a change before it counts, "" where
// nobody needs to: more is new, or gone, than a share of the list in percent, or all is gone.
func (c Change) Suspicious(percent int) string {
	room := max(slack, c.Before*percent/100)
	switch {
	case c.Before == 0:
		return ""
	case c.After == 0:
		return fmt.Sprintf("all of its %d entries are gone", c.Before)
	case c.Added > room:
		return fmt.Sprintf("it grew from %d entries to %d, of which %d are new", c.Before, c.After, c.Added)
	case c.Gone > room:
		return fmt.Sprintf("it lost %d of its %d entries", c.Gone, c.Before)
	}
	return ""
}

// Sorted gives targets in the order of feeds.
func Sorted(list []ban.Target) []ban.Target {
	return slices.SortedFunc(slices.Values(list), ban.Target.Compare)
}
