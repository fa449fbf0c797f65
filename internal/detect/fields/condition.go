package fields

import (
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/detect/pattern"
)

// A Condition is asked of one field of a line:
//
//	status = 401 | 403      its text is one of these
//	status != 200           it is there and none of these
//	uri ~ ^/login\b         the expression matches somewhere in it
//	headers.Authorization   it is there, and not empty
//	! user                  it is not there, or empty
type Condition struct {
	field  string
	op     string
	values []string
	regex  *pattern.Regex
}

// maxField bounds the text of a field that an expression looks at.
const maxField = 4096

// ParseCondition reads one condition.
func ParseCondition(s string) (Condition, error) {
	bad := func(why string) (Condition, error) {
		return Condition{}, fmt.Errorf("%q is no condition: %s", s, why)
	}
	if name, ok := strings.CutPrefix(s, "! "); ok {
		if name = strings.TrimSpace(name); !isPath(name) {
			return bad("a field's name has letters, digits and . _ - $ @")
		}
		return Condition{field: name, op: "!"}, nil
	}
	for _, op := range []string{" != ", " = ", " ~ "} {
		name, value, ok := strings.Cut(s, op)
		if !ok || !isPath(strings.TrimSpace(name)) {
			continue
		}
		c := Condition{field: strings.TrimSpace(name), op: strings.TrimSpace(op)}
		if c.op == "~" {
			re, err := pattern.Compile(value, pattern.Options{NoNames: true})
			if err != nil {
				return bad(err.Error())
			}
			c.regex = re
			return c, nil
		}
		for v := range strings.SplitSeq(value, "|") {
			c.values = append(c.values, strings.TrimSpace(v))
		}
		return c, nil
	}
	if !isPath(strings.TrimSpace(s)) {
		return bad(`it has none of " = ", " != ", " ~ "`)
	}
	return Condition{field: strings.TrimSpace(s)}, nil
}

// isPath says that a text names a field.
func isPath(s string) bool {
	for _, c := range []byte(s) {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && strings.IndexByte("._-$@", c) < 0 {
			return false
		}
	}
	return s != ""
}

// Regex gives the expression of a condition that has one, else nil. It may name
// the offender with fail2ban's tags.
func (c *Condition) Regex() *pattern.Regex { return c.regex }

// Groups gives the texts that named groups of the condition's expression match in a
// line of which it holds.
func (c *Condition) Groups(r *Record, f func(name, value string)) {
	if c.regex == nil {
		return
	}
	value, _ := r.Get(c.field)
	b := []byte(value)
	spans := c.regex.Find(b, pattern.IsASCII(b), nil)
	for i, name := range c.regex.Names() {
		if spans != nil && name != "" && spans[2*i] >= 0 {
			f(name, value[spans[2*i]:spans[2*i+1]])
		}
	}
}

// Holds asks a line. A field that stands twice answers no question.
func (c *Condition) Holds(r *Record) bool {
	if r.Twice(c.field) {
		return false
	}
	value, ok := r.Get(c.field)
	switch c.op {
	case "":
		return ok && value != ""
	case "!":
		return value == ""
	case "=":
		return ok && slices.Contains(c.values, value)
	case "!=":
		return ok && !slices.Contains(c.values, value)
	}
	if !ok || len(value) > maxField {
		return false
	}
	b := []byte(value)
	return c.regex.Find(b, pattern.IsASCII(b), nil) != nil
}

// Literals gives texts in lower case of which one stands in every line of which
// the condition is true, nil where that cannot be said: an escape in the line
// may hide other characters than letters and digits.
func (c *Condition) Literals() []string {
	var list []string
	switch c.op {
	case "=":
		list = c.values
	case "~":
		list = c.regex.Literals()
	case "":
		at := strings.LastIndexByte(c.field, '.')
		list = []string{c.field[at+1:]}
	}
	var out []string
	for _, s := range list {
		longest := ""
		for _, word := range strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
			if len(word) > len(longest) {
				longest = word
			}
		}
		if longest == "" {
			return nil
		}
		out = append(out, longest)
	}
	return out
}
