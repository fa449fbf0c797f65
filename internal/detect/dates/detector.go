package dates

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/detect/pattern"
)

// unusedFor is how long a template must have found nothing before one that
// does may take its place whatever their weights.
const unusedFor = 5 * time.Minute

// A Detector finds dates in the lines of one stream. It remembers which
// template fitted last and where, so it belongs to one goroutine.
type Detector struct {
	o        Options
	usual    *Usual    // nil where its forms are not the first
	forms    [2]*entry // of the usual forms
	entries  []*entry
	none     *template // fits where none of the entries does; may be nil
	last     int       // index of the template that fitted last
	place    place
	unused   int // the first template that never fitted
	hits     map[string]int
	fastHits [2]int // of the two usual forms
	zone     *time.Location
	spans    []int
}

type entry struct {
	*template
	hits     int
	fitted   bool // it matched a line, whether it won or not
	lastUsed time.Time
	distance int
}

// A place is the last date's, with the characters around it.
type place struct {
	from, to             int
	before, first        string
	lastChar, afterwards string
}

func (e *entry) rank() float64 {
	return float64(e.hits) * e.weight / float64(max(1, e.distance))
}

// New makes a detector of a set of templates.
func (s *Set) New(o Options) (*Detector, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Detector{o: o, last: math.MaxInt, place: place{from: 1, to: math.MaxInt}, hits: map[string]int{}, zone: o.Location}
	if d.zone == nil {
		d.zone = time.Local
	}
	if o.Zone != "" {
		offset, err := ZoneOffset(o.Zone)
		if err != nil {
			return nil, err
		}
		d.zone = time.FixedZone(o.Zone, offset)
	}
	if s.usual {
		d.usual = &Usual{zone: d.zone}
	}
	d.none = s.none
	for _, t := range s.templates {
		d.entries = append(d.entries, &entry{template: t, distance: math.MaxInt})
		for i := range d.forms {
			if e := d.entries[len(d.entries)-1]; s.usual && e.pattern == lineBegin+defaults[i] {
				d.forms[i] = e
			}
		}
	}
	return d, nil
}

// Hits tells how often each template fitted, by name.
func (d *Detector) Hits() map[string]int {
	out := maps.Clone(d.hits)
	for _, e := range d.entries {
		for i := range d.fastHits {
			if e.pattern == lineBegin+defaults[i] && d.fastHits[i] > 0 {
				out[e.name] += d.fastHits[i]
			}
		}
	}
	return out
}

// Zone is that of dates that name none.
func (d *Detector) Zone() *time.Location { return d.zone }

// Find looks for the date of a line.
func (d *Detector) Find(line []byte) Found {
	if d.Fast() {
		if f, _, ok := d.usual.Find(line, d.o.Now()); ok {
			d.Took(f, line)
			return f
		}
	}
	t, spans := d.search(line)
	switch {
	case t == nil && d.none != nil:
		d.hits[d.none.name]++
		return Found{Matched: true}
	case t == nil:
		return Found{}
	}
	d.hits[t.name]++
	if len(spans) < 4 { // "(?)" and the like have no group to cut out
		return Found{From: spans[0], To: spans[0], Matched: true}
	}
	f := Found{From: spans[2], To: spans[3], Matched: true}
	if f.From < 0 { // a group of the pattern's own that took no part
		f.From, f.To = spans[0], spans[0]
	}
	if f.To > f.From {
		f.Time, _ = d.time(t, line, spans)
	}
	return f
}

// Usual gives the finder of the most usual forms of dates for this detector, nil
// where these are not its first. Detectors of one stream may
// share it, and its result with [Detector.Took].
func (d *Detector) Usual() *Usual { return d.usual }

// Fast says that a line which begins with a date of the usual forms has that one: no
// other template stands before theirs or fitted last, whose place would be tried first.
func (d *Detector) Fast() bool {
	return d.usual != nil && len(d.entries) > 1 && d.form(d.entries[0]) >= 0 && d.form(d.entries[1]) >= 0 &&
		(d.last >= len(d.entries) || d.form(d.entries[d.last]) >= 0)
}

// form gives the usual form that an entry's template is of, -1 for none.
func (d *Detector) form(e *entry) int { return slices.Index(d.forms[:], e) }

// Took counts a date that the detector's [Usual] found as found by it, so that templates
// rank as if it had searched.
func (d *Detector) Took(f Found, line []byte) {
	d.fastHits[f.form]++
	d.won(slices.Index(d.entries, d.forms[f.form]), []int{0, f.To}, line)
}

// match runs one template on a part of a line.
func (d *Detector) match(e *entry, line []byte, from, to int) []int {
	re, err := e.compiled()
	if err != nil || from > to {
		return nil
	}
	part := line[from:to]
	spans := re.Find(part, pattern.IsASCII(part), d.spans)
	if spans == nil {
		return nil
	}
	e.fitted = true
	d.spans = spans
	for i := range spans {
		if spans[i] >= 0 {
			spans[i] += from
		}
	}
	return spans
}

// maxBefore is where in a line a date ends at the latest: what a client makes
// long costs no more.
const maxBefore = 1 << 10

