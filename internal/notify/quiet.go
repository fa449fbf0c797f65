package notify

import (
	"fmt"
	"time"
)

// Quiet are hours in which nothing but urgent kinds is sent, by the clock on the
// wall of the machine's time zone. The zero Quiet has none.
type Quiet struct{ from, to int } // minutes of the day

// ParseQuiet reads "22:00-07:00"; "" means none.
func ParseQuiet(s string) (Quiet, error) {
	if s == "" {
		return Quiet{}, nil
	}
	var a, b, c, d int
	if n, err := fmt.Sscanf(s, "%2d:%2d-%2d:%2d", &a, &b, &c, &d); err != nil || n != 4 || s != fmt.Sprintf("%02d:%02d-%02d:%02d", a, b, c, d) || a > 23 || c > 23 || b > 59 || d > 59 {
		return Quiet{}, fmt.Errorf("%.32q are no hours such as 22:00-07:00", s)
	}
	q := Quiet{60*a + b, 60*c + d}
	if q.from == q.to {
		return Quiet{}, fmt.Errorf("%q begins when it ends", s)
	}
	return q, nil
}

// String gives the hours as [ParseQuiet] reads them.
func (q Quiet) String() string {
	if q == (Quiet{}) {
		return ""
	}
	return fmt.Sprintf("%02d:%02d-%02d:%02d", q.from/60, q.from%60, q.to/60, q.to%60)
}

// End gives when the quiet hours end that t is in, zero where it is in none. On
// the day of a change of clocks it is the first moment at or behind the time
// that is written.
func (q Quiet) End(t time.Time) time.Time {
	at := 60*t.Hour() + t.Minute()
	inside := at >= q.from && at < q.to
	if q.from > q.to {
		inside = at >= q.from || at < q.to
	}
	if !inside {
		return time.Time{}
	}
	day := t.Day()
	if at >= q.to {
		day++
	}
	end := time.Date(t.Year(), t.Month(), day, q.to/60, q.to%60, 0, 0, t.Location())
	if !end.After(t) { // the hour came twice
		end = end.Add(time.Hour)
	}
	return end
}
