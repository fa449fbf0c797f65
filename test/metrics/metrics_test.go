package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func smallTree(t *testing.T) *tree {
	t.Helper()
	tr, err := read(filepath.Join("testdata", "tree"))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestASmallTreeIsCounted(t *testing.T) {
	var out strings.Builder
	smallTree(t).print(&out, true)
	want := strings.TrimLeft(`
lines	files	package
74	1	internal/agent
25	1	internal/calc
long function: internal/agent/agent.go:13:1 long: 62 lines
exported without comment: internal/calc/calc.go:9:6: Double
exported without comment: internal/calc/calc.go:23:6: Bare
what: internal/calc/calc.go:1: // Package calc adds what it is given.
what: internal/calc/calc_test.go:5: // What Sum is for.
holds *agent: internal/agent/agent.go:5:6: server
figure functions_over_60_lines 200.0 per_1000 aim -
figure exported_without_doc 2 names aim 0
figure what_in_comments 111.1 per_1000_words aim 2
figure agent_parts_holding_agent 1 types aim 0
figure packages 2 packages aim -
figure go_lines_outside_tests 99 lines aim 60784
figure go_lines_outside_tests_base 62284 lines aim -
`, "\n")
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

func TestAPlaceWithoutGoFilesIsRefused(t *testing.T) {
	if _, err := read(t.TempDir()); err == nil {
		t.Error("an empty directory was counted")
	}
}

const record = "internal/calc/calc.go\n- return a + b\n+ return a - b\n"

func TestAListOfBrokenLinesIsRead(t *testing.T) {
	list, err := parseMutants("list", "# why\n"+record+"\n"+record+"test: ./internal/calc -run TestSum\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 2 || list[0].file != "internal/calc/calc.go" || list[0].line != "return a + b" || list[0].with != "return a - b" ||
		!slices.Equal(list[0].test, []string{"./internal/calc"}) || !slices.Equal(list[1].test, []string{"./internal/calc", "-run", "TestSum"}) ||
		list[1].place != "list:6" {
		t.Errorf("read %+v", list)
	}
	list, err = parseMutants("list", "a.go\n- \treturn\n+\n")
	if err != nil || len(list) != 1 || list[0].with != "" || list[0].line != "return" {
		t.Errorf("a removed line: %+v, %v", list, err)
	}
}

func TestAFaultyListIsRefusedWithItsPlace(t *testing.T) {
	for name, text := range map[string]string{
		"no file":         "- a\n+ b\n",
		"no replacement":  "a.go\n- a\n",
		"no line":         "a.go\n+ a\n",
		"nothing changed": "a.go\n- a\n+ a\n",
		"a line twice":    "a.go\n- a\n- b\n+ c\n",
		"a second with":   "a.go\n- a\n+ b\n+ c\n",
		"something else":  "a.go\n- a\n+ b\nrun: x\n",
	} {
		if _, err := parseMutants("list", text); err == nil || !strings.HasPrefix(err.Error(), "list:") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestALineStandsInItsFileOnce(t *testing.T) {
	m := mutant{place: "list:1", file: "a.go", line: "x++", with: "x--"}
	if got, err := m.apply([]byte("{\n\t\tx++\n}\n")); err != nil || string(got) != "{\n\t\tx--\n}\n" {
		t.Errorf("%q, %v", got, err)
	}
	for _, src := range []string{"", "\tx++ \n", "x++\n\tx++\n"} {
		if _, err := m.apply([]byte(src)); err == nil {
			t.Errorf("applied to %q", src)
		}
	}
}

func TestABrokenLineIsNoticedMissedOrAnError(t *testing.T) {
	root := filepath.Join("testdata", "tree")
	list := func(line, with string) mutant {
		return mutant{place: "list:1", file: "internal/calc/calc.go", line: line, with: with, test: []string{"./internal/calc"}}
	}
	sum := list("return a + b", "return a - b")
	if err := passes(t.Context(), root, []mutant{sum}); err != nil {
		t.Fatal(err)
	}
	if noticed, err := sum.run(t.Context(), root); err != nil || !noticed {
		t.Errorf("a wrong sum: noticed %v, %v", noticed, err)
	}
	if noticed, err := list("return a / 2", "return a / 3").run(t.Context(), root); err != nil || noticed {
		t.Errorf("what no test looks at: noticed %v, %v", noticed, err)
	}
	if _, err := list("return a + b", "return a +").run(t.Context(), root); err == nil || !strings.Contains(err.Error(), "does not compile") {
		t.Errorf("code that does not compile: %v", err)
	}
	if src, err := os.ReadFile(filepath.Join(root, sum.file)); err != nil || !strings.Contains(string(src), sum.line) {
		t.Errorf("the tree was touched: %v", err)
	}
	failing := sum
	failing.test = []string{"./nosuch"}
	if err := passes(t.Context(), root, []mutant{failing}); err == nil {
		t.Error("tests that fail anyway notice everything")
	}
}

// Running them all takes minutes (make metrics); that each still has its line
// is checked at every test.
func TestEveryBrokenLineStillApplies(t *testing.T) {
	root := filepath.Join("..", "..")
	lists, err := filepath.Glob(filepath.Join("mutants", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, path := range lists {
		name, records, err := readMutants(path)
		if err != nil {
			t.Error(err)
			continue
		}
		found[name] = len(records)
		for _, m := range records {
			src, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(m.file)))
			if err != nil {
				t.Errorf("%s: %v", m.place, err)
				continue
			}
			if _, err := m.apply(src); err != nil {
				t.Error(err)
			}
		}
	}
	for _, name := range []string{"pattern", "filter", "dates", "f2bconf", "control"} {
		if found[name] < 10 {
			t.Errorf("%s has %d broken lines, want ten at least", name, found[name])
		}
	}
}
