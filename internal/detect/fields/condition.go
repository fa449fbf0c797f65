package fields

import (
	"fmt"
	"slices"
	"strings"

	"banmesh/internal/detect/pattern"
)

// A Condition is asked of one field of a line, or of the first that is there
// of several, "uri | request.uri":
//
//	status = 401 | 403      its text is one of these
//	status != 200           it is there and none of these
//	uri ~ ^/login\b         the expression matches somewhere in it
//	uri in secrets          the set of that name has a text that is in it
//	headers.Authorization   it is there, and not empty
//	! user                  it is not there, or empty
//
// "-" is how access logs write that a field is empty.
type Condition struct {
	field  string
	others []string // fields to ask where the one before is not there
	op     string
	values []string
	regex  *pattern.Regex
	set    *Set
}

// maxField bounds the text of a field that an expression looks at.
const maxField = 4096

// ParseCondition reads one condition, which may name one of the sets.
func ParseCondition(s string, sets map[string]*Set) (Condition, error) {
	bad := func(why string) (Condition, error) {
		return Condition{}, fmt.Errorf("%q is no condition: %s", s, why)
	}
	if name, ok := strings.CutPrefix(s, "! "); ok {
		names := alternatives(name)
		if slices.ContainsFunc(names, func(n string) bool { return !isPath(n) }) {
			return bad("a field's name has letters, digits and . _ - $ @")
		}
		return Condition{field: names[0], others: names[1:], op: "!"}, nil
	}
	for _, op := range []string{" != ", " = ", " ~ ", " in "} {
		name, value, ok := strings.Cut(s, op)
		names := alternatives(name)
		if !ok || slices.ContainsFunc(names, func(n string) bool { return !isPath(n) }) {
			continue
		}
		c := Condition{field: names[0], others: names[1:], op: strings.TrimSpace(op)}
		switch c.op {
		case "in":
			if c.set = sets[strings.TrimSpace(value)]; c.set == nil {
				return bad(fmt.Sprintf("there is no set %q", strings.TrimSpace(value)))
			}
			return c, nil
		case "~":
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
		return bad(`it has none of " = ", " != ", " ~ ", " in "`)
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
	value, _ := r.Get(c.of(r))
	b := []byte(value)
	spans := c.regex.Find(b, pattern.IsASCII(b), nil)
	for i, name := range c.regex.Names() {
		if spans != nil && name != "" && spans[2*i] >= 0 {
			f(name, value[spans[2*i]:spans[2*i+1]])
		}
	}
}

// of gives the field that a line is asked for: the first that is there.
func (c *Condition) of(r *Record) string {
	field := c.field
	for _, other := range c.others {
		if r.has(field) {
			break
		}
		field = other
	}
	return field
}

// alternatives splits "a | b".
func alternatives(s string) []string {
	out := strings.Split(s, "|")
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// Holds asks a line. A field that stands twice answers no question.
func (c *Condition) Holds(r *Record) bool {
	field := c.of(r)
	if r.Twice(field) {
		return false
	}
	value, ok := r.Get(field)
	switch c.op {
	case "in":
		return ok && len(value) <= maxField && c.set.Holds(value)
	case "":
		return ok && value != "" && value != "-"
	case "!":
		return value == "" || value == "-"
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
	case "in":
		return c.set.literals()
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
		longest := longestWord(strings.ToLower(s))
		if longest == "" {
			return nil
		}
		out = append(out, longest)
	}
	return out
}

// longestWord gives the longest run of letters and digits.
func longestWord(s string) (longest string) {
	for _, word := range strings.FieldsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		if len(word) > len(longest) {
			longest = word
		}
	}
	return longest
}
