package arch

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	row  = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$")
	code = regexp.MustCompile("`([^`\n]+)`")
	file = regexp.MustCompile(`^[\w/.-]+\.go$`)
)

func architecture(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestTheMapListsEveryPackageAndNoOther(t *testing.T) {
	packages := read(t)
	listed := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(architecture(t), -1) {
		name, says := m[1], m[2]
		if listed[name] {
			t.Errorf("docs/architecture.md lists %s twice", name)
		}
		listed[name] = true
		if packages[name] == nil {
			t.Errorf("docs/architecture.md lists %s, which is no package: take the row away", name)
		}
		if strings.TrimSpace(says) == "" {
			t.Errorf("docs/architecture.md says nothing of %s", name)
		}
	}
	for dir := range packages {
		top, _, _ := strings.Cut(dir, "/")
		if top != "test" && top != "tools" && dir != "." && !listed[dir] {
			t.Errorf("docs/architecture.md does not list %s: add a row with one line about it", dir)
		}
	}
}

func TestTheFilesThatTheMapNamesAreThere(t *testing.T) {
	named := 0
	for _, m := range code.FindAllStringSubmatch(architecture(t), -1) {
		if !file.MatchString(m[1]) || strings.Contains(m[1], "NAME") {
			continue
		}
		named++
		if _, err := os.Stat(filepath.Join("..", "..", filepath.FromSlash(m[1]))); err != nil {
			t.Errorf("docs/architecture.md names %s, which is not there: name the file that does it now", m[1])
		}
	}
	if named < 20 {
		t.Errorf("docs/architecture.md names only %d files: the walks are gone", named)
	}
}

// A document that names a test of a defence stands for it: the test is there.
func TestTheTestsThatDocumentsNameAreThere(t *testing.T) {
	there := map[string]bool{}
	err := filepath.WalkDir(filepath.Join("..", ".."), func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range testName.FindAllStringSubmatch(string(b), -1) {
			there[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	documents, err := filepath.Glob(filepath.Join("..", "..", "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, path := range documents {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range namedTest.FindAllStringSubmatch(string(b), -1) {
			if named++; !there[m[1]] {
				t.Errorf("%s names %s, which is no test: name the one that holds it now", filepath.Base(path), m[1])
			}
		}
	}
	if named < 80 {
		t.Errorf("%d tests are named", named)
	}
}

var (
	testName  = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	namedTest = regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`")
)
