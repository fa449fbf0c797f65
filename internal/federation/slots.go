package federation

import (
	"slices"
)

// Indexes of an author's slots.
const (
	ofChunks   = 0
	ofSegments = 1
)

// slots gives out the slots of one kind. One that is let go stays as it is
// until the pieces have changed twice.
type slots struct {
	used  map[int]bool
	fresh []int // let go by the change under way
	limbo []int // let go by the change before
}

func (s *slots) take() int {
	for slot := 0; ; slot++ {
		if !s.used[slot] && !slices.Contains(s.limbo, slot) && !slices.Contains(s.fresh, slot) {
			s.use(slot)
			return slot
		}
	}
}

func (s *slots) use(slot int) {
	if s.used == nil {
		s.used = map[int]bool{}
	}
	s.used[slot] = true
}

func (s *slots) drop(slot int) {
	delete(s.used, slot)
	s.fresh = append(s.fresh, slot)
}

// turn ends a change and gives the slots that nobody needs any more.
func (s *slots) turn() (free []int) {
	free, s.limbo, s.fresh = s.limbo, s.fresh, nil
	return free
}
