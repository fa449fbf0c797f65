package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// pkg is a directory with Go files, as the tests of this package see it.
type pkg struct {
	imports  map[string]string // by path: a file that has it, test files left out
	comments []string          // files with a comment of the package
	tests    []string          // names of tests
}

// read parses every Go file of the repository and gives its packages by
// directory.
func read(t *testing.T) map[string]*pkg {
	t.Helper()
	packages := map[string]*pkg{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if d.Name() == "testdata" || (strings.HasPrefix(d.Name(), ".") && rel != ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if packages[dir] == nil {
			packages[dir] = &pkg{imports: map[string]string{}}
		}
		return packages[dir].add(p, filepath.ToSlash(rel))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) < 40 {
		t.Fatalf("saw only %d packages: the test looks in the wrong place", len(packages))
	}
	return packages
}

func (p *pkg) add(path, name string) error {
	src, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	if file.Doc != nil {
		p.comments = append(p.comments, name)
	}
	if !strings.HasSuffix(name, "_test.go") {
		for _, i := range file.Imports {
			p.imports[strings.Trim(i.Path.Value, `"`)] = name
		}
		return nil
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && strings.HasPrefix(f.Name.Name, "Test") {
			p.tests = append(p.tests, name+": "+f.Name.Name)
		}
	}
	return nil
}
