package dates

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/detect/pattern"
)

// ErrPattern says that a datepattern cannot be used.
var ErrPattern = errors.New("bad datepattern")

type kind uint8

const (
	kindFields kind = iota
	kindEpoch
	kindTAI64N
)

// A template is one form of date.
type template struct {
	name string
	// pattern is the source, for forms made of fields.
	pattern  string
	kind     kind
	regex    string
	anchored bool // to the start or the end of the line
	weight   float64
	long     bool // epochs with more digits than seconds have
	epoch    int  // the group that holds the number

	compiled func() (*pattern.Regex, error)
}

// lineBegin is how fail2ban names the form of a template that takes at most
// two characters of the line before the date.
const lineBegin = "{^LN-BEG}"

var (
	globalFlags  = regexp.MustCompile(`\(\?[a-z]+\)`)
	grouped      = regexp.MustCompile(`^\(*(?:\(\?\w+\))?(?:\^|\(*\*\*|\((?:\?:)?\^)`) // needs no word boundary before
	wholeLine    = regexp.MustCompile(`^((?:\(\?\w+\))?\^?(?:\(\?\w+\))?)(.*?)(\$?)$`)
	starsBefore  = regexp.MustCompile(`^\(*(?:\(\?\w+\))?\(*\*\*`)
	starsAfter   = regexp.MustCompile(`\*\*\)*$`)
	boundedAfter = regexp.MustCompile(`(?:\$\)?|\\b|\\s|\*\*\)*)$`)
	lineStart    = regexp.MustCompile(`^(?:\(\?\w+\))?(?:\^|\((?:\?:)?\^)`)
	lineStartOr  = regexp.MustCompile(`^(?:\(\?\w+\))?\((?:\?:)?\^\|`)
	epochWord    = regexp.MustCompile(`(?i)\{L?EPOCH\}`)
	dateWord     = regexp.MustCompile(`(?i)\{DATE\}`)
)

// hasGroup says that a regex captures: a parenthesis that is no escape and
// opens no extension.
func hasGroup(s string) bool {
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\':
			i++
		case s[i] == '(' && (i+1 >= len(s) || s[i+1] != '?') && !(i >= 2 && s[i-2:i] == "(?"):
			return true
		}
	}
	return false
}

// bounds are a date's surroundings.
type bounds struct{ word, line, end bool }

// setRegex builds the expression: a group around the date if there is none,
// and the text that must stand before and after it.
func (t *template) setRegex(regex string, b bounds) {
	regex = strings.TrimSpace(regex)
	flags := ""
	if at := globalFlags.FindStringIndex(regex); at != nil {
		flags = regex[at[0]:at[1]]
		regex = regex[:at[0]] + regex[at[1]:]
	}
	bare := grouped.MatchString(regex)
	before := (b.word || b.line) && !bare
	after := b.end && !endsBounded(regex)
	if !hasGroup(regex) {
		regex = wholeLine.ReplaceAllString(regex, "${1}(${2})${3}")
	}
	switch {
	case before && b.line:
		t.anchored = true
		regex = `^(?:\W{0,2})?` + regex
		if !strings.HasPrefix(t.name, lineBegin) {
			t.name = lineBegin + t.name
		}
	case before:
		regex = `(?=^|\b|\W)` + regex
	}
	if after {
		regex += `(?=\b|\W|$)`
	}
	if lineStart.MatchString(regex) && !lineStartOr.MatchString(regex) {
		t.anchored = true
	}
	if endsAtLine(regex) {
		t.anchored = true
	}
	regex = starsBefore.ReplaceAllStringFunc(regex, func(s string) string { return strings.ReplaceAll(s, "**", "") })
	if at := starsAfter.FindStringIndex(regex); at != nil && (at[0] == 0 || regex[at[0]-1] != '\\') {
		regex = regex[:at[0]] + strings.ReplaceAll(regex[at[0]:], "**", "")
	}
	t.regex = flags + regex
	t.compiled = sync.OnceValues(func() (*pattern.Regex, error) {
		re, err := pattern.CompilePlain(t.regex)
		if err != nil {
			return nil, fmt.Errorf("%w %q: %w", ErrPattern, t.name, err)
		}
		return re, nil
	})
}

