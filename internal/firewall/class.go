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

// intern gives the class of some sorted topics. Its number in the kernel is a
// hash of their names, so that it means the same to the next process.
func (s *state) intern(topics []ban.Topic) (uint16, error) {
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
	if i, ok := s.byTopics[name]; ok {
		return i, nil
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
	s.classes = append(s.classes, class{id, slices.Clone(topics)})
	s.byTopics[name] = i
	s.byID[id] = i
	return i, nil
}
