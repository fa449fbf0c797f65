// Package strict reads TOML files that people write and others send: an
// unknown key or a value of another kind is a fault, and all faults of a file
// are told at once, each with its place, an excerpt and, where there is one, a
// hint. It is the only reader of TOML in the project.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// maxFaults bounds the faults that are told of one file, and so the work that
// a hostile file costs.
const maxFaults = 20

// Decode reads the text of a file into a T, whose fields have `toml` tags. It
// also gives the text as a tree, which tells a value that was left out from
// one that was written. The error is [Faults].
func Decode[T any](file string, text []byte) (value T, tree map[string]any, err error) {
	tree, err = Tree(file, text)
	if err != nil {
		return value, nil, err
	}
	d := decoder{file: file, text: text, rest: bytes.Clone(text), root: reflect.TypeFor[T]()}
	d.unknown(tree)
	for len(d.faults) < maxFaults {
		value = *new(T)
		err := toml.Unmarshal(d.rest, &value)
		if err == nil || !d.fault(err, func(prefix []byte) bool { return toml.Unmarshal(prefix, new(T)) != nil }) {
			break
		}
	}
	if len(d.faults) > 0 {
		return *new(T), nil, d.faults.sorted()
	}
	return value, tree, nil
}

// Tree reads a file as nested tables, arrays and values, whatever its keys are.
// The error is [Faults].
func Tree(file string, text []byte) (map[string]any, error) {
	tree := map[string]any{}
	err := toml.Unmarshal(text, &tree)
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := bad.Position()
		return nil, Faults{{
			File: file, Line: line, Column: column, Text: strings.TrimPrefix(bad.Error(), "toml: "), Excerpt: excerpt(text, line, column, underlined(bad)),
		}}
	}
	if err != nil {
		return nil, Faults{{File: file, Text: err.Error()}}
	}
	return tree, nil
}

// Encode writes a tree as TOML.
func Encode(tree map[string]any) ([]byte, error) { return toml.Marshal(tree) }

// decoder collects the faults of one file.
type decoder struct {
	file   string
	text   []byte // as it was written
	rest   []byte // with the expressions blanked that have a fault already
	root   reflect.Type
	starts []int // of each expression's line in text
	faults Faults
}

// fault notes the fault of one pass. It reports whether another pass may find
// more: the library stops at the first value of a wrong kind, so that one is
// blanked out for the next pass.
func (d *decoder) fault(err error, fails func(prefix []byte) bool) (again bool) {
	if bad, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, column := bad.Position()
		key := strings.Join(bad.Key(), ".")
		d.faults = append(d.faults, &Fault{
			File: d.file, Line: line, Column: column, Path: clip(key), Text: d.wrongValue(bad), Excerpt: excerpt(d.text, line, column, underlined(bad)),
		})
		return d.blank(lineStart(d.text, line))
	}
	// An error of a value's own reader may come without a place: it is in the
	// first expression with which the text before fails.
	d.expressions()
	i := sort.Search(len(d.starts), func(i int) bool { return fails(d.rest[:d.end(i)]) })
	if i == len(d.starts) {
		d.faults = append(d.faults, &Fault{File: d.file, Text: err.Error()})
		return false
	}
	line := 1 + bytes.Count(d.text[:d.starts[i]], []byte{'\n'})
	d.faults = append(d.faults, &Fault{File: d.file, Line: line, Column: 1, Text: err.Error(), Excerpt: excerpt(d.text, line, 1, 1)})
	return d.blank(d.starts[i])
}

// unknown notes the keys that the type has not. The library can tell them, too,
// in time that is the square of a hostile file's length.
func (d *decoder) unknown(tree map[string]any) {
	var paths []keyPath
	unknownKeys(tree, d.root, keyPath{}, &paths)
	if len(paths) == 0 {
		return
	}
	var places Places
	places.Note(d.file, d.text)
	names := Keys(d.root)
	for _, path := range paths {
		at, _ := places.Find(path.at)
		f := &Fault{
			File: d.file, Line: at.Line, Column: at.Column, Text: fmt.Sprintf("unknown field %q", clip(path.name)),
			Excerpt: excerpt(d.text, at.Line, at.Column, at.width),
		}
		if like := Nearest(path.name[strings.LastIndexByte(path.name, '.')+1:], names); like != "" {
			f.Hint = fmt.Sprintf("did you mean %q?", like)
		}
		d.faults = append(d.faults, f)
	}
}

// blank overwrites the expression around an offset of the text with spaces, so
// that places after it stay. It reports whether anything changed: the header
// of a table cannot go without the keys below it.
func (d *decoder) blank(at int) bool {
	d.expressions()
	i := sort.Search(len(d.starts), func(i int) bool { return d.starts[i] > at }) - 1
	if i < 0 {
		return false
	}
	part := d.rest[d.starts[i]:d.end(i)]
	if first := bytes.TrimSpace(part); len(first) == 0 || first[0] == '[' {
		return false
	}
	for j, c := range part {
		if c != '\n' {
			part[j] = ' '
		}
	}
	return true
}

// expressions finds where each table header and each key with its value begins.
func (d *decoder) expressions() {
	if d.starts != nil {
		return
	}
	var p unstable.Parser
	p.Reset(d.text)
	for p.NextExpression() {
		for it := p.Expression().Key(); it.Next(); {
			offset := int(it.Node().Raw.Offset)
			d.starts = append(d.starts, 1+bytes.LastIndexByte(d.text[:offset], '\n'))
			break
		}
	}
}

// end is where the expression after the i-th one begins.
func (d *decoder) end(i int) int {
	if i+1 < len(d.starts) {
		return d.starts[i+1]
	}
	return len(d.text)
}

// lineStart is the offset of a line, which counts from 1.
func lineStart(text []byte, line int) int {
	at := 0
	for ; line > 1; line-- {
		next := bytes.IndexByte(text[at:], '\n')
		if next < 0 {
			break
		}
		at += next + 1
	}
	return at
}
