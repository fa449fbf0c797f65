// Package place says where the keys of TOML files stand, so that a fault of a
// value is shown at its line.
package place

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// A Place is a line and column of a file, both from 1.
type Place struct {
	File         string
	Line, Column int
}

// Places are the places of tables and keys by dotted path; the second
// [[brokers]] is "brokers.1".
type Places map[string]Place

// Note adds the places of a file. The file has been decoded before, so a parse
// error cannot happen here; if one does, places are missing and faults name the
// file's table or nothing.
func (p Places) Note(file string, data []byte) {
	var parser unstable.Parser
	parser.Reset(data)
	var table string
	for parser.NextExpression() {
		e := parser.Expression()
		switch e.Kind {
		case unstable.Table:
			table = p.key(&parser, e, file, "")
		case unstable.ArrayTable:
			table = p.key(&parser, e, file, "")
			// Entries are numbered over all files, as they are merged.
			for i := 0; ; i++ {
				entry := fmt.Sprintf("%s.%d", table, i)
				if _, ok := p[entry]; !ok {
					p[entry], table = p[table], entry
					break
				}
			}
		case unstable.KeyValue:
			p.key(&parser, e, file, table)
		}
	}
}

// key reads an expression's key, notes its place, and gives its full path.
func (p Places) key(parser *unstable.Parser, e *unstable.Node, file, table string) string {
	path := table
	var at Place
	for it := e.Key(); it.Next(); {
		n := it.Node()
		if at.Line == 0 {
			start := parser.Shape(n.Raw).Start
			at = Place{file, start.Line, start.Column}
		}
		if path != "" {
			path += "."
		}
		path += string(n.Data)
	}
	p[path] = at
	return path
}

// Find gives the place of a path, or of the nearest table above it that a file
// has.
func (p Places) Find(path string) (Place, bool) {
	for {
		if at, ok := p[path]; ok {
			return at, true
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return Place{}, false
		}
		path = path[:i]
	}
}
