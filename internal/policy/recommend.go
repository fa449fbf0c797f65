package policy

import "fmt"

// Recommended gives the rules for a topic in which count operators were named
// and no rule was written: a group, or `everyone`, is what they are called.
//
// Two or three people who know each other believe each other. From then on one
// of them is not enough to ban, and from eight on not enough to have somebody
// watched: docs/simulation.md shows what a hostile one could do otherwise, and
// that this keeps off as much. Claims with few hits, such as those of targets
// that were only watched, do not count for a ban.
func Recommended(group string, count int) (ban, watch, require string) {
	switch {
	case count == 0:
		return "", "", ""
	case count <= 3:
		return "any of " + group, "", ""
	case count < 8:
		return fmt.Sprintf("2 of %s", group), "any of " + group, "hits >= 3"
	default:
		return fmt.Sprintf("3 of %s", group), fmt.Sprintf("2 of %s", group), "hits >= 3"
	}
}
