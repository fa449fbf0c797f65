package config

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2/unstable"
)

// locate notes where each table and key of a file stands, by dotted path; the
// second [[brokers]] is "brokers.1". The
// file has been decoded before, so a parse error cannot happen here; if one
// does, places are missing and faults name the file's table or nothing.
func locate(file string, data []byte, places map[string]place) {
	var p unstable.Parser
	p.Reset(data)
	var table string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table:
			table = keyOf(&p, e, file, "", places)
		case unstable.ArrayTable:
			table = keyOf(&p, e, file, "", places)
			// Entries are numbered over all files, as they are merged.
			for i := 0; ; i++ {
				entry := fmt.Sprintf("%s.%d", table, i)
				if _, ok := places[entry]; !ok {
					places[entry], table = places[table], entry
					break
				}
			}
		case unstable.KeyValue:
			keyOf(&p, e, file, table, places)
		}
	}
}

// keyOf reads an expression's key, notes its place, and gives its full path.
func keyOf(p *unstable.Parser, e *unstable.Node, file, table string, places map[string]place) string {
	path := table
	var at place
	for it := e.Key(); it.Next(); {
		n := it.Node()
		if at.line == 0 {
			start := p.Shape(n.Raw).Start
			at = place{file, start.Line, start.Column}
		}
		if path != "" {
			path += "."
		}
		path += string(n.Data)
	}
	places[path] = at
	return path
}

// fieldNames lists every key that a configuration file may have.
var fieldNames = sync.OnceValue(func() []string {
	var names []string
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
	walk(reflect.TypeFor[Config]())
	return names
})
