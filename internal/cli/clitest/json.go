package clitest

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// DescribeJSON gives a line for each value that the JSON of a type holds: its path
// and its kind. A name with ? is left out where it says nothing. It panics for a
// length of time that would be a number.
func DescribeJSON(t reflect.Type) string {
	var b strings.Builder
	describeJSON(&b, t, "", map[reflect.Type]bool{})
	return b.String()
}

// describeJSON writes a line a value that JSON of a type holds.
func describeJSON(b *strings.Builder, t reflect.Type, path string, within map[reflect.Type]bool) {
	if name, ok := leaf(t); ok {
		fmt.Fprintf(b, "%-34s %s\n", strings.TrimPrefix(path, "."), name)
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		describeJSON(b, t.Elem(), path, within)
	case reflect.Slice, reflect.Array:
		describeJSON(b, t.Elem(), path+"[]", within)
	case reflect.Map:
		describeJSON(b, t.Elem(), path+".<"+strings.ToLower(t.Key().Name())+">", within)
	case reflect.Struct:
		if within[t] {
			fmt.Fprintf(b, "%-34s (as above)\n", strings.TrimPrefix(path, "."))
			return
		}
		within[t] = true
		defer delete(within, t)
		for i := range t.NumField() {
			f := t.Field(i)
			tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && tag == "" {
				describeJSON(b, f.Type, path, within)
				continue
			}
			if !f.IsExported() || tag == "-" {
				continue
			}
			if tag == "" {
				tag = f.Name
			}
			if strings.HasPrefix(options, "omit") {
				tag += "?"
			}
			describeJSON(b, f.Type, path+"."+tag, within)
		}
	default:
		fmt.Fprintf(b, "%-34s %s\n", strings.TrimPrefix(path, "."), t)
	}
}

// leaf names the type of a value that is no object or array in JSON.
func leaf(t reflect.Type) (string, bool) {
	switch name := t.String(); name {
	case "time.Time":
		return "time", true
	case "span.Duration":
		return "length of time", true
	case "time.Duration":
		panic("a length of time must be text in JSON")
	case "json.RawMessage", "interface {}":
		return "any", true
	}
	if t.Kind() != reflect.Pointer {
		for _, as := range []reflect.Type{reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[json.Marshaler]()} {
			if t.Implements(as) || reflect.PointerTo(t).Implements(as) {
				return strings.ToLower(t.Name()), true
			}
		}
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false", true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float64:
		return "number", true
	case reflect.String:
		if t.Name() == "string" {
			return "text", true
		}
		return strings.ToLower(t.Name()), true
	}
	return "", false
}
