package filter

import (
	"time"

	"banmesh/internal/detect/dates"
)

// recent is for how long the last date serves for lines without one.
const recent = time.Minute

// A Follower gives whole lines of one stream to a [State]: it finds each
// line's date, cuts it out, and says when the line was written.
type Follower struct {
	*State
	Dates *dates.Detector

	// Of the last line: whether a date was found, its text, and the time that
	// the line counts as, which is zero when nothing says it. Dateless says that
	// the log has no dates, and that a line counts as written now.
	Dated    bool
	Dateless bool
	Date     string
	At       time.Time

	now      func() time.Time
	lastDate time.Time
	lastText string
	cut      []byte
	skipped  []skippedLine // a ring once it is full
	oldest   int
	since    int // lines since one that was worth trying
}

type skippedLine struct {
	text []byte
	at   time.Time
}

// Follow starts following a stream.
func (f *Filter) Follow(o dates.Options) (*Follower, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	d, err := f.Dates(o)
	if err != nil {
		return nil, err
	}
	return &Follower{State: f.NewState(o.Now), Dates: d, now: o.Now}, nil
}

// Cut finds a line's date and gives the line without it. A line without a date
// counts as written when the last one was, if that is not long ago. at is the
// time where the source tells it; zero asks for the line's own.
func (f *Follower) Cut(line []byte, at time.Time) []byte {
	f.Dated, f.Dateless, f.Date, f.At, f.parsed = false, false, "", at, false
	if !at.IsZero() {
		f.Dated, f.lastDate, f.lastText = true, at, ""
		return line
	}
	if f.f.records != nil && f.cutRecord(line) {
		return line
	}
	if f.f.records != nil && len(f.f.failregex) == 0 {
		return line // nobody looks at it
	}
	found := f.Dates.Find(line)
	rest := line
	if found.Matched {
		if date := line[found.From:found.To]; string(date) != f.lastText {
			f.Date = string(date)
		} else {
			f.Date = f.lastText
		}
		f.cut = append(append(f.cut[:0], line[:found.From]...), line[found.To:]...)
		rest = f.cut
	}
	if found.Matched && found.To > found.From && !found.Time.IsZero() {
		f.Dated, f.At = true, found.Time
		f.lastDate, f.lastText = found.Time, f.Date
		return rest
	}
	if f.lastDate.After(f.now().Add(-recent)) {
		f.At, f.Date = f.lastDate, f.lastText
		return line
	}
	if found.Matched && found.To == found.From {
		f.At, f.Dateless = f.now(), true // the pattern says that there is no date
	}
	return rest
}

// cutRecord finds the time that a field states; nothing is cut. A line that
// states none counts as written now. It is false for a line of no fields.
func (f *Follower) cutRecord(line []byte) bool {
	f.parsed, f.parsedFor = f.f.records.parse(&f.record, line), &f.line
	if !f.parsed {
		return false
	}
	f.At = f.when(f.Dates.Zone())
	if f.Dated = !f.At.IsZero(); !f.Dated {
		f.At, f.Dateless = f.now(), true
	}
	return true
}

// Take is Cut where the detector's [dates.Usual] found the line's date, which is
// the text date, and the detector is [dates.Detector.Fast].
func (f *Follower) Take(found dates.Found, date string, line []byte) {
	f.Dates.Took(found, line)
	f.Dated, f.Dateless, f.Date, f.At = true, false, date, found.Time
	f.lastDate, f.lastText = found.Time, date
}

// Line cuts a line and judges it.
func (f *Follower) Line(line []byte, at time.Time, candidates Candidates) []Match {
	rest := f.Cut(line, at)
	return f.Process(rest, f.Date, f.At, candidates)
}

// Skip notes a line without any text of the filter's, where
// several lines are matched together. It says false when the line must be
// tried all the same, because one shortly before was worth it.
func (f *Follower) Skip(line []byte, at time.Time) bool {
	if f.since > 0 {
		f.since--
		return false
	}
	if len(f.skipped) < f.f.maxLines-1 {
		f.skipped = append(f.skipped, skippedLine{append([]byte(nil), line...), at})
		return true
	}
	l := &f.skipped[f.oldest]
	l.text, l.at = append(l.text[:0], line...), at
	if f.oldest++; f.oldest == len(f.skipped) {
		f.oldest = 0
	}
	return true
}

// CatchUp puts skipped lines into the window before one that is worth trying.
func (f *Follower) CatchUp() {
	none := make(Candidates, (len(f.f.failregex)+63)/64)
	for i := range f.skipped {
		l := &f.skipped[(f.oldest+i)%len(f.skipped)]
		f.Line(l.text, l.at, none)
	}
	f.skipped, f.oldest = f.skipped[:0], 0
	f.since = f.f.maxLines - 1
}