// search is fail2ban's way of choosing: the template that fitted last at the
// place where it did, else the first one that fits, unless its date stands
// further into the line than dates did before.
func (d *Detector) search(line []byte) (*template, []int) {
	line = line[:min(len(line), maxBefore)]
	var found []int
	winner, skip := -1, -1
	reserve, reserved := -1, []int(nil)
	if d.last < len(d.entries) {
		e := d.entries[d.last]
		switch {
		case e.anchored:
			found, skip = d.match(e, line, 0, len(line)), d.last
		case d.samePlace(line):
			found = d.match(e, line, d.place.from, min(d.place.to, len(line)))
		default:
			found, skip = d.match(e, line, 0, len(line)), d.last
		}
		if found != nil {
			if len(d.entries) == 1 || e.anchored || found[0] == d.place.from && found[1] == d.place.to {
				winner = d.last
			} else {
				reserve, reserved, found = d.last, append([]int(nil), found...), nil
			}
		}
	}
	if winner < 0 {
		for i, e := range d.entries {
			if i == skip {
				continue
			}
			found = d.match(e, line, 0, len(line))
			if found == nil {
				continue
			}
			at := found[0]
			winner = i
			if i+1 >= len(d.entries) || e.anchored || at == 0 && e.hits > 0 && !d.entries[i+1].fitted {
				break
			}
			if at > e.distance || at > d.place.from {
				if reserved == nil || at < reserved[0] {
					reserve, reserved = i, append([]int(nil), found...)
				}
				winner, found = -1, nil
				continue
			}
			break
		}
	}
	if winner < 0 || found == nil {
		if reserved == nil {
			return nil, nil
		}
		winner, found = reserve, reserved
	}
	return d.won(winner, found, line), found
}

// samePlace says that the line looks around the last place as the last one
// did, so that the last template may be tried there alone.
func (d *Detector) samePlace(line []byte) bool {
	p := d.place
	before := slice(line, p.from-1, p.from) == p.before ||
		slice(line, p.from, p.from+1) == p.first && !alphanumeric(p.first)
	after := slice(line, p.to, p.to+1) == p.afterwards ||
		slice(line, p.to-1, p.to) == p.lastChar && !alphanumeric(p.lastChar)
	return before && after && p.from <= len(line)
}

func slice(b []byte, from, to int) string {
	if from < 0 || from >= len(b) {
		return ""
	}
	return string(b[from:min(to, len(b))])
}

func alphanumeric(s string) bool { return s != "" && isWordByte(s[0]) && s != "_" }

// won notes a template's success and moves it towards the front.
func (d *Detector) won(i int, spans []int, line []byte) *template {
	e := d.entries[i]
	e.hits++
	e.lastUsed = d.o.Now()
	e.distance = spans[0]
	if d.unused == i {
		d.unused++
	}
	d.place = place{
		from: spans[0], to: spans[1],
		before: slice(line, spans[0]-1, spans[0]), first: slice(line, spans[0], spans[0]+1),
		lastChar: slice(line, spans[1]-1, spans[1]), afterwards: slice(line, spans[1], spans[1]+1),
	}
	if i > 0 && i != d.last {
		i = d.reorder(i)
	}
	d.last = i
	return e.template
}

func (d *Detector) reorder(i int) int {
	e := d.entries[i]
	to := i / 2
	if d.unused < i {
		to = d.unused
	}
	movable := func() bool {
		return e.rank() > d.entries[to].rank() || e.lastUsed.Add(-unusedFor).After(d.entries[to].lastUsed)
	}
	if !movable() {
		if to == i-1 {
			return i
		}
		if to = i - 1; !movable() {
			return i
		}
	}
	copy(d.entries[to+1:i+1], d.entries[to:i])
	d.entries[to] = e
	for d.unused < len(d.entries) && d.entries[d.unused].hits > 0 {
		d.unused++
	}
	return to
}

// time computes a match's time.
func (d *Detector) time(t *template, line []byte, spans []int) (time.Time, error) {
	text := func(group int) string {
		if 2*group+1 >= len(spans) || spans[2*group] < 0 {
			return ""
		}
		return string(line[spans[2*group]:spans[2*group+1]])
	}
	switch t.kind {
	case kindEpoch:
		return epoch(text(t.epoch), t.long)
	case kindTAI64N:
		return tai64(text(1))
	}
	re, err := t.compiled()
	if err != nil {
		return time.Time{}, err
	}
	var v values
	for i, name := range re.Names() {
		s := text(i)
		switch name {
		case "y":
			v.y = s
		case "Y":
			v.Y = s
		case "m":
			v.m = s
		case "b":
			v.b = s
		case "B":
			v.B = s
		case "d":
			v.d = s
		case "H":
			v.H = s
		case "I":
			v.I = s
		case "p":
			v.p = s
		case "M":
			v.M = s
		case "S":
			v.S = s
		case "a":
			v.a = s
		case "A":
			v.A = s
		case "w":
			v.w = s
		case "j":
			v.j = s
		case "U":
			v.U = s
		case "W":
			v.W = s
		case "z", "Z":
			v.z = s
		}
	}
	return v.date(d.o.Now(), d.zone)
}

// epoch reads seconds since 1970, with a fraction; long forms may also be
// milliseconds or microseconds.
func epoch(s string, long bool) (time.Time, error) {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return time.Time{}, errDate
	}
	if long && len(s) >= 13 {
		if len(s) >= 16 && !strings.Contains(s, ".") {
			f /= 1e6
		} else {
			f /= 1e3
		}
	}
	whole, fraction := math.Modf(f)
	return time.Unix(int64(whole), int64(math.Round(fraction*1e6))*1000), nil
}

// tai64 reads the seconds of a TAI64N label as fail2ban does: without the
// leap seconds between TAI and UTC.
func tai64(s string) (time.Time, error) {
	if len(s) < 17 {
		return time.Time{}, errDate
	}
	v, err := strconv.ParseInt(s[2:17], 16, 64)
	if err != nil {
		return time.Time{}, errDate
	}
	return time.Unix(v, 0), nil
}
