package detect

import "time"

// A taint is on a stream after a line that shows that a client wrote a line
// break into the log: the next lines may be the client's.
type taint struct {
	pid   int
	lines int       // that are still doubted, whatever the clock says
	until time.Time // lines before it are doubted too
}

// A line break is followed by the client's text and the rest of the
// program's line within a moment. A log of the past has no clock, so there a
// number of lines is doubted.
const (
	taintLines = 8
	taintFor   = time.Second
	taintMost  = 10 * time.Second
)

func newTaint(pid int, now time.Time) taint {
	return taint{pid: pid, lines: taintLines, until: now.Add(taintFor)}
}

// covers says that a line is doubted, and counts it.
func (t *taint) covers(pid int, now time.Time, live bool) bool {
	if t.lines <= 0 && (!live || !now.Before(t.until)) || t.pid != pid {
		return false
	}
	t.lines--
	return !live || now.Before(t.until.Add(taintMost-taintFor))
}
