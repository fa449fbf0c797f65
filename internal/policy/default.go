package policy

import (
	"fmt"
	"strings"
)

// Rules are the expressions of one topic.
type Rules struct{ Ban, Watch, Suspect, Require string }

// known is how many operators a person can know; who names more knows few of
// them.
const known = 20

// quorum is how many operators of so many named ones ban. Two or three people
// who know each other believe each other. From four on more than a third have
// to agree, and three are enough among people that one knows: as many liars as
// the quorum ban whom they like, and each further vote costs the time in which
// an attacker visits one operator more.
func quorum(named int) int {
	switch {
	case named <= 3:
		return 1
	case named <= known:
		return min(3, named/3+1)
	}
	return named/3 + 1
}

// Recommended gives the rules for a topic in which count operators of a group
// are known and no rule was written. Whom one of them bans is watched, and so
// is whom three of them have weak evidence of; whom anyone who is named bans is
// a suspect. Bans need [quorum] operators, one of which saw three offences or
// decided: a ban of a watched target is a vote and never the first. Above
// twenty names two have to agree before somebody is watched.
// docs/simulation.md shows the benefit and the price.
func Recommended(group string, count int) Rules {
	if count == 0 {
		return Rules{}
	}
	r := Rules{Ban: "any of " + group, Watch: "any of " + group, Require: "hits >= 3"}
	if k := quorum(count); k > 1 {
		r.Ban = fmt.Sprintf("%d of %s", k, group)
	}
	if count > known {
		r.Watch = "2 of " + group
	}
	if count >= 3 {
		r.Watch += " or 3 weak of " + group
	}
	if count > known || group != "everyone" {
		r.Suspect = "any of everyone"
	}
	return r
}

// Join gives the rules of a group after one operator more was named beside
// those of before. Where the recommended quorum stays the same the newcomer is
// one voice more in it. Where it rises, those of before keep their rule,
// written out by name, and the newcomer counts in the stricter one beside it:
// nothing ends because somebody was named who says nothing, and nobody new bans
// alone. rules are [Recommended] or the result of Join, for the same group.
func (rules Rules) Join(group string, before []string) Rules {
	next := Recommended(group, len(before)+1)
	if len(before) == 0 {
		return next
	}
	last := Recommended(group, len(before))
	beside := func(rule, was, is string) string {
		if was == is || is == "" {
			return rule
		}
		if strings.HasPrefix(is, was+" or ") { // a part was added
			return rule + strings.TrimPrefix(is, was)
		}
		return writtenOut(rule, group, before) + " or " + is
	}
	return Rules{
		Ban:     beside(rules.Ban, last.Ban, next.Ban),
		Watch:   beside(rules.Watch, last.Watch, next.Watch),
		Suspect: or(rules.Suspect, next.Suspect),
		Require: rules.Require,
	}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// writtenOut replaces a group in a rule by the names that are in it now.
func writtenOut(rule, group string, names []string) string {
	list := strings.Join(names, ", ")
	var out []string
	for _, part := range strings.Split(rule, " or ") {
		if head, ok := strings.CutSuffix(part, " of "+group); ok {
			part = head + " of " + list
		}
		out = append(out, part)
	}
	return strings.Join(out, " or ")
}
