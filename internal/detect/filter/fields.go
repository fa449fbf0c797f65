package filter

import (
	"strings"
)

// Fields are the named groups of a match, in no particular order. A group that
// took no part is missing.
type Fields []Field

// A Field is one named group's text.
type Field struct {
	Name, Value string
}

// Get gives a field's text.
func (f Fields) Get(name string) (string, bool) {
	for i := range f {
		if f[i].Name == name {
			return f[i].Value, true
		}
	}
	return "", false
}

// value gives a field's text, "" when it is missing.
func (f Fields) value(name string) string {
	v, _ := f.Get(name)
	return v
}

func (f *Fields) set(field Field) {
	for i := range *f {
		if (*f)[i].Name == field.Name {
			(*f)[i] = field
			return
		}
	}
	*f = append(*f, field)
}

// remove takes a field out and says whether it was there.
func (f *Fields) remove(name string) bool {
	for i := range *f {
		if (*f)[i].Name == name {
			last := len(*f) - 1
			(*f)[i] = (*f)[last]
			*f = (*f)[:last]
			return true
		}
	}
	return false
}

// newGroup reads the complex names of fail2ban: alt_NAME and alt_NAME_1 stand
// in for NAME, tuple_NAME and tuple_NAME_1 are parts of NAME.
func newGroup(index int, name string) group {
	g := group{index: index, name: name}
	if rest, ok := strings.CutPrefix(name, "alt_"); ok {
		g.name, g.alternate = complexName(rest), true
	} else if rest, ok := strings.CutPrefix(name, "tuple_"); ok {
		g.name, g.tuple = complexName(rest), true
	}
	return g
}

func complexName(s string) string {
	if i := strings.LastIndexByte(s, '_'); i >= 0 && i+1 < len(s) && strings.Trim(s[i+1:], "0123456789") == "" {
		s = s[:i]
	}
	switch s = strings.ToLower(s); s {
	case "id":
		return "fid"
	case "port":
		return "fport"
	}
	return s
}

// fields reads a rule's groups out of text, over those of into.
func (r *rule) fields(into Fields, text string, spans []int) Fields {
	complicated := false
	for _, g := range r.groups {
		if g.alternate || g.tuple {
			complicated = true
			continue
		}
		if from := spans[2*g.index]; from >= 0 {
			into.set(Field{Name: g.name, Value: text[from:spans[2*g.index+1]]})
		}
	}
	if !complicated {
		return into
	}
	for _, g := range r.groups {
		from := spans[2*g.index]
		switch {
		case g.alternate && from >= 0:
			if v := text[from:spans[2*g.index+1]]; v != "" && into.value(g.name) == "" {
				into.set(Field{Name: g.name, Value: v})
			}
		case g.tuple:
			part := ""
			if from >= 0 {
				part = text[from:spans[2*g.index+1]]
			}
			into.set(Field{g.name, into.value(g.name) + ", " + part})
		}
	}
	return into
}
