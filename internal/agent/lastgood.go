package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"banmesh/internal/settings"
	"banmesh/internal/wholefile"
)

// lastGoodFile is a copy of the configuration that was last in force, as an object of
// files and their bytes. A start that finds a refused configuration takes the copy, so
// that a fault in a file and a reboot do not end protection together.
const lastGoodFile = "config.good"

// lastGoodSuffixes are the files of the configuration directory that settings are made of.
var lastGoodSuffixes = []string{".toml", ".list", ".pack"}

// lastGoodMost bounds the copy. The largest files of a directory are lists of addresses
// and wallets; with more of them there is none.
const lastGoodMost = 16 << 20

// errLastGoodSize says that a directory is too large for a copy.
var errLastGoodSize = errors.New("the configuration directory is too large for a copy of it")

// readFiles gives the files that settings are made of, by their paths below dir. What the
// agent may not read it did not use.
func readFiles(dir string) (map[string][]byte, error) {
	files, size := map[string][]byte{}, int64(0)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !slices.Contains(lastGoodSuffixes, filepath.Ext(path)) {
			return nil //nolint:nilerr // not read by the settings either
		}
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			return nil //nolint:nilerr // the same
		}
		if size += info.Size(); size > lastGoodMost {
			return errLastGoodSize
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		name, err := filepath.Rel(dir, path)
		files[name] = b
		return err
	})
	return files, err
}

// keepLastGood writes the copy, where it changed.
func keepLastGood(configDir, state string) error {
	files, err := readFiles(configDir)
	if err != nil {
		return err
	}
	b, err := json.Marshal(files)
	if err != nil {
		return err
	}
	path := filepath.Join(state, lastGoodFile)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := wholefile.Write(path, b, 0o600); err != nil {
		return fmt.Errorf("keeping a copy of the configuration: %w", err)
	}
	return nil
}

// loadLastGood loads the copy; a nil error means that it is a configuration that holds.
func loadLastGood(state string) (*settings.Settings, error) {
	b, err := os.ReadFile(filepath.Join(state, lastGoodFile))
	if err != nil {
		return nil, err
	}
	var files map[string][]byte
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(state, lastGoodFile+"-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for name, text := range files {
		if !filepath.IsLocal(name) {
			return nil, fmt.Errorf("%s: no name of a file of the configuration", name)
		}
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600)); err != nil {
			return nil, err
		}
	}
	s, err := settings.Load(dir, state)
	if err != nil {
		return nil, err
	}
	return s, s.CheckFilters()
}

// settingsAtStart gives the settings to start with. Where those of the files are refused
// they are the last good ones, and refused says why; without any, it is the error.
func settingsAtStart(configDir, state string) (s *settings.Settings, refused, err error) {
	s, err = settings.Load(configDir, state)
	faulty := err
	if err == nil {
		if faulty = s.CheckFilters(); faulty == nil {
			return s, nil, nil
		}
	}
	if good, e := loadLastGood(state); e == nil {
		return good, faulty, nil
	}
	// A definition that does not hold is left out; the others find offenders.
	return s, nil, err
}
