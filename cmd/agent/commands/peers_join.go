package commands

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
)

// joined gives the rules of topics in which naming more operators changes the
// recommended ones: those of before keep their rule, written out, and the
// newcomers count in the stricter one beside it. Nothing ends because somebody
// was named who says nothing, and nobody new bans alone.
func joined(set *settings.Settings, names ...string) map[ban.Topic]policy.Rules {
	src := set.Policy().Source()
	before := slices.Sorted(maps.Keys(src.Operators))
	names = slices.DeleteFunc(slices.Clone(names), func(s string) bool { return slices.Contains(before, s) })
	if len(names) == 0 || len(src.Groups["core"]) > 0 {
		return nil
	}
	const group = "everyone"
	last := policy.Recommended(group, len(before))
	list := map[ban.Topic]policy.Rules{}
	for _, t := range set.Topics() {
		if !t.Subscribe {
			continue
		}
		rules := last
		switch file := set.RuleFile(t.Topic); {
		case file == "":
		case filepath.Base(file) != peersDropIn+".toml":
			continue // a person's
		default:
			now := set.Rules(t.Topic)
			rules = policy.Rules{Ban: now.Ban, Watch: now.Watch, Suspect: now.Suspect, Require: now.Require}
			if last.Ban == "" || !strings.HasSuffix(rules.Ban, last.Ban) {
				continue // chosen name by name
			}
		}
		next, known := rules, slices.Clone(before)
		for _, name := range names {
			next = next.Join(group, known)
			known = append(known, name)
		}
		if next != policy.Recommended(group, len(known)) && next != rules {
			list[t.Topic] = next
		}
	}
	return list
}

// setRules writes rules of topics into a drop-in file.
func setRules(tree map[string]any, rules map[ban.Topic]policy.Rules) {
	for topic, r := range rules {
		t := config.Table(tree, "topics", string(topic))
		for key, text := range map[string]string{"ban": r.Ban, "watch": r.Watch, "suspect": r.Suspect, "require": r.Require} {
			if text != "" {
				t[key] = text
			}
		}
	}
}
