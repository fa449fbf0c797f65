package strict

import (
	"fmt"
	"iter"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// field is a key of a table and the type of its value.
type field struct {
	key string
	of  reflect.Type
}

// fields gives the keys of a struct, those of embedded structs included.
func fields(t reflect.Type) iter.Seq[field] {
	return func(yield func(field) bool) {
		for i := range t.NumField() {
			f := t.Field(i)
			if tag, _, _ := strings.Cut(f.Tag.Get("toml"), ","); tag != "" {
				if !yield(field{tag, f.Type}) {
					return
				}
			} else if inner := deref(f.Type); f.Anonymous && inner.Kind() == reflect.Struct {
				for x := range fields(inner) {
					if !yield(x) {
						return
					}
				}
			}
		}
	}
}

// Keys gives every key of any table that a file which is read into the type
// may have.
func Keys(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		return Keys(t.Elem())
	case reflect.Struct:
		for f := range fields(t) {
			names = append(append(names, f.key), Keys(f.of)...)
		}
	}
	return names
}

// keyPath names a value: at is its path in [Places], name leaves out which
// entry of an array of tables it is in.
type keyPath struct{ at, name string }

func (p keyPath) key(k string) keyPath {
	if p.name == "" {
		return keyPath{k, k}
	}
	return keyPath{p.at + "." + k, p.name + "." + k}
}

// unknownKeys lists the keys of a tree that a type has no field for, at most
// [maxFaults] of them.
func unknownKeys(value any, t reflect.Type, path keyPath, list *[]keyPath) {
	t = deref(t)
	if t == moment || reflect.PointerTo(t).Implements(readsText) {
		return
	}
	switch value := value.(type) {
	case []any:
		if t.Kind() == reflect.Slice {
			for i, v := range value {
				unknownKeys(v, t.Elem(), keyPath{fmt.Sprintf("%s.%d", path.at, i), path.name}, list)
			}
		}
	case map[string]any:
		known := map[string]reflect.Type{}
		switch t.Kind() {
		case reflect.Struct:
			for f := range fields(t) {
				known[f.key] = f.of
			}
		case reflect.Map:
			for k := range value {
				known[k] = t.Elem()
			}
		default:
			return // of another kind: the decoder says so
		}
		for _, k := range slices.Sorted(maps.Keys(value)) {
			if len(*list) == maxFaults {
				return
			}
			if of, ok := known[k]; ok {
				unknownKeys(value[k], of, path.key(k), list)
			} else {
				*list = append(*list, path.key(k))
			}
		}
	}
}
