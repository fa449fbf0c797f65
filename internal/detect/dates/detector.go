package dates

import "time"

// A Detector finds dates in the lines of one stream. It remembers what fitted
// last, so it belongs to one goroutine.
type Detector struct {
	o Options
}

// New makes a detector of datepatterns; none means the usual places.
func New(patterns []string, o Options) (*Detector, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Location == nil {
		o.Location = time.Local
	}
	return &Detector{o: o}, nil
}

// Find looks for the date of a line.
func (d *Detector) Find(line []byte) Found {
	to, at, ok := fast(line, d.o.Now, d.o.Location)
	return Found{To: to, Time: at, Matched: ok}
}
