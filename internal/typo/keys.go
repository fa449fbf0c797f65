package typo

import (
	"reflect"
	"strings"
)

// Keys gives every key that a TOML file which is read into a T may have.
func Keys[T any]() (names []string) {
	var walk func(t reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			for i := range t.NumField() {
				tag := t.Field(i).Tag.Get("toml")
				if tag != "" {
					names = append(names, strings.Split(tag, ",")[0])
				}
				if tag != "" || t.Field(i).Anonymous {
					walk(t.Field(i).Type)
				}
			}
		}
	}
	walk(reflect.TypeFor[T]())
	return names
}
