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

// DropInDirectory holds the files that commands write, below the
// configuration directory.
const DropInDirectory = "conf.d"

// dropInHead begins each file that a command writes.
const dropInHead = "# Written by `agent`; later commands change it. Your own settings belong into agent.toml.\n\n"

// ErrOwn says that a file in the way was written by a person: the program
// changes none of those.
var ErrOwn = errors.New("this file was not written by `agent`: move its settings into agent.toml or a file of another name")

// EditDropIn changes one file that the program itself keeps: it reads
// conf.d/name.toml if it is there, lets edit change the tree, and replaces the
// file atomically (temporary file, fsync, rename). An empty tree removes it.
func EditDropIn(dir, name string, edit func(tree map[string]any) error) (path string, err error) {
	path = filepath.Join(dir, DropInDirectory, name+".toml")
	tree := map[string]any{}
	data, err := strict.Read(path, MaxFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return path, err
	case !strings.HasPrefix(string(data), dropInHead[:strings.IndexByte(dropInHead, ';')]):
		return path, fmt.Errorf("%s: %w", path, ErrOwn)
	default:
		if tree, err = strict.Tree(path, data); err != nil {
			return path, err
		}
	}
	if err := edit(tree); err != nil {
		return path, err
	}
	if len(tree) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return path, fmt.Errorf("removing %s: %w", path, err)
		}
		return path, nil
	}
	b, err := strict.Encode(tree)
	if err != nil {
		return path, fmt.Errorf("writing %s: %w", path, err)
	}
	if _, _, err := strict.Decode[Config](path, b); err != nil {
		return path, err
	}
	return path, WriteAtomic(path, append([]byte(dropInHead), b...), 0o644)
}

// WriteAtomic replaces a file so that a reader, or a machine that loses power,
// sees the old content or the new and nothing between.
func WriteAtomic(path string, data []byte, mode fs.FileMode) error {
	dir := filepath.Dir(path)
	if err := MakeDirectory(dir); err != nil {
		return fmt.Errorf("making %s: %w", dir, err)
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync() // not every file system can; the rename is done either way
		d.Close()
	}
	return nil
}

// MakeDirectory makes a directory and those above it, readable by everybody
// whatever the umask is: the service reads as its own user the files that root
// writes.
func MakeDirectory(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if err := MakeDirectory(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return os.Chmod(dir, 0o755)
}

// Table gives the table at keys below tree, made where it is missing, for use
// inside [EditDropIn].
func Table(tree map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		next, ok := tree[k].(map[string]any)
		if !ok {
			next = map[string]any{}
			tree[k] = next
		}
		tree = next
	}
	return tree
}

// Prune removes empty tables, deepest first, so that undoing an edit leaves
// the tree as it was.
func Prune(tree map[string]any) {
	for k, v := range tree {
		if t, ok := v.(map[string]any); ok {
			Prune(t)
			if len(t) == 0 {
				delete(tree, k)
			}
		}
	}
}
