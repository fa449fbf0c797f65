package strict

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// wrongKind is how the library says that a value is of another kind than the
// key wants; nothing but its text tells.
var wrongKind = regexp.MustCompile(`^cannot decode TOML (\w+) into `)

// noRoom is how the library says that a number is out of the type's bounds.
var noRoom = regexp.MustCompile(`(integer|float) value \S+ cannot be stored in `)

// wrongValue describes a wrong value in a person's words: no name of a
// Go type is in it.
func (d *decoder) wrongValue(bad *toml.DecodeError) string {
	text := strings.TrimPrefix(bad.Error(), "toml: ")
	want := d.want(bad.Key())
	if m := wrongKind.FindStringSubmatch(text); m != nil {
		return fmt.Sprintf("want %s, and this is a TOML %s", want, m[1])
	}
	if want == describe(moment) {
		return "want " + want
	}
	if noRoom.MatchString(text) {
		if strings.HasSuffix(text, "uint16") {
			return "no port has this number: they go from 1 to 65535"
		}
		return "want " + want + ", and this number is out of its bounds"
	}
	return clip(text)
}

// want describes the values that a key takes.
func (d *decoder) want(key []string) string {
	t := deref(d.root)
	for _, part := range key {
		for t.Kind() == reflect.Slice {
			t = deref(t.Elem())
		}
		switch t.Kind() {
		case reflect.Map:
			t = deref(t.Elem())
		case reflect.Struct:
			f, ok := fieldOf(t, part)
			if !ok {
				return "something else"
			}
			t = deref(f)
		default:
			return "something else"
		}
	}
	return describe(t)
}

// deref gives the type behind pointers.
func deref(t reflect.Type) reflect.Type {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t
}

// fieldOf gives the type of the field of a struct that has a key, also of one
// in an embedded struct.
func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	for f := range fields(t) {
		if f.key == key {
			return f.of, true
		}
	}
	return nil, false
}

var (
	readsText = reflect.TypeFor[encoding.TextUnmarshaler]()
	moment    = reflect.TypeFor[time.Time]()
)

// describe names a type as a person who writes a configuration calls it.
func describe(t reflect.Type) string {
	switch {
	case t == moment:
		return "a time such as 2026-06-01T00:00:00Z"
	case reflect.PointerTo(t).Implements(readsText):
		return "a text in quotes"
	}
	switch t.Kind() {
	case reflect.String:
		return "a text in quotes"
	case reflect.Bool:
		return "true or false"
	case reflect.Uint16:
		return "a port's number, such as 22"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return "a number"
	case reflect.Float32, reflect.Float64:
		return "a number, perhaps with a point"
	case reflect.Struct, reflect.Map:
		return "a table of keys"
	case reflect.Slice:
		return list(deref(t.Elem()))
	}
	return "something else"
}

func list(of reflect.Type) string {
	switch {
	case of.Kind() == reflect.String || reflect.PointerTo(of).Implements(readsText):
		return `a list of texts, such as ["a", "b"]`
	case of.Kind() == reflect.Uint16:
		return "a list of ports' numbers, such as [22, 2222]"
	case of.Kind() == reflect.Struct:
		return "tables, each below a header in double brackets"
	}
	return "a list of numbers, such as [1, 2]"
}
