package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// longFunction is the number of lines above which a function is long.
const longFunction = 60

// tree holds the counts over the Go files of a repository. Files of tests, and
// the programs in test/ and tools/, count for words of comments only.
type tree struct {
	packages     map[string]*size // by directory
	functions    int
	long         []string // functions of more than longFunction lines
	undocumented []string // exported names without a comment, commands left out
	words        int      // of comments
	whats        []string // lines of comments, one entry an occurrence
	holders      []string // struct types of internal/agent with a field *agent
}

type size struct{ files, lines int }

func (t *tree) lines() (n int) {
	for _, p := range t.packages {
		n += p.lines
	}
	return n
}

// read parses every Go file below root. Directories that the go command skips
// (testdata, names that begin with a dot or an underscore) are skipped.
func read(root string) (*tree, error) {
	t := &tree{packages: map[string]*size{}}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if n := d.Name(); path != root && (n == "testdata" || n[0] == '.' || n[0] == '_') {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return t.file(filepath.ToSlash(rel), src)
	})
	if err == nil && len(t.packages) == 0 {
		err = fmt.Errorf("%s has no Go files: -root names the repository", root)
	}
	return t, err
}

func (t *tree) file(name string, src []byte) error {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	t.comments(set, f)
	if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "test/") || strings.HasPrefix(name, "tools/") {
		return nil
	}
	dir := filepath.ToSlash(filepath.Dir(name))
	p := t.packages[dir]
	if p == nil {
		p = &size{}
		t.packages[dir] = p
	}
	p.files++
	p.lines += strings.Count(string(src), "\n")
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok {
			t.functions++
			if n := set.Position(fn.End()).Line - set.Position(fn.Pos()).Line + 1; n > longFunction {
				t.long = append(t.long, fmt.Sprintf("%s %s: %d lines", set.Position(fn.Pos()), fn.Name.Name, n))
			}
		}
		if f.Name.Name != "main" {
			t.exported(set, d)
		}
		if dir == "internal/agent" {
			t.holding(set, d)
		}
	}
	return nil
}

var (
	word = regexp.MustCompile(`[\pL\pN][\pL\pN'’-]*`)
	what = regexp.MustCompile(`(?i)\bwhat\b`)
)

func (t *tree) comments(set *token.FileSet, f *ast.File) {
	for _, g := range f.Comments {
		for _, c := range g.List {
			for i, line := range strings.Split(c.Text, "\n") {
				if strings.HasPrefix(line, "//go:") {
					continue
				}
				t.words += len(word.FindAllString(line, -1))
				for range what.FindAllString(line, -1) {
					at := set.Position(c.Pos())
					t.whats = append(t.whats, fmt.Sprintf("%s:%d: %s", at.Filename, at.Line+i, strings.TrimSpace(line)))
				}
			}
		}
	}
}

// exported notes the exported names of a declaration that have no comment. A
// comment on a group holds for its members, as go doc shows it.
func (t *tree) exported(set *token.FileSet, d ast.Decl) {
	missing := func(id *ast.Ident) {
		t.undocumented = append(t.undocumented, fmt.Sprintf("%s: %s", set.Position(id.Pos()), id.Name))
	}
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && (d.Recv == nil || receiverExported(d)) && !conventional(d) {
			missing(d.Name)
		}
	case *ast.GenDecl:
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
					missing(s.Name)
				}
			case *ast.ValueSpec:
				for _, n := range s.Names {
					if n.IsExported() && d.Doc == nil && s.Doc == nil && s.Comment == nil {
						missing(n)
					}
				}
			}
		}
	}
}

func receiverExported(d *ast.FuncDecl) bool {
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return false
		}
	}
}

// conventional says whether a method's contract is that of an interface of the
// standard library, so that a comment would repeat it.
func conventional(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return false
	}
	switch d.Name.Name {
	case "String", "Error", "Unwrap", "Is", "Close", "Read", "Write", "ServeHTTP",
		"MarshalText", "UnmarshalText", "MarshalJSON", "UnmarshalJSON",
		"Len", "Less", "Swap", "Push", "Pop", "Describe", "Collect":
		return true
	}
	return false
}

// holding notes struct types with a field that is, or leads to, all of the
// agent.
func (t *tree) holding(set *token.FileSet, d ast.Decl) {
	g, ok := d.(*ast.GenDecl)
	if !ok {
		return
	}
	for _, s := range g.Specs {
		ts, ok := s.(*ast.TypeSpec)
		if !ok {
			continue
		}
		st, ok := ts.Type.(*ast.StructType)
		if !ok {
			continue
		}
		for _, field := range st.Fields.List {
			if star, ok := field.Type.(*ast.StarExpr); ok {
				if id, ok := star.X.(*ast.Ident); ok && id.Name == "agent" {
					t.holders = append(t.holders, fmt.Sprintf("%s: %s", set.Position(ts.Pos()), ts.Name.Name))
				}
			}
		}
	}
}
