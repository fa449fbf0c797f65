package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
)

// A Key is one key of a configuration file.
type Key struct {
	Path   string // "firewall.mode", "topics.NAME.ban", "brokers[].url"
	Kind   string // for people: "text", "whole number", "list of texts", "table"
	Text   string // the meaning, one paragraph
	Sample string // a value in TOML that the key takes
	Keys   []Key  // of a table
}

// source is the Go packages whose structs describe files.
type source struct {
	dir     string                          // of the module
	structs map[string]map[string]*structAt // by directory, then by name
}

type structAt struct{ expr *ast.StructType }

func newSource(dir string) *source {
	return &source{dir, map[string]map[string]*structAt{}}
}

// load parses the package in a directory of the module, once.
func (s *source) load(dir string) error {
	if s.structs[dir] != nil {
		return nil
	}
	s.structs[dir] = map[string]*structAt{}
	set := token.NewFileSet()
	names, err := filepath.Glob(filepath.Join(s.dir, dir, "*.go"))
	if err != nil {
		return fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		if err != nil {
			return fmt.Errorf("parsing %s: %w", name, err)
		}
		s.note(dir, f)
	}
	return nil
}

// note takes the types that a file declares.
func (s *source) note(dir string, f *ast.File) {
	for _, d := range f.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, spec := range g.Specs {
			t := spec.(*ast.TypeSpec)
			if st, ok := t.Type.(*ast.StructType); ok {
				s.structs[dir][t.Name.Name] = &structAt{st}
			}
		}
	}
}

// homes are the packages that a struct's fields may name.
var homes = map[string]string{"policy": "internal/policy", "ban": "internal/ban", "span": "internal/span", "topics": "topics"}

// keys gives the keys of a struct, those of embedded ones in their place.
func (s *source) keys(dir, name, at string) ([]Key, error) {
	if err := s.load(dir); err != nil {
		return nil, err
	}
	st := s.structs[dir][name]
	if st == nil {
		return nil, fmt.Errorf("%s has no struct %s", dir, name)
	}
	var all []Key
	names := fieldKeys(st.expr)
	for _, f := range st.expr.Fields.List {
		if len(f.Names) == 0 {
			home, typ := s.typeOf(dir, f.Type)
			more, err := s.keys(home, typ, at)
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
			continue
		}
		tag := reflect.StructTag(strings.Trim(tagOf(f), "`"))
		key, _, _ := strings.Cut(tag.Get("toml"), ",")
		if key == "" || key == "-" {
			continue
		}
		text := f.Doc.Text()
		if text == "" {
			text = f.Comment.Text()
		}
		k := Key{Path: join(at, key), Text: sentence(text, f.Names[0].Name, names), Sample: tag.Get("sample")}
		if err := s.fill(&k, dir, f.Type); err != nil {
			return nil, err
		}
		all = append(all, k)
	}
	return all, nil
}

func tagOf(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	return f.Tag.Value
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// fieldKeys are the keys of a struct by the names of its fields, which comments
// use.
func fieldKeys(st *ast.StructType) map[string]string {
	m := map[string]string{}
	for _, f := range st.Fields.List {
		if len(f.Names) == 0 {
			continue
		}
		key, _, _ := strings.Cut(reflect.StructTag(strings.Trim(tagOf(f), "`")).Get("toml"), ",")
		if key != "" && key != "-" {
			m[f.Names[0].Name] = key
		}
	}
	return m
}

var (
	camel = regexp.MustCompile(`\b[A-Z][A-Za-z0-9]+\b`)
	link  = regexp.MustCompile(`\[([A-Za-z.]+)\]`)
)

// sentence makes a comment about a field a text about its key.
func sentence(text, field string, keys map[string]string) string {
	text = strings.Join(strings.Fields(text), " ")
	text = link.ReplaceAllString(text, "$1")
	text = camel.ReplaceAllStringFunc(text, func(word string) string {
		k, ok := keys[word]
		if !ok || (strings.ToLower(word) == word) {
			return word
		}
		// An ordinary word at a sentence's start that is also a field's name is
		// taken for the field only where it is this field's own.
		if word != field && isWord[word] {
			return word
		}
		return "`" + k + "`"
	})
	if text != "" && !strings.ContainsAny(text[len(text)-1:], ".:") {
		text += "."
	}
	return text
}

// isWord are names of fields that comments use as words too.
var isWord = map[string]bool{"Class": true, "Target": true, "User": true, "Time": true, "Port": true, "Address": true, "Where": true, "Weight": true}

// typeOf gives the package's directory and the name of a type.
func (s *source) typeOf(dir string, e ast.Expr) (home, name string) {
	switch t := e.(type) {
	case *ast.StarExpr:
		return s.typeOf(dir, t.X)
	case *ast.Ident:
		return dir, t.Name
	case *ast.SelectorExpr:
		pkg := t.X.(*ast.Ident).Name
		if h, ok := homes[pkg]; ok {
			return h, t.Sel.Name
		}
		return pkg, t.Sel.Name
	}
	return "", ""
}

// fill sets the kind of a key, an example where none is given, and the keys of a
// table.
func (s *source) fill(k *Key, dir string, e ast.Expr) (err error) {
	switch t := e.(type) {
	case *ast.StarExpr:
		return s.fill(k, dir, t.X)
	case *ast.ArrayType:
		if home, name := s.typeOf(dir, t.Elt); s.isStruct(home, name) {
			k.Path += "[]"
			k.Kind = "tables"
			k.Keys, err = s.keys(home, name, k.Path)
			return err
		}
		of := Key{}
		if err := s.fill(&of, dir, t.Elt); err != nil {
			return err
		}
		k.Kind = "list of " + of.Kind + "s"
		if of.Kind == "whole number" {
			k.Kind = "list of numbers"
		}
		k.example("[]")
		return nil
	case *ast.MapType:
		k.Path += ".NAME"
		if home, name := s.typeOf(dir, t.Value); s.isStruct(home, name) {
			k.Kind = "tables by name"
			k.Keys, err = s.keys(home, name, k.Path)
			return err
		}
		if _, list := t.Value.(*ast.ArrayType); list {
			k.Kind = "lists by name"
			k.example("[]")
			return nil
		}
		k.Kind = "texts by name"
		k.example(`""`)
		return nil
	case *ast.InterfaceType:
		k.Kind = "text"
		k.example(`""`)
		return nil
	}
	home, name := s.typeOf(dir, e)
	switch {
	case s.isStruct(home, name) && name != "Duration":
		k.Kind = "table"
		k.Keys, err = s.keys(home, name, k.Path)
	case name == "bool":
		k.Kind = "true or false"
		k.example("true")
	case name == "int" || name == "int64" || name == "uint16" || name == "uint8":
		k.Kind = "whole number"
		k.example("1")
	case name == "float64":
		k.Kind = "number"
		k.example("1.0")
	case name == "Time":
		k.Kind = "time"
		k.example("2026-06-01T00:00:00Z")
	case name == "Duration":
		k.Kind = "duration"
		k.example(`"10m"`)
	case name == "any":
		k.Kind = "text"
		k.example(`""`)
	default:
		k.Kind = "text"
		k.example(`""`)
	}
	return err
}

func (k *Key) example(value string) {
	if k.Sample == "" {
		k.Sample = value
	}
}

func (s *source) isStruct(dir, name string) bool {
	if dir == "" || !strings.Contains(dir, "/") && dir != "topics" {
		return false
	}
	return s.load(dir) == nil && s.structs[dir][name] != nil
}
