package fields

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// json reads one object. Nothing may follow it.
func (r *Record) json(line []byte) error {
	text := body(bytes.TrimSpace(line), "{")
	if text == nil {
		return fmt.Errorf("%w: no object", ErrLine)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := r.value(d, "", 0); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: text after the object", ErrLine)
	}
	return nil
}

// value reads the next value, which has the path at.
func (r *Record) value(d *json.Decoder, at string, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: objects are nested too deeply", ErrLine)
	}
	token, err := d.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	switch v := token.(type) {
	case json.Delim:
		if v == '[' {
			return r.list(d, at, depth)
		}
		return r.object(d, at, depth)
	case string:
		return r.add(at, v)
	case json.Number:
		return r.add(at, v.String())
	case bool:
		return r.add(at, fmt.Sprint(v))
	}
	return r.add(at, "")
}

func (r *Record) object(d *json.Decoder, at string, depth int) error {
	if at != "" {
		if err := r.add(at, ""); err != nil {
			return err
		}
	}
	for d.More() {
		token, err := d.Token()
		if err != nil {
			return fmt.Errorf("%w: %w", ErrLine, err)
		}
		name, _ := token.(string)
		if at != "" {
			name = at + "." + name
		}
		if err := r.value(d, name, depth+1); err != nil {
			return err
		}
	}
	_, err := d.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	return nil
}

// list reads an array: its field is the texts in it, after one another.
func (r *Record) list(d *json.Decoder, at string, depth int) error {
	var items []string
	for i := 0; d.More(); i++ {
		if i > maxFields {
			return fmt.Errorf("%w: a list is too long", ErrLine)
		}
		inner := Record{}
		if err := inner.value(d, "x", depth+1); err != nil {
			return err
		}
		items = append(items, inner.values...)
	}
	if _, err := d.Token(); err != nil {
		return fmt.Errorf("%w: %w", ErrLine, err)
	}
	return r.add(at, strings.Join(items, ", "))
}

// logfmt reads key=value and key="value with \"escapes\"", between spaces.
func (r *Record) logfmt(line []byte) error {
	text := strings.TrimSpace(string(line))
	for text != "" {
		end := strings.IndexAny(text, "= \t")
		if end < 0 || text[end] != '=' {
			// A word by itself: the part before the first field is a header.
			word := text
			if end >= 0 {
				word = text[:end]
			}
			if len(r.names) > 0 && strings.ContainsAny(word, `"`) {
				return fmt.Errorf("%w: a quote outside of a value", ErrLine)
			}
			text = strings.TrimLeft(text[len(word):], " \t")
			continue
		}
		name := text[:end]
		value, rest, ok := logfmtValue(text[end+1:])
		if !ok || name == "" || strings.ContainsAny(name, `"`) {
			return fmt.Errorf("%w: a quote that does not end", ErrLine)
		}
		if err := r.add(name, value); err != nil {
			return err
		}
		text = strings.TrimLeft(rest, " \t")
	}
	if len(r.names) == 0 {
		return fmt.Errorf("%w: no field", ErrLine)
	}
	return nil
}

func logfmtValue(text string) (value, rest string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexAny(text, " \t")
		if end < 0 {
			end = len(text)
		}
		return text[:end], text[end:], true
	}
	value, rest, ok = quoted(text[1:])
	// A space follows a value; else its end was not its end.
	if ok && rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return "", "", false
	}
	return value, rest, ok
}

// quoted reads to the next quote that no backslash stands before.
func quoted(text string) (value, rest string, ok bool) {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return unescape(text[:i]), text[i+1:], true
		}
	}
	return "", "", false
}

// unescape reads \" \\ \n \t and \xHH; another escape stays as it is.
func unescape(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' || i+1 >= len(s) {
			b.WriteByte(s[i])
			continue
		}
		i++
		switch c := s[i]; c {
		case '"', '\\', '/':
			b.WriteByte(c)
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case 'r':
			b.WriteByte('\r')
		case 'x':
			high, low := -1, -1
			if i+2 < len(s) {
				high, low = hex(s[i+1]), hex(s[i+2])
			}
			if high < 0 || low < 0 {
				b.WriteString(`\x`)
				continue
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			b.WriteByte('\\')
			b.WriteByte(c)
		}
	}
	return strings.ToValidUTF8(b.String(), string(utf8.RuneError))
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
