package policy

import "fmt"

// Recommended gives the rules for a topic in which count operators were named
// and no rule was written: a group, or `everyone`, is what they are called.
//
// Two or three people who know each other believe each other. From four on more
// operators than a third have to agree, so that a hostile third, which does
// agree with itself, bans nobody; where that takes long, as with many it does,
// watching bridges the time: one is enough to have somebody watched among up to
// seven, two from eight on. Claims with few hits, such as those of targets that
// were only watched, do not count for a ban, so that watching spreads nothing.
// docs/simulation.md shows what this keeps off and what it costs.
func Recommended(group string, count int) (ban, watch, require string) {
	switch {
	case count == 0:
		return "", "", ""
	case count <= 3:
		return "any of " + group, "", ""
	case count < 8:
		return fmt.Sprintf("%d of %s", count/3+1, group), "any of " + group, "hits >= 3"
	default:
		return fmt.Sprintf("%d of %s", count/3+1, group), "2 of " + group, "hits >= 3"
	}
}
