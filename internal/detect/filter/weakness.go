package filter

import (
	"fmt"

	"banmesh/internal/detect/pattern"
)

// A Weakness is a failregex with which a client chooses whom to name.
type Weakness struct {
	Rule int // from 0
	pattern.Weakness
}

func (w Weakness) String() string {
	if w.Open {
		return "nothing holds the expression to the start of the line, nor what follows the address to its end"
	}
	return fmt.Sprintf("%s may hold text like this line's, and what follows the address is not fixed to the end of the line", w.Field)
}

// Weaknesses gives at most one for each rule. Where several lines are matched
// together nothing can be said. A field cannot be moved, but an expression that
// looks for an address inside one can.
func (f *Filter) Weaknesses() []Weakness {
	if f.maxLines > 1 {
		return nil
	}
	var list []Weakness
	add := func(rule int, re, prefix *pattern.Regex) {
		found := re.Weaknesses(prefix)
		if len(found) == 0 {
			return
		}
		worst := found[0]
		for _, w := range found {
			if w.Shown {
				worst = w
			}
		}
		list = append(list, Weakness{Rule: rule, Weakness: worst})
	}
	for i, r := range f.failregex {
		add(i, r.Regex, f.Prefix())
	}
	if f.records == nil {
		return list
	}
	for i, rule := range f.records.rules {
		for _, c := range rule {
			if re := c.Regex(); re != nil {
				add(len(f.failregex)+i, re, nil)
			}
		}
	}
	return list
}