func endsBounded(s string) bool {
	at := boundedAfter.FindStringIndex(s)
	return at != nil && (at[0] == 0 || s[at[0]-1] != '\\')
}

func endsAtLine(s string) bool {
	trimmed := strings.TrimSuffix(s, ")")
	if !strings.HasSuffix(trimmed, "$") {
		if !strings.HasSuffix(s, "$") {
			return false
		}
		trimmed = s
	}
	before := strings.TrimSuffix(trimmed, "$")
	return !strings.HasSuffix(before, `\`) && !strings.HasSuffix(before, "|")
}

// newFields makes a template of a pattern with strptime's fields.
func newFields(p string, now time.Time) (*template, error) {
	t := &template{pattern: p, weight: 1}
	b := bounds{word: true, end: true}
	if rest, ok := strings.CutPrefix(p, "{UNB}"); ok {
		p, b = rest, bounds{}
	}
	if rest, ok := strings.CutPrefix(p, lineBegin); ok && b.word {
		p, b.line = rest, true
	}
	var unknown []string
	regex := substitute(p, func(field string) string {
		switch field {
		case "ExY":
			return `(?P<Y>` + centuries(now) + `\d)`
		case "c":
			return fieldPatterns["a"] + " " + fieldPatterns["b"] + " " + fieldPatterns["d"] + " " + fieldPatterns["H"] + ":" + fieldPatterns["M"] + ":" + fieldPatterns["S"] + " " + fieldPatterns["Y"]
		case "x":
			return fieldPatterns["m"] + "/" + fieldPatterns["d"] + "/" + fieldPatterns["y"]
		case "X":
			return fieldPatterns["H"] + ":" + fieldPatterns["M"] + ":" + fieldPatterns["S"]
		}
		text, ok := fieldPatterns[field]
		if !ok {
			unknown = append(unknown, "%"+field)
		}
		return text
	})
	if len(unknown) > 0 {
		return nil, fmt.Errorf("%w %q: unknown field %s", ErrPattern, p, strings.Join(unknown, ", "))
	}
	t.name = substitute(p, nameOf)
	if strings.Contains(p, "%a") || strings.Contains(p, "%A") || strings.Contains(p, "%b") || strings.Contains(p, "%B") || strings.Contains(p, "%p") || strings.Contains(p, "%c") {
		regex = "(?iu)" + regex
	}
	t.setRegex(regex, b)
	return t, nil
}

// centuries matches the first three digits of a year that a log can hold: of
// this century, up to three years ahead.
func centuries(now time.Time) string {
	decade := (now.Year() + 3) / 10 % 10
	return `20[0-` + strconv.Itoa(decade) + `]`
}

func newEpoch(p string, anchored, long bool) *template {
	t := &template{name: "Epoch", kind: kindEpoch, long: long, epoch: 1, weight: 1}
	digits := `\d{10,11}\b(?:\.\d{3,6})?`
	if long {
		t.name = "LongEpoch"
		digits = `\d{10,11}(?:\d{3}(?:\.\d{1,6}|\d{3})?)?`
	}
	switch {
	case p != "":
		t.name, t.epoch = p, 2
		t.setRegex("("+epochWord.ReplaceAllLiteralString(p, "("+digits+")")+")", bounds{word: true, end: true})
	case anchored:
		t.setRegex(`((?P<square>(?<=^\[))?`+digits+`)(?(square)(?=\]))`, bounds{word: true, line: true, end: true})
	default:
		// At the start of a line, in brackets there, or in SELinux' audit(...).
		t.setRegex(`((?:^|(?P<square>(?<=^\[))|(?P<selinux>(?<=\baudit\()))`+digits+`)(?:(?(selinux)(?=:\d+\)))|(?(square)(?=\])))`, bounds{end: true})
	}
	return t
}

func newTAI64N(anchored bool) *template {
	t := &template{name: "TAI64N", kind: kindTAI64N, weight: 1}
	t.setRegex(`@[0-9a-f]{24}`, bounds{word: anchored, line: anchored, end: true})
	return t
}

// newTemplate reads one datepattern that is no list of templates.
func newTemplate(p string, now time.Time) (*template, error) {
	key := p
	if !strings.Contains(p, "%") {
		key = strings.ToUpper(p)
	}
	switch key {
	case "EPOCH", lineBegin + "EPOCH", "^EPOCH":
		return newEpoch("", key != "EPOCH", false), nil
	case "LEPOCH", lineBegin + "LEPOCH", "^LEPOCH":
		return newEpoch("", key != "LEPOCH", true), nil
	case "TAI64N", lineBegin + "TAI64N", "^TAI64N":
		return newTAI64N(key != "TAI64N"), nil
	case "{NONE}":
		return newFields("{UNB}^", now)
	}
	if epochWord.MatchString(p) {
		return newEpoch(p, false, strings.Contains(key, "LEPOCH")), nil
	}
	return newFields(p, now)
}

// defaults are the forms that are looked for where nothing else is said, in
// the order of trying.
var defaults = []string{
	// 2005-01-23T21:59:59.981746, 2005/01/23 21:59:59, with a zone
	`%ExY(?P<_sep>[-/.])%m(?P=_sep)%d(?:T|  ?)%H:%M:%S(?:[.,]%f)?(?:\s*%z)?`,
	// Sun Jan 23 21:59:59.011 2005
	`(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?`,
	// Sun Jan 23 2005 21:59:59.011
	`(?:%a )?%b %d %ExY %k:%M:%S(?:\.%f)?`,
	// 23/01/2005 21:59:59, 23-01-05 21:59:59
	`%d(?P<_sep>[-/])%m(?P=_sep)(?:%ExY|%Exy) %k:%M:%S`,
	// 31/Oct/2006:09:22:55 -0000, 26-Jul-2007 15:20:52.252
	`%d(?P<_sep>[-/])%b(?P=_sep)%ExY[ :]?%H:%M:%S(?:\.%f)?(?: %z)?`,
	// 05/20/2008:01:57:39
	`%m/%d/%ExY:%H:%M:%S`,
	// 01-27-2012 16:22:44.252
	`%m-%d-%ExY %k:%M:%S(?:\.%f)?`,
	`EPOCH`,
	// the time of day alone
	`{^LN-BEG}%H:%M:%S`,
	// <09/16/08@05:03:30>
	`^<%m/%d/%Exy@%H:%M:%S>`,
	// 130322 11:46:11
	`%Exy%Exm%Exd  ?%H:%M:%S`,
	// Apr 27, 2013 2:33:06 PM
	`%b %d, %ExY %I:%M:%S %p`,
	// Apr-27-13 02:33:06
	`^%b-%d-%Exy %k:%M:%S`,
	// 20050123T215959, 2005-01-23T21:59:59
	`%ExY%Exm%Exd(?:-|T|  ?)%ExH:?%ExM:?%ExS(?:[.,]%f)?(?:\s*%z)?`,
	// PDT Apr 16 21:05:29
	`(?:%Z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?`,
	// +00:00 Jan 23 21:59:59.011 2005
	`(?:%z )?(?:%a )?%b %d %k:%M:%S(?:\.%f)?(?: %ExY)?`,
	`TAI64N`,
}

// anchoredTemplate gives the form of t that wrap makes of its pattern.
func anchoredTemplate(t *template, now time.Time, wrap func(string) string) (*template, error) {
	if t.kind == kindFields {
		return newTemplate(wrap(t.pattern), now)
	}
	return newTemplate(wrap(t.name), now)
}
