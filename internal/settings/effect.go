package settings

import (
	"maps"

	"banmesh/internal/ban"
	"banmesh/internal/neverban"
	"banmesh/internal/policy"
)

// Rules are the expressions that are in force in a topic, the recommended ones
// where a person wrote none.
type Rules struct {
	Accept                       bool
	Ban, Watch, Suspect, Require string
}

// Rules gives the rules of a topic.
func (s *Settings) Rules(topic ban.Topic) Rules {
	t := s.policy.Source().Topics[string(topic)]
	if !on(s.config.Topics[string(topic)].Subscribe) {
		return Rules{}
	}
	return Rules{true, t.Ban, t.Watch, t.Suspect, t.Require}
}

// RuleChange is a topic whose rules differ.
type RuleChange struct {
	Topic         ban.Topic
	Before, After Rules
}

// RuleChanges gives the topics whose rules differ between two settings, by name.
// before may be nil.
func RuleChanges(before, after *Settings) (list []RuleChange) {
	for _, t := range after.topics {
		x := RuleChange{Topic: t.Topic, After: after.Rules(t.Topic)}
		if before != nil {
			x.Before = before.Rules(t.Topic)
		}
		if x.Before != x.After {
			list = append(list, x)
		}
	}
	return list
}

// NewlyNever gives the never-ban entries of other settings, of their files and
// packs, that these do not have.
func (s *Settings) NewlyNever(other *Settings) (list []neverban.Entry) {
	known := make(map[neverban.Entry]struct{}, len(s.shields.never))
	for _, e := range s.shields.never {
		known[e] = struct{}{}
	}
	for _, e := range other.shields.never {
		if _, ok := known[e]; !ok {
			list = append(list, e)
		}
	}
	return list
}

// WithRules gives the policy with other rules in a topic, which is accepted
// then. Nothing else changes.
func (s *Settings) WithRules(topic ban.Topic, r Rules) (*policy.Policy, error) {
	src := s.policy.Source()
	src.Topics = maps.Clone(src.Topics)
	if src.Topics == nil {
		src.Topics = map[string]policy.TopicSource{}
	}
	t := src.Topics[string(topic)]
	t.Accept, t.Ban, t.Watch, t.Suspect, t.Require = true, r.Ban, r.Watch, r.Suspect, r.Require
	src.Topics[string(topic)] = t
	return policy.Compile(src, s.trusting.lists)
}
