// Package fields reads log lines that are made of fields: JSON, logfmt, and
// access logs. A client's text stays inside its field by the format's own
// rules, so no text of its can stand for another field.
package fields

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Format is how a log's lines are written.
type Format string

// Formats.
const (
	JSON   Format = "json"
	Logfmt Format = "logfmt"
	Access Format = "access" // the common and the combined log format, and HAProxy's
	Proxy  Format = "proxy"  // Nginx Proxy Manager's
)

// Formats lists all of them.
var Formats = []Format{JSON, Logfmt, Access, Proxy}

// Limits of one line. A line beyond them is not read.
const (
	maxFields = 512
	maxDepth  = 16
)

// ErrLine says that a line is not of its format.
var ErrLine = errors.New("not of the format")

// A Record is one line's fields. Those of nested objects have a path,
// "request.headers.Host".
type Record struct {
	names  []string
	values []string
	twice  map[string]bool
	seen   int // fields that were read, those that stand twice too
}

// add notes a field; a name that stands twice is noted as such.
func (r *Record) add(name, value string) error {
	if r.seen++; r.seen > maxFields { // those that stand twice too
		return fmt.Errorf("%w: more than %d fields", ErrLine, maxFields)
	}
	for _, known := range r.names {
		if known == name {
			r.note(name)
			return nil
		}
	}
	r.names, r.values = append(r.names, name), append(r.values, value)
	return nil
}

func (r *Record) note(name string) {
	if r.twice == nil {
		r.twice = map[string]bool{}
	}
	r.twice[name] = true
}

// reset empties a record for the next line.
func (r *Record) reset() { r.names, r.values, r.twice, r.seen = r.names[:0], r.values[:0], nil, 0 }

// Get gives a field's text. A field that stands twice, itself or an object around it,
// is not there: nobody can say which one the program wrote.
func (r *Record) Get(name string) (value string, ok bool) {
	if r.Twice(name) {
		return "", false
	}
	for i, known := range r.names {
		if known == name {
			return r.values[i], true
		}
	}
	return "", false
}

// has says that a field is there, once or twice.
func (r *Record) has(name string) bool { return slices.Contains(r.names, name) || r.Twice(name) }

// Twice says that a field stands twice, or that an object which holds it does.
func (r *Record) Twice(name string) bool {
	if r.twice == nil {
		return false
	}
	for at := 0; ; {
		if r.twice[name] {
			return true
		}
		if at = strings.LastIndexByte(name, '.'); at < 0 {
			return false
		}
		name = name[:at]
	}
}

// Fields gives a copy of all fields that stand once.
func (r *Record) Fields() map[string]string {
	out := make(map[string]string, len(r.names))
	for i, name := range r.names {
		if !r.Twice(name) {
			out[name] = r.values[i]
		}
	}
	return out
}

// Parse reads a line into r, which it empties before. The result is valid until
// the next call.
func (r *Record) Parse(f Format, line []byte) error {
	r.reset()
	switch f {
	case JSON:
		return r.json(line)
	case Logfmt:
		return r.logfmt(line)
	case Access:
		return r.access(line)
	case Proxy:
		return r.proxy(line)
	}
	return fmt.Errorf("%w: no format %q", ErrLine, f)
}

// body cuts off a logging service's header of a message: a date, a host, a
// program with its number.
func body(line []byte, start string) []byte {
	text := string(line)
	if strings.HasPrefix(text, start) {
		return line
	}
	// "... host tag[pid]: {": nothing else ends in a colon and a space.
	i := strings.Index(text, ": "+start)
	if i < 0 || i > maxHeader || strings.ContainsAny(text[:i], `"'{}=`) {
		return nil
	}
	if words := strings.Fields(text[:i]); len(words) > maxHeaderWords {
		return nil
	}
	return line[i+2:]
}

// A header has a date of at most three words, a host, and a tag.
const (
	maxHeader      = 200
	maxHeaderWords = 5
)

// Time reads a time as programs write it into a field: RFC 3339 and forms
// like it, seconds since 1970 with a fraction, or milliseconds, microseconds,
// nanoseconds. A time without a zone is of zone.
func Time(s string, zone *time.Location) (time.Time, bool) {
	if t, ok := epoch(s); ok {
		return t, true
	}
	for _, layout := range []string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999-0700", "2006-01-02T15:04:05.999999999-07", accessTime,
		"2006-01-02 15:04:05.999999999 -0700", "2006-01-02 15:04:05.999999999-07:00", "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999",
		"2006/01/02 15:04:05.999999999", "02/Jan/2006:15:04:05",
	} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// epoch reads a number of seconds, or of thousandths, millionths or billionths
// of them by its size.
func epoch(s string) (time.Time, bool) {
	whole, fraction, _ := strings.Cut(s, ".")
	if len(whole) < 9 || len(whole) > 19 || strings.Trim(whole+fraction, "0123456789") != "" {
		return time.Time{}, false
	}
	n := int64(0)
	for _, c := range []byte(whole) {
		n = n*10 + int64(c-'0')
		if n < 0 {
			return time.Time{}, false
		}
	}
	switch {
	case len(whole) <= 11:
		nanos, scale := int64(0), int64(time.Second)
		for _, c := range []byte(fraction[:min(len(fraction), 9)]) {
			scale /= 10
			nanos += int64(c-'0') * scale
		}
		return time.Unix(n, nanos), true
	case len(whole) <= 14:
		return time.UnixMilli(n), true
	case len(whole) <= 17:
		return time.UnixMicro(n), true
	}
	return time.Unix(0, n), true
}
