// Package printable makes text from outside fit to be shown: on a terminal it
// must not move the cursor, change the direction of writing or hide a
// character, and in JSON it must be seen for the character that it is.
package printable

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Replacement stands for each character that is not shown.
const Replacement = '?'

// Shown says whether a character may reach a terminal as it is. Control
// characters, line and paragraph separators, private and unassigned characters
// and all of Unicode's format characters (directions, joiners, soft hyphens,
// tags) may not.
func Shown(r rune) bool { return r != utf8.RuneError && unicode.IsPrint(r) || r == '\u00a0' }

// Text is one line of foreign text: characters that may not be shown, line ends and tabs
// among it, is [Replacement]; so is each byte that is no UTF-8.
func Text(s string) string { return replace(s, false) }

// Lines is [Text] of several lines, whose line ends and tabs stay.
func Lines(s string) string { return replace(s, true) }

func replace(s string, lines bool) string {
	return strings.Map(func(r rune) rune {
		if Shown(r) || lines && (r == '\n' || r == '\t') {
			return r
		}
		return Replacement
	}, s)
}

// JSON gives a JSON text in which every character that may not be shown is
// written as an escape, so that it says the same and can be looked at. The
// text must be valid JSON without raw control characters in its strings, as
// encoding/json makes it.
func JSON(b []byte) []byte {
	i := 0
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		if !asIs(r) {
			break
		}
		i += n
	}
	if i == len(b) {
		return b
	}
	out := append(make([]byte, 0, len(b)+16), b[:i]...)
	for i < len(b) {
		r, n := utf8.DecodeRune(b[i:])
		switch {
		case asIs(r):
			out = append(out, b[i:i+n]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			out = escape(escape(out, high), low)
		default:
			out = escape(out, r)
		}
		i += n
	}
	return out
}

// asIs is whether a character of a JSON text stays: white space between values
// is all that JSON allows of control characters.
func asIs(r rune) bool { return Shown(r) || r == '\n' || r == '\t' || r == '\r' }

func escape(out []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// JSONWriter passes on the output of an encoder of encoding/json, each value in
// one Write, as [JSON] gives it.
func JSONWriter(w io.Writer) io.Writer { return jsonWriter{w} }

type jsonWriter struct{ w io.Writer }

// Write implements [io.Writer].
func (j jsonWriter) Write(b []byte) (int, error) {
	if _, err := j.w.Write(JSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Writer passes on text as [Lines] gives it. A character may come in several
// writes.
func Writer(w io.Writer) io.Writer { return &lineWriter{w: w} }

type lineWriter struct {
	w    io.Writer
	tail []byte // the begin of a character
}

// Write implements [io.Writer].
func (l *lineWriter) Write(b []byte) (int, error) {
	text := append(l.tail, b...)
	whole := len(text)
	for back := 1; back < utf8.UTFMax && back <= len(text); back++ {
		if c := text[len(text)-back]; utf8.RuneStart(c) {
			if !utf8.FullRune(text[len(text)-back:]) {
				whole = len(text) - back
			}
			break
		}
	}
	if _, err := io.WriteString(l.w, Lines(string(text[:whole]))); err != nil {
		return 0, err
	}
	l.tail = append([]byte(nil), text[whole:]...)
	return len(b), nil
}
