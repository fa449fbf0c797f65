package strict

import (
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// A Place is a line and column of a file, both from 1.
type Place struct {
	File         string
	Line, Column int
	width        int // of the key, in bytes
}

// Places are the places of tables and keys by dotted path; the second
// [[brokers]] is "brokers.1". The zero value has none.
type Places struct {
	at      map[string]Place
	entries map[string]int // of arrays of tables
}

// Note adds the places of a file, in time linear in its length. A file that
// does not parse is noted up to its fault.
func (p *Places) Note(file string, data []byte) {
	if p.at == nil {
		p.at, p.entries = map[string]Place{}, map[string]int{}
	}
	var parser unstable.Parser
	parser.Reset(data)
	in := cursor{file: file, data: data, line: 1}
	var table string
	for parser.NextExpression() {
		e := parser.Expression()
		switch e.Kind {
		case unstable.Table:
			table = p.key(&in, e, "")
		case unstable.ArrayTable:
			table = p.key(&in, e, "")
			// Entries are numbered over all files, as they are merged.
			entry := fmt.Sprintf("%s.%d", table, p.entries[table])
			p.entries[table]++
			p.at[entry], table = p.at[table], entry
		case unstable.KeyValue:
			p.key(&in, e, table)
		}
	}
}

// key reads an expression's key, notes its place, and gives its full path.
func (p *Places) key(in *cursor, e *unstable.Node, table string) string {
	path := table
	var at Place
	for it := e.Key(); it.Next(); {
		n := it.Node()
		if at.Line == 0 {
			at = in.place(int(n.Raw.Offset))
		}
		at.width = int(n.Raw.Offset+n.Raw.Length) - in.offset
		if path != "" {
			path += "."
		}
		path += string(n.Data)
	}
	p.at[path] = at
	return path
}

// cursor counts lines while offsets grow.
type cursor struct {
	file   string
	data   []byte
	offset int
	line   int
	start  int // offset of the line
}

func (c *cursor) place(offset int) Place {
	for ; c.offset < offset; c.offset++ {
		if c.data[c.offset] == '\n' {
			c.line, c.start = c.line+1, c.offset+1
		}
	}
	return Place{File: c.file, Line: c.line, Column: offset - c.start + 1}
}

// At makes a fault about the value at a dotted path ("topics.sshd.ban"), placed
// at its key or at the nearest table above it that a file has.
func (p *Places) At(path, format string, args ...any) *Fault {
	f := &Fault{Path: path, Text: fmt.Sprintf(format, args...)}
	p.Locate(f)
	return f
}

// Locate gives a fault the file, line and column of its path, if a file has it
// or a table above it.
func (p *Places) Locate(f *Fault) {
	if at, ok := p.Find(f.Path); ok {
		f.File, f.Line, f.Column = at.File, at.Line, at.Column
	}
}

// Find gives the place of a path, or of the nearest table above it that a file
// has.
func (p *Places) Find(path string) (Place, bool) {
	for {
		if at, ok := p.at[path]; ok {
			return at, true
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return Place{}, false
		}
		path = path[:i]
	}
}
