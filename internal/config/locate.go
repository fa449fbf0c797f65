package config

import (
	"reflect"
	"strings"
	"sync"

	"github.com/pelletier/go-toml/v2/unstable"
)

// locate notes where each table and key of a file stands, by dotted path. The
// file has been decoded before, so a parse error cannot happen here; if one
// does, places are missing and faults name the file's table or nothing.
func locate(file string, data []byte, places map[string]place) {
	var p unstable.Parser
	p.Reset(data)
	var table string
	for p.NextExpression() {
		e := p.Expression()
		switch e.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = keyOf(&p, e, file, "", places)
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

// nearest gives the name that a person probably meant, or "".
func nearest(wrong string, names []string) string {
	best, distance := "", len(wrong)/3+1
	for _, n := range names {
		if d := editDistance(wrong, n, distance+1); d <= distance && (best == "" || d < distance) {
			best, distance = n, d
		}
	}
	return best
}

// editDistance is Levenshtein's, ignoring case and treating '-' as '_'; a
// result above limit only means "more".
func editDistance(a, b string, limit int) int {
	norm := func(s string) string { return strings.ReplaceAll(strings.ToLower(s), "-", "_") }
	a, b = norm(a), norm(b)
	if max(len(a)-len(b), len(b)-len(a)) > limit || len(a) > 64 {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		before := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := before
			if a[i-1] != b[j-1] {
				cost++
			}
			before = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
