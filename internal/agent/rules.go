package agent

import "banmesh/internal/ban"

// RuleFile is the file in which a person or a command wrote the topic's ban or
// watch rule, or "" where the default applies.
func (s *Settings) RuleFile(topic ban.Topic) string {
	key, t := "topics."+string(topic), s.config.Topics[string(topic)]
	switch {
	case t.Ban != "":
		return s.config.At(key+".ban", "").File
	case t.Watch != "":
		return s.config.At(key+".watch", "").File
	}
	return ""
}
