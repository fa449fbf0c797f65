package detect

import (
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A stall finds out that this node stood still. When a service does nothing for
// seconds, its clients give up, and all of it is logged at once when it goes
// on: a burst of weak offences that says nothing about who made them.
type stall struct {
	second int64 // of the burst at hand
	lines  int
	from   map[ban.Target]float64 // how much each one's weak offences in it counted
	found  bool
	last   int64   // the newest second before that was a burst
	known  []int64 // the seconds of the last stalls
}

// So many weak lines of one second are a burst: of several addresses, or of one
// that is as busy as that.
const (
	burstOfSeveral = 10
	severalSources = 3
	burstOfOne     = 20
	// keptSources bounds the addresses for which room is kept until the next second.
	keptSources = 64
)

// A stall is a moment: a burst on the heels of another one is a flood, and so
// is one burst more than so many in that time. Else who floods the log would
// hide in it.
const (
	stallQuiet = 3   // seconds
	mostStalls = 6   // within
	stallsSpan = 600 // seconds
)

// add notes a weak line. It says that the burst is known for a stall with this
// line, or is one.
func (s *stall) add(target ban.Target, at time.Time) (begins, is bool) {
	second := at.Unix()
	if second != s.second {
		if s.burst() {
			s.last = s.second
		}
		s.second, s.lines, s.found = second, 0, false
		if s.from == nil || len(s.from) > keptSources {
			s.from = map[ban.Target]float64{}
		}
		clear(s.from)
	}
	s.lines++
	s.from[target] += 0
	if s.found {
		return false, true
	}
	if !s.burst() || s.last != 0 && second-s.last < stallQuiet {
		return false, false
	}
	s.known = slices.DeleteFunc(s.known, func(t int64) bool { return second-t >= stallsSpan })
	if len(s.known) >= mostStalls {
		return false, false
	}
	s.known, s.found = append(s.known, second), true
	return true, true
}

func (s *stall) burst() bool {
	return s.lines >= burstOfOne || s.lines >= burstOfSeveral && len(s.from) >= severalSources
}
