package detect

import (
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
}

// So many weak lines of one second are a burst: of several addresses, or of one
// that is as busy as that.
const (
	burstOfSeveral = 10
	severalSources = 3
	burstOfOne     = 20
)

// add notes a weak line. It says that the burst is known for one with this line,
// or is one.
func (s *stall) add(target ban.Target, at time.Time) (begins, is bool) {
	second := at.Unix()
	if second != s.second {
		*s = stall{second: second, from: map[ban.Target]float64{}}
	}
	s.lines++
	s.from[target] += 0
	if s.found {
		return false, true
	}
	s.found = s.lines >= burstOfOne || s.lines >= burstOfSeveral && len(s.from) >= severalSources
	return s.found, s.found
}
