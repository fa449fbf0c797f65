// Package span reads and writes lengths of time as every configuration file of
// the project takes them, in fail2ban's abbreviations: "10m", "1h 30m", "30d",
// "1mo", "1y-6mo", "10*60", "600" (seconds), "-1". It computes; it never
// evaluates code.
package span

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Permanent is the length of a ban that never ends: a negative time.
const Permanent = time.Duration(math.MaxInt64)

// maxText bounds the text that [Seconds] reads; the longest sensible text is a tenth of it.
const maxText = 256

// maxDepth bounds nested parentheses.
const maxDepth = 16

// ErrSyntax says that a text is not a time.
var ErrSyntax = errors.New(`not a time such as "10m", "1h 30m" or "600"`)

// units are the abbreviations of jail.conf(5), seconds each. A year is 365.25
// days and a month a twelfth of it; "m" is a minute, "mo" a month.
var units = map[string]float64{
	"s": 1, "ss": 1, "se": 1, "sec": 1, "second": 1, "seconds": 1,
	"m": 60, "mm": 60, "mi": 60, "min": 60, "minute": 60, "minutes": 60,
	"h": 3600, "hh": 3600, "ho": 3600, "hou": 3600, "hour": 3600, "hours": 3600,
	"d": 86400, "dd": 86400, "da": 86400, "day": 86400, "days": 86400,
	"w": 604800, "ww": 604800, "we": 604800, "wee": 604800, "week": 604800, "weeks": 604800,
	"mo": 2629800, "mon": 2629800, "month": 2629800, "months": 2629800,
	"y": 31557600, "yy": 31557600, "ye": 31557600, "yea": 31557600, "year": 31557600, "years": 31557600,
}

// Seconds gives the seconds that a text means. Terms that stand side by side
// are added; + - * / and parentheses work as in arithmetic.
func Seconds(s string) (float64, error) {
	if len(s) > maxText {
		return 0, fmt.Errorf("a text of %d bytes: %w", len(s), ErrSyntax)
	}
	p := parser{s: strings.ToLower(s)}
	v, err := p.sum(0)
	if err == nil {
		p.space()
		if p.i != len(p.s) {
			err = ErrSyntax
		}
	}
	if err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
		err = ErrSyntax
	}
	if err != nil {
		return 0, fmt.Errorf("%q: %w", s, err)
	}
	return v, nil
}

// A Duration is a length of time that a configuration file holds. It is no
// number, so that TOML's `600` is 600 seconds as "600" is, and not nanoseconds.
type Duration struct{ length time.Duration }

// Of gives a length of time as a [Duration].
func Of(d time.Duration) Duration { return Duration{d} }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := Parse(string(b))
	if err == nil {
		d.length = v
	}
	return err
}

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String gives the text of [Format].
func (d Duration) String() string { return Format(d.length) }

// Duration gives the time as the standard library's type.
func (d Duration) Duration() time.Duration { return d.length }

// IsZero says that nothing was written, or zero.
func (d Duration) IsZero() bool { return d.length == 0 }

// Parse gives a text as a duration, [Permanent] when it is negative or too
// long to count. Where a length must be finite the caller checks its bounds.
func Parse(s string) (time.Duration, error) {
	v, err := Seconds(s)
	if err != nil {
		return 0, err
	}
	if v < 0 || v >= float64(Permanent)/1e9 {
		return Permanent, nil
	}
	return time.Duration(math.Round(v * 1e9)), nil
}

type parser struct {
	s string
	i int
}

func (p *parser) space() {
	for p.i < len(p.s) && (p.s[p.i] == ' ' || p.s[p.i] == '\t') {
		p.i++
	}
}

func (p *parser) peek() byte {
	p.space()
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) sum(depth int) (float64, error) {
	v, err := p.product(depth)
	for err == nil {
		var w float64
		switch c := p.peek(); {
		case c == '+':
			p.i++
			w, err = p.product(depth)
			v += w
		case c == '-':
			p.i++
			w, err = p.product(depth)
			v -= w
		case c >= '0' && c <= '9' || c == '.':
			w, err = p.product(depth)
			v += w
		default:
			return v, nil
		}
	}
	return v, err
}

func (p *parser) product(depth int) (float64, error) {
	v, err := p.factor(depth)
	for err == nil {
		var w float64
		switch c := p.peek(); {
		case c == '*':
			p.i++
			w, err = p.factor(depth)
			v *= w
		case c == '/':
			p.i++
			if w, err = p.factor(depth); err == nil && w == 0 {
				return 0, ErrSyntax
			}
			v /= w
		case c >= 'a' && c <= 'z':
			u, ok := units[p.word()]
			if !ok {
				return 0, ErrSyntax
			}
			v *= u
		default:
			return v, nil
		}
	}
	return v, err
}

func (p *parser) factor(depth int) (float64, error) {
	switch c := p.peek(); {
	case depth > maxDepth:
		return 0, ErrSyntax
	case c == '-':
		p.i++
		v, err := p.factor(depth + 1)
		return -v, err
	case c == '+':
		p.i++
		return p.factor(depth + 1)
	case c == '(':
		p.i++
		v, err := p.sum(depth + 1)
		if err == nil && p.peek() != ')' {
			err = ErrSyntax
		}
		p.i++
		return v, err
	case c >= '0' && c <= '9' || c == '.':
		from := p.i
		for p.i < len(p.s) && (p.s[p.i] >= '0' && p.s[p.i] <= '9' || p.s[p.i] == '.') {
			p.i++
		}
		v, err := strconv.ParseFloat(p.s[from:p.i], 64)
		if err != nil {
			return 0, ErrSyntax
		}
		return v, nil
	}
	return 0, ErrSyntax
}

func (p *parser) word() string {
	from := p.i
	for p.i < len(p.s) && p.s[p.i] >= 'a' && p.s[p.i] <= 'z' {
		p.i++
	}
	return p.s[from:p.i]
}

// Format writes a duration in abbreviations that [Parse] reads back: "9d",
// "1h 30m", "-1" for a permanent one. Parts of a second are cut.
func Format(d time.Duration) string {
	if d == Permanent || d < 0 {
		return "-1"
	}
	left := int64(d / time.Second)
	if left == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range [...]struct {
		name    string
		seconds int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}} {
		if n := left / u.seconds; n > 0 {
			if b.Len() > 0 {
				b.WriteByte(' ')
			}
			fmt.Fprintf(&b, "%d%s", n, u.name)
			left %= u.seconds
		}
	}
	return b.String()
}

// Short prints a duration as a person would say it: "9 d 23 h", "3 h 20 min",
// "45 s". It rounds to the second of its two units.
func Short(d time.Duration) string {
	if d < 0 {
		return "-" + Short(-d)
	}
	units := []struct {
		size time.Duration
		name string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "min"}, {time.Second, "s"}}
	for i, u := range units[:len(units)-1] {
		// Rounded first, so that 59 min 59.8 s is an hour and not 60 minutes.
		rounded := d.Round(units[i+1].size)
		if rounded < u.size {
			continue
		}
		s := fmt.Sprintf("%d %s", rounded/u.size, u.name)
		if rest := rounded % u.size / units[i+1].size; rest > 0 {
			s += fmt.Sprintf(" %d %s", rest, units[i+1].name)
		}
		return s
	}
	if d < time.Second && d > 0 {
		return fmt.Sprintf("%d ms", max(d.Round(time.Millisecond), time.Millisecond)/time.Millisecond)
	}
	return fmt.Sprintf("%d s", d.Round(time.Second)/time.Second)
}
