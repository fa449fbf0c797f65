package desired

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
func (s *State) intern(topics []ban.Topic, by []string) (uint16, error) {
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
	if by != nil && len(s.Classes) >= MaxLabelled {
		if i, ok := s.byTopics[plain]; ok {
			return i, nil
		}
		name, by = plain, nil
	}
	if len(s.Classes) >= maxClasses {
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
	i := uint16(len(s.Classes))
	s.Classes = append(s.Classes, Class{id, slices.Clone(topics), slices.Clone(by)})
	s.byTopics[name] = i
	s.byID[id] = i
	return i, nil
}

// A Class is a set of topics, which a ban's element in the kernel stands for.
type Class struct {
	ID     uint32
	Topics []ban.Topic // sorted
	by     []string    // for each topic whose word counts; nil for nobody's
}

// Chain names the chain of the class.
func (c Class) Chain() string { return fmt.Sprintf("class_%08x", c.ID) }

// Limits of [Ban.By].
const (
	maxNames = 8
	maxName  = 64
	// MaxLabelled bounds the classes that tell operators apart; beyond it new
	// combinations count for the topic alone, so that no ban is refused.
	MaxLabelled = 1_024
)

// Label gives [Ban.By] sorted, or "" where it is no list of names that the
// kernel can take for counters.
func Label(by string) string {
	if by == "" {
		return ""
	}
	names := strings.Split(by, ",")
	for _, n := range names {
		ok := len(n) > 0 && len(n) <= maxName
		for i := range len(n) {
			c := n[i]
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			return ""
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return strings.Join(names[:min(len(names), maxNames)], ",")
}

// Names gives the operators whose counters a class's bans in a topic raise.
func (c Class) Names(t ban.Topic) []string {
	i, ok := slices.BinarySearch(c.Topics, t)
	if !ok || c.by == nil || c.by[i] == "" {
		return nil
	}
	return strings.Split(c.by[i], ",")
}
