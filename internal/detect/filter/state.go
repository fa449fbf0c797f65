package filter

import (
	"math/bits"
	"strings"
	"time"

	"banmesh/internal/detect/fields"
	"banmesh/internal/detect/pattern"
)

// A Match is an offence that a line proves, or with [State.All] also a line
// that a failregex knows to be none.
type Match struct {
	// Rule is the index of the failregex, from 0.
	Rule int
	// ID is who did it: an address, a name, or the text of <F-ID>. It is ""
	// where the lines so far do not say.
	ID string
	// Address is set where ID is something else and the address is known too.
	Address string
	// Named says that ID is a host name.
	Named bool
	// Bits is a prefix length that the line states with ID, or 0.
	Bits string
	// From is where in the matched text ID stands, -1 when an earlier line
	// named it. Text is that text.
	From int
	Text string
	// NoFail says that this line is no offence of its own.
	NoFail bool
	// Success says that the line proves a login instead.
	Success bool
	Fields  Fields
	// Users are all users that were tried on one connection.
	Users []string
	// Lines are the lines that make the offence.
	Lines []string
}

// A tuple is a line without its date, and the date's text.
type tuple struct{ text, date string }

// maxKept bounds the lines kept as evidence of one connection.
const maxKept = 64

// A State follows one stream of lines. It belongs to one goroutine.
type State struct {
	f *Filter
	// All tries every failregex and reports lines that are no offences too, as
	// fail2ban's own tests ask.
	All bool
	// OnIgnore, if set, is told which ignoreregex matched.
	OnIgnore func(index int)

	now         func() time.Time
	connections connections
	window      []tuple // the last lines, when several are matched together
	line        Text    // the last line, or those matched together
	buffer      []byte
	alone       [1]tuple
	spans       []int
	preSpans    []int
	pre, work   Fields
	out         []Match
	// Of a filter of records: the line's fields, and whether they are those of
	// the line at hand.
	record    fields.Record
	parsed    bool
	parsedFor *Text
}

// NewState starts following a stream.
func (f *Filter) NewState(now func() time.Time) *State {
	s := &State{f: f, now: now}
	// Room for the captures of any of them, matched or not.
	groups := 0
	for _, r := range f.failregex {
		groups = max(groups, len(r.Names()))
	}
	s.spans = make([]int, 2*groups)
	if f.prefregex != nil {
		s.preSpans = make([]int, 2*len(f.prefregex.Names()))
	}
	return s
}

// Candidates tells which failregexes may match, bit i for failregex i; nil
// means all of them.
type Candidates []uint64

// next gives the first one from i on, or n when there is none below that.
func (c Candidates) next(i, n int) int {
	if c == nil {
		return min(i, n)
	}
	for i < n {
		if w := c[i/64] >> (i % 64); w != 0 {
			return min(i+bits.TrailingZeros64(w), n)
		}
		i = i/64*64 + 64
	}
	return n
}

// A Text is a line without its date as expressions see it, prepared once for
// all filters that look at it.
type Text struct {
	buf   []byte // with a newline
	ascii bool
	text  string // the same, once it was asked for
}

// Set makes the text of a line.
func (t *Text) Set(line []byte) {
	t.buf = append(append(t.buf[:0], line...), '\n')
	t.ascii, t.text = pattern.IsASCII(t.buf), ""
}

func (t *Text) String() string {
	if t.text == "" {
		t.text = string(t.buf)
	}
	return t.text
}

// join makes the text of several lines.
func (t *Text) join(lines []tuple) {
	t.buf = t.buf[:0]
	for _, l := range lines {
		t.buf = append(append(t.buf, l.text...), '\n')
	}
	t.ascii, t.text = pattern.IsASCII(t.buf), ""
}

// Process looks at the next line: text is the line with its date cut out, date
// what was cut, at when the line was written. The result is valid until the
// next call.
func (s *State) Process(text []byte, date string, at time.Time, candidates Candidates) []Match {
	return s.Judge(s.Prepare(text), date, at, candidates)
}

// Prepare makes a text that is valid until the next call.
func (s *State) Prepare(line []byte) *Text {
	s.line.Set(line)
	return &s.line
}

// Judge is Process for a text that others look at too.
func (s *State) Judge(line *Text, date string, at time.Time, candidates Candidates) []Match {
	f := s.f
	s.out = s.out[:0]
	if f.records != nil && s.judgeRecord(line, candidates) {
		return s.out
	}
	// The line alone becomes a string when something matched.
	org := s.alone[:]
	org[0] = tuple{}
	if f.maxLines > 1 {
		s.window = append(s.window, tuple{string(line.buf[:len(line.buf)-1]), date})
		if drop := len(s.window) - f.maxLines; drop > 0 {
			s.window = append(s.window[:0:0], s.window[drop:]...)
		}
		org = s.window
		line = &s.line
		line.join(org)
	}
	if f.ignoreFirst && s.ignored(line.buf, org, nil) >= 0 {
		return nil
	}
	s.pre = s.pre[:0]
	buf, ascii, from := line.buf, line.ascii, 0 // from: where in line buf begins, -1 for elsewhere
	pre := f.prefregex != nil
	if pre {
		spans := f.prefregex.Find(buf, ascii, s.preSpans)
		if spans == nil {
			return nil
		}
		s.preSpans = spans
		if g := f.prefregex.content; g >= 0 && spans[2*g] >= 0 && spans[2*g+1] > spans[2*g] {
			if spans[2*g+1] == len(buf)-1 {
				from = spans[2*g]
				buf = buf[from:]
			} else {
				s.buffer = append(append(s.buffer[:0], buf[spans[2*g]:spans[2*g+1]]...), '\n')
				buf, from = s.buffer, -1
			}
			ascii = ascii || pattern.IsASCII(buf)
			if f.maxLines > 1 {
				s.window = []tuple{{text: string(buf[:len(buf)-1])}}
			}
		}
	}
	var whole string
	for i := candidates.next(0, len(f.failregex)); i < len(f.failregex); i = candidates.next(i+1, len(f.failregex)) {
		r := f.failregex[i]
		if buf == nil {
			s.line.join(s.window)
			buf, ascii, from = s.line.buf, s.line.ascii, 0
			whole = ""
		}
		spans := r.Find(buf, ascii, s.spans)
		if spans == nil {
			continue
		}
		s.spans = spans
		switch {
		case whole != "":
		case from >= 0:
			whole = line.String()[from:]
		default:
			whole = string(buf)
		}
		if pre {
			pre = false
			s.pre = f.prefregex.fields(s.pre, line.String(), s.preSpans)
			s.pre.remove("content")
		}
		if f.maxLines == 1 {
			org[0] = tuple{line.String()[:len(line.buf)-1], date}
		}
		matched, unmatched := split(r, whole, spans, org)
		if len(f.ignoreregex) > 0 && s.ignored(buf, matched, unmatched) >= 0 {
			if f.maxLines > 1 {
				buf = nil
			}
			if !s.All {
				break
			}
			continue
		}
		if f.maxLines > 1 {
			s.window = append(s.window[:0:0], unmatched...)
			buf = nil
		}
		if done := s.found(i, whole, matched, at); done {
			return s.out
		}
		if !s.All {
			break
		}
	}
	return s.out
}

