package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"banmesh/internal/ban"
)

// A banList is the operators and nodes that this broker does not serve. Its
// file has one identity a line; '#' begins a comment.
type banList struct {
	path string

	mu    sync.RWMutex
	known map[string]bool
}

func openBanList(path string) (*banList, error) {
	l := &banList{path: path, known: map[string]bool{}}
	if path == "" {
		return l, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading banned keys: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		text, _, _ := strings.Cut(lines.Text(), "#")
		if text = strings.TrimSpace(text); text == "" {
			continue
		}
		if err := checkIdentity(text); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", path, n, err)
		}
		l.known[text] = true
	}
	return l, lines.Err()
}

// checkIdentity checks that a text is an operator or a node.
func checkIdentity(text string) error {
	if _, err := ban.ParseOperator(text); err == nil {
		return nil
	}
	if _, err := ban.ParseNode(text); err == nil {
		return nil
	}
	return fmt.Errorf("%.64q is neither an operator (%d characters) nor a node (%d)", text, ban.OperatorText, ban.NodeText)
}

func (l *banList) has(texts ...string) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.known) == 0 {
		return false
	}
	for _, t := range texts {
		if l.known[t] {
			return true
		}
	}
	return false
}

// all gives the list, sorted.
func (l *banList) all() []string {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]string, 0, len(l.known))
	for t := range l.known {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// change adds or removes an identity, in the file first.
func (l *banList) change(text string, banned bool) error {
	if err := checkIdentity(text); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[text] == banned {
		return nil
	}
	next := map[string]bool{}
	for t := range l.known {
		next[t] = true
	}
	if banned {
		next[text] = true
	} else {
		delete(next, text)
	}
	if err := l.write(next); err != nil {
		return fmt.Errorf("writing banned keys: %w", err)
	}
	l.known = next
	return nil
}

func (l *banList) write(known map[string]bool) error {
	if l.path == "" {
		return nil
	}
	lines := make([]string, 0, len(known))
	for t := range known {
		lines = append(lines, t+"\n")
	}
	slices.Sort(lines)
	f, err := os.CreateTemp(filepath.Dir(l.path), ".banned-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString("# Operators and nodes that this broker does not serve.\n" + strings.Join(lines, ""))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), l.path)
}
