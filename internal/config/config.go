// Package config reads the agent's configuration: TOML files that people and
// `agent topics subscribe` write, merged and checked, with every fault at once.
// The program never rewrites a file that a person wrote.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"banmesh/internal/strict"
)

// MaxFile bounds one configuration file.
const MaxFile = 4 << 20

// Loaded is a configuration and where each value of it was written.
type Loaded struct {
	Config
	// Files that were read, in order.
	Files  []string
	places strict.Places
}

// At makes a fault about the value at a dotted path ("topics.sshd.ban"), or
// about the nearest table above it that a file has.
func (l *Loaded) At(path, format string, args ...any) *strict.Fault {
	return l.Locate(&strict.Fault{Path: path, Text: fmt.Sprintf(format, args...)})
}

// Locate gives a fault of a value the file, line and column of its path.
func (l *Loaded) Locate(f *strict.Fault) *strict.Fault {
	f.File, f.Line, f.Column = "configuration", 0, 0
	l.places.Locate(f)
	return f
}

// Load reads agent.toml and then conf.d/*.toml of dir, sorted by name; later
// files add to earlier ones and win, key by key. A directory or file that is
// not there is an empty configuration. Every fault of every file is in the
// error, joined, as a [strict.Fault].
func Load(dir string) (*Loaded, error) {
	l := &Loaded{}
	whole := map[string]any{}
	var faults []error
	more, err := ListFiles(filepath.Join(dir, DropInDirectory), ".toml")
	if err != nil {
		faults = append(faults, unreadable(filepath.Join(dir, DropInDirectory), err))
	}
	for _, name := range append([]string{filepath.Join(dir, "agent.toml")}, more...) {
		data, err := strict.Read(name, MaxFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			faults = append(faults, unreadable(name, err))
			continue
		}
		l.Files = append(l.Files, name)
		_, part, err := strict.Decode[Config](name, data)
		if err != nil {
			faults = append(faults, all(err)...)
			continue
		}
		merge(whole, part)
		l.places.Note(name, data)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	b, err := strict.Encode(whole)
	if err == nil {
		l.Config, _, err = strict.Decode[Config]("configuration", b)
	}
	if err != nil {
		return nil, fmt.Errorf("merging the configuration: %w", err)
	}
	return l, nil
}

// all gives the faults of a file one by one.
func all(err error) []error {
	if faults, ok := errors.AsType[strict.Faults](err); ok {
		return faults.Unwrap()
	}
	return []error{err}
}

// ListFiles gives the files of a directory whose names end in suffix, sorted.
// A directory that is not there is empty; one that may not be read is an
// error, for its files would silently not count.
func ListFiles(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries { // sorted by name
		if strings.HasSuffix(e.Name(), suffix) && !strings.HasPrefix(e.Name(), ".") {
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	return names, err
}

// unreadable is the fault of a file or directory that cannot be read.
func unreadable(name string, err error) *strict.Fault {
	f, ok := errors.AsType[*strict.Fault](err)
	if !ok {
		f = strict.Unreadable(name, err)
	}
	if errors.Is(err, fs.ErrPermission) {
		f.Hint = "the service reads it as a user of its own: chmod -R a+rX " + name
	}
	return f
}

// merge adds part to whole: tables key by key, arrays of tables and of
// never-ban entries by appending, everything else by replacing.
func merge(whole, part map[string]any) {
	for k, v := range part {
		switch v := v.(type) {
		case map[string]any:
			if old, ok := whole[k].(map[string]any); ok {
				merge(old, v)
				continue
			}
		case []any:
			if old, ok := whole[k].([]any); ok && len(v) > 0 {
				if _, tables := v[0].(map[string]any); tables {
					whole[k] = append(old, v...)
					continue
				}
			}
		}
		whole[k] = v
	}
}