// ignored gives the index of the ignoreregex that matches, or -1. Where
// several lines are matched together only those that matched are asked.
func (s *State) ignored(buf []byte, matched, unmatched []tuple) int {
	found := -1
	if s.f.maxLines > 1 && unmatched != nil {
		var b []byte
		for _, l := range matched {
			b = append(append(b, l.text...), '\n')
		}
		buf = b
	}
	ascii := pattern.IsASCII(buf)
	for i, r := range s.f.ignoreregex {
		if r.Find(buf, ascii, nil) == nil {
			continue
		}
		found = i
		if s.OnIgnore != nil {
			s.OnIgnore(i)
		}
		if s.f.maxLines > 1 && unmatched != nil {
			s.window = append(s.window[:0:0], unmatched...)
		}
		if !s.All {
			break
		}
	}
	return found
}

// split tells the lines that a match covers from the others. Lines that
// <SKIPLINES> passed over count as others.
func split(r *rule, text string, spans []int, org []tuple) (matched, unmatched []tuple) {
	if len(org) <= 1 {
		return org, []tuple{}
	}
	start := strings.LastIndexByte(text[:min(spans[0]+1, len(text))], '\n') + 1
	end := len(text)
	if at := max(spans[1]-1, 0); at < len(text) {
		if i := strings.IndexByte(text[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
	}
	first := min(strings.Count(text[:start], "\n"), len(org))
	last := min(strings.Count(text[:end], "\n"), len(org))
	last = max(first, last)
	matched = append(matched, org[first:last]...)
	unmatched = append([]tuple{}, org[:first]...)
	n := 0
	for _, skipped := range r.skipped(text, spans) {
		for m := n; m < len(matched); m++ {
			if matched[m].text == skipped {
				unmatched = append(unmatched, matched[m])
				matched = append(matched[:m], matched[m+1:]...)
				n = m
				break
			}
		}
	}
	return matched, append(unmatched, org[last:]...)
}

func (r *rule) skipped(text string, spans []int) []string {
	var b strings.Builder
	for _, g := range r.skiplines {
		if spans[2*g] >= 0 {
			b.WriteString(text[spans[2*g]:spans[2*g+1]])
		}
	}
	if b.Len() == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
}

// found makes a match of failregex i's captures. done says that the line
// needs no further expression.
func (s *State) found(i int, text string, matched []tuple, at time.Time) (done bool) {
	r := s.f.failregex[i]
	captured := append(s.work[:0], s.pre...)
	captured = r.fields(captured, text, s.spans)
	s.work = captured
	m := Match{Rule: i, From: -1, Text: text, Fields: captured, Success: i >= s.f.success}
	id, connected := captured.Get("mlfid")
	if connected {
		c := s.connections.merge(id, captured, matched, s.now(), s.All)
		m.Fields, m.Users, m.Lines = c.fields, c.users, c.lines
		m.NoFail = c.fields.value("nofail") != ""
		if m.NoFail && !s.All {
			return true
		}
		m.identify()
		if m.ID == "" {
			c.pending = true
			if !s.All {
				return true
			}
		}
		if s.All {
			m.Fields = append(Fields(nil), c.fields...)
		}
	} else {
		for _, l := range matched {
			m.Lines = append(m.Lines, l.text)
		}
		m.identify()
	}
	m.locate(r, s.spans)
	s.out = append(s.out, m)
	return false
}

// identify says whom the fields name: <F-ID>, then an address, then a name.
func (m *Match) identify() {
	id, hasID := m.Fields.Get("fid")
	host, ok := m.Fields.Get("ip4")
	if !ok {
		host, ok = m.Fields.Get("ip6")
	}
	if ok {
		m.Bits = m.Fields.value("cidr")
	} else if host, ok = m.Fields.Get("dns"); ok {
		m.Named = true
	}
	switch {
	case hasID && ok && id != host:
		m.ID, m.Address, m.Named = id, host, false
	case hasID:
		m.ID = id
	default:
		m.ID = host
	}
}

// locate notes where this very line names the address.
func (m *Match) locate(r *rule, spans []int) {
	for _, g := range r.addresses {
		if g >= 0 && spans[2*g] >= 0 {
			m.From = spans[2*g]
			return
		}
	}
}
