package desired

import (
	"math"
	"time"
)

// A second counts from the Unix epoch, to the year 2106.
type Second uint32

// Never is the end of a ban without end.
const Never Second = math.MaxUint32

// SecondOf rounds up, so that no ban ends early.
func SecondOf(t time.Time) Second {
	if t.IsZero() {
		return Never
	}
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return Second(min(max(s, 0), int64(Never)))
}

// Time gives the beginning of the second. The end of a ban without end has none.
func (s Second) Time() time.Time { return time.Unix(int64(s), 0) }
