package source

import (
	"bytes"
	"slices"
	"strconv"

	"banmesh/internal/detect/source/journalfile"
)

// maxInterned bounds the texts that are kept to share them between lines.
const maxInterned = 4096

// An extractor makes lines of journal entries. It looks at each field of an
// entry once and keeps nothing of entries that no match wants.
type extractor struct {
	matches  []match
	terms    []term
	byLength map[int][]int // terms by the length of "FIELD=value"
	longest  int
	has      []bool // which terms the entry at hand has
	texts    map[string]string
	message  []byte
	matched  []int
}

func newExtractor(matches []match) extractor {
	x := extractor{matches: matches, byLength: map[int][]int{}, texts: map[string]string{}}
	for _, m := range matches {
		for _, all := range m {
			for _, t := range all {
				if slices.Contains(x.terms, t) {
					continue
				}
				n := len(t.field) + 1 + len(t.value)
				x.byLength[n] = append(x.byLength[n], len(x.terms))
				x.longest = max(x.longest, n)
				x.terms = append(x.terms, t)
			}
		}
	}
	x.has = make([]bool, len(x.terms))
	return x
}

// fields are those of an entry that a line is made of, as they lie in the file.
type fields struct {
	message, tag, container, comm, unit, userUnit, host, pid, syslogPID, source []byte
	hasMessage                                                                  bool
}

// line makes a line of an entry; ok is false if no match wants it or it says
// nothing. The line's text is valid until the next call.
func (x *extractor) line(f *journalfile.File, e *journalfile.Entry) (line Line, ok bool, err error) {
	clear(x.has)
	var v fields
	for i := range e.Items(f) {
		b, compressed, fault := f.Field(e, i, messageLimit)
		if fault != nil {
			err = fault // the rest of the entry may still say enough
			continue
		}
		x.take(&v, b, compressed)
	}
	x.matched = x.matched[:0]
	for i, m := range x.matches {
		if m.holds(x.hasTerm) {
			x.matched = append(x.matched, i)
		}
	}
	if !v.hasMessage || len(x.matched) == 0 {
		return Line{}, false, err
	}
	x.message = append(x.message[:0], v.message...)
	line = Line{
		Text: x.message, Time: microseconds(e.Realtime), Journal: true, Stream: "journal", Matched: x.matched,
		Tag: x.text(first(v.tag, v.container, v.comm)), Unit: x.text(first(v.userUnit, v.unit)), Host: x.text(v.host),
	}
	if at, ok := number(v.source); ok {
		line.Time = microseconds(at)
	}
	if pid, ok := number(first(v.syslogPID, v.pid)); ok && pid < 1<<31 {
		line.PID = int(pid)
	}
	return line, true, err
}

// take keeps a field if it is one that counts.
func (x *extractor) take(v *fields, b []byte, compressed bool) {
	if len(b) <= x.longest {
		for _, i := range x.byLength[len(b)] {
			t := &x.terms[i]
			if n := len(t.field); string(b[:n]) == t.field && b[n] == '=' && string(b[n+1:]) == t.value {
				x.has[i] = true
			}
		}
	}
	if len(b) < 5 {
		return
	}
	var to *[]byte
	var value []byte
	var found bool
	switch b[0] {
	case 'M':
		if value, found = bytes.CutPrefix(b, []byte("MESSAGE=")); found && !v.hasMessage {
			to, v.hasMessage = &v.message, true
		}
	case 'S':
		if value, found = bytes.CutPrefix(b, []byte("SYSLOG_IDENTIFIER=")); found {
			to = &v.tag
		} else if value, found = bytes.CutPrefix(b, []byte("SYSLOG_PID=")); found {
			to = &v.syslogPID
		}
	case 'C':
		if value, found = bytes.CutPrefix(b, []byte("CONTAINER_NAME=")); found {
			to = &v.container
		}
	case '_':
		switch b[1] {
		case 'S':
			if value, found = bytes.CutPrefix(b, []byte("_SYSTEMD_UNIT=")); found {
				to = &v.unit
			} else if value, found = bytes.CutPrefix(b, []byte("_SYSTEMD_USER_UNIT=")); found {
				to = &v.userUnit
			} else if value, found = bytes.CutPrefix(b, []byte("_SOURCE_REALTIME_TIMESTAMP=")); found {
				to = &v.source
			}
		case 'H':
			if value, found = bytes.CutPrefix(b, []byte("_HOSTNAME=")); found {
				to = &v.host
			}
		case 'P':
			if value, found = bytes.CutPrefix(b, []byte("_PID=")); found {
				to = &v.pid
			}
		case 'C':
			if value, found = bytes.CutPrefix(b, []byte("_COMM=")); found {
				to = &v.comm
			}
		}
	}
	if to == nil {
		return
	}
	if compressed {
		value = bytes.Clone(value) // its buffer is used again for the next field
	}
	*to = value
}

func (x *extractor) hasTerm(t term) bool {
	for i := range x.terms {
		if x.terms[i] == t {
			return x.has[i]
		}
	}
	return false
}

// text gives the string of b, one for all lines that have the same.
func (x *extractor) text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := x.texts[string(b)]; ok {
		return s
	}
	if len(b) > 256 {
		b = b[:256] // no name of a unit, host or program is longer
	}
	if len(x.texts) >= maxInterned {
		clear(x.texts)
	}
	s := string(b)
	x.texts[s] = s
	return s
}

// first gives the first that is not empty.
func first(values ...[]byte) []byte {
	for _, v := range values {
		if len(v) > 0 {
			return v
		}
	}
	return nil
}

// number reads a decimal number.
func number(b []byte) (uint64, bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	v, err := strconv.ParseUint(string(b), 10, 64)
	return v, err == nil
}
