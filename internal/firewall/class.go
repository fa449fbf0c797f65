package firewall

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"banmesh/internal/ban"
)

// maxClasses bounds the combinations of topics, each of them a chain.
const maxClasses = 4_096

// intern gives the class of some sorted topics; by says for each of them whose
// word counts ([Ban.By]), nil for nobody's. Its number in the kernel is a hash of
// the names, so that it means the same to the next process.
func (s *state) intern(topics []ban.Topic, by []string) (uint16, error) {
	if !slices.ContainsFunc(by, func(s string) bool { return s != "" }) {
		by = nil
	}
	var name string
	if len(topics) == 1 {
		name = string(topics[0])
	} else {
		var b strings.Builder
		for _, t := range topics {
			b.WriteString(string(t))
			b.WriteByte('+')
		}
		name = b.String()
	}
	plain := name
	if by != nil {
		name += "/" + strings.Join(by, "/")
	}
	if i, ok := s.byTopics[name]; ok {
		return i, nil
	}
	if by != nil && len(s.classes) >= maxLabelled {
		if i, ok := s.byTopics[plain]; ok {
			return i, nil
		}
		name, by = plain, nil
	}
	if len(s.classes) >= maxClasses {
		return 0, fmt.Errorf("%d combinations of topics are too many", maxClasses)
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	id := h.Sum32()
	// 0 is the mark of every other packet. Of two combinations with one hash,
	// the later takes the next number.
	for id == 0 || s.byID[id] != 0 {
		id++
	}
	i := uint16(len(s.classes))
	s.classes = append(s.classes, class{id, slices.Clone(topics), slices.Clone(by)})
	s.byTopics[name] = i
	s.byID[id] = i
	return i, nil
}
