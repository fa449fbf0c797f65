package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// mutant is a line of code and a broken one in its place, which a test should
// notice. A list has one record after the other, an empty line between them:
//
//	internal/detect/dates/parse.go
//	- if year < 1970 {
//	+ if year <= 1970 {
//	test: ./internal/detect/dates -run TestYears
//
// The lines are given without their leading tabs. The last line may be left
// out: then all tests of the file's package are asked. A line that begins with
// "#" is a comment.
type mutant struct {
	place      string // of the record: file:line
	file       string // below the root, with slashes
	line, with string
	test       []string // arguments of go test
}

// readMutants reads a list; its name is the file's without ".txt".
func readMutants(file string) (name string, list []mutant, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", nil, err
	}
	name = strings.TrimSuffix(filepath.Base(file), ".txt")
	list, err = parseMutants(file, string(text))
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: no records", file)
	}
	return name, list, err
}

func parseMutants(file, text string) ([]mutant, error) {
	var list []mutant
	var m *mutant
	for i, line := range strings.Split(text, "\n") {
		place := fmt.Sprintf("%s:%d", file, i+1)
		before, isLine := strings.CutPrefix(line, "- ")
		after, isWith := strings.CutPrefix(line, "+")
		test, isTest := strings.CutPrefix(line, "test: ")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			m = nil
		case m == nil:
			if !strings.HasSuffix(line, ".go") {
				return nil, fmt.Errorf("%s: a record begins with the path of a Go file", place)
			}
			list = append(list, mutant{place: place, file: line, with: "\x00", test: []string{"./" + path.Dir(line)}})
			m = &list[len(list)-1]
		case isLine && m.line == "":
			m.line = strings.TrimLeft(before, "\t")
		case isWith && m.with == "\x00":
			m.with = strings.TrimLeft(strings.TrimPrefix(after, " "), "\t")
		case isTest:
			m.test = strings.Fields(test)
		default:
			return nil, fmt.Errorf("%s: expected \"- LINE\", \"+ LINE\" or \"test: ARGUMENTS\", each once", place)
		}
	}
	for _, m := range list {
		switch {
		case m.line == "" || m.with == "\x00":
			return nil, fmt.Errorf("%s: a record needs a line with \"- \" and one with \"+ \"", m.place)
		case m.line == m.with:
			return nil, fmt.Errorf("%s: nothing is changed", m.place)
		}
	}
	return list, nil
}

// apply gives the file with the line replaced. A line that does not stand in
// the file exactly once is an error: the record is out of date.
func (m mutant) apply(src []byte) ([]byte, error) {
	lines := strings.Split(string(src), "\n")
	at := -1
	for i, l := range lines {
		if strings.TrimLeft(l, "\t") != m.line {
			continue
		}
		if at >= 0 {
			return nil, fmt.Errorf("%s: %s has the line more than once: %s", m.place, m.file, m.line)
		}
		at = i
	}
	if at < 0 {
		return nil, fmt.Errorf("%s: %s does not have the line any more: %s", m.place, m.file, m.line)
	}
	tabs := lines[at][:len(lines[at])-len(m.line)]
	lines[at] = tabs + m.with
	return []byte(strings.Join(lines, "\n")), nil
}

// run says whether the tests fail with the broken line in place. The tree is
// not touched: the compiler is given the broken file as an overlay. Code that
// does not compile is an error, because no test noticed it.
func (m mutant) run(ctx context.Context, root string) (noticed bool, err error) {
	root, err = filepath.Abs(root)
	if err != nil {
		return false, err
	}
	original := filepath.Join(root, filepath.FromSlash(m.file))
	src, err := os.ReadFile(original)
	if err != nil {
		return false, err
	}
	broken, err := m.apply(src)
	if err != nil {
		return false, err
	}
	dir, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	replacement, overlay := filepath.Join(dir, "broken.go"), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: replacement}})
	if err != nil {
		return false, err
	}
	if err := errors.Join(os.WriteFile(replacement, broken, 0o600), os.WriteFile(overlay, replace, 0o600)); err != nil {
		return false, err
	}
	if out, err := goCommand(ctx, root, "build", "-overlay", overlay, "-o", os.DevNull, "./"+path.Dir(m.file)); err != nil {
		return false, fmt.Errorf("the broken line does not compile: %w\n%s", err, out)
	}
	_, err = goCommand(ctx, root, append([]string{"test", "-overlay", overlay, "-vet=off", "-timeout", "3m"}, m.test...)...)
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return true, nil
	}
	return false, err
}

// passes says whether the tests that the records name pass without any broken
// line: a test that fails anyway would notice everything.
func passes(ctx context.Context, root string, list []mutant) error {
	asked := map[string]bool{}
	for _, m := range list {
		if key := strings.Join(m.test, " "); !asked[key] {
			asked[key] = true
			if out, err := goCommand(ctx, root, append([]string{"test", "-vet=off", "-timeout", "3m"}, m.test...)...); err != nil {
				return fmt.Errorf("%s: go test %s fails without a broken line: %w\n%s", m.place, key, err, out)
			}
		}
	}
	return nil
}

// goCommand runs the go command, or the one that GO names.
func goCommand(ctx context.Context, root string, args ...string) ([]byte, error) {
	command := exec.CommandContext(ctx, cmp.Or(os.Getenv("GO"), "go"), args...)
	command.Dir = root
	var out bytes.Buffer
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	return out.Bytes(), err
}
