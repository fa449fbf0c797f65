// Package dates finds the time in a log line as fail2ban does: the same
// templates in the same order of trying, the same text cut out of the line,
// the same meaning of a date's missing parts.
package dates

import (
	"time"
)

// Options say how dates are read. The zero value is the local time zone and
// the real clock.
type Options struct {
	// Now is the clock against which missing years and days are filled in.
	Now func() time.Time
	// Location is the zone of dates that name none.
	Location *time.Location
	// Zone, if set, is such a zone as fail2ban's logtimezone writes it: a
	// fixed offset ("UTC+0200", "+02:00") or an abbreviation ("CEST").
	Zone string
}

// Found is a line's date.
type Found struct {
	// From and To bound the date's text, which is cut out of the line. They
	// are equal where a template says that there is none.
	From, To int
	// Time is when; zero where the text is no possible date.
	Time time.Time
	// Matched says that a template fitted.
	Matched bool

	form uint8 // which of the usual ones
}
