package keys

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banmesh/internal/ban"
	"banmesh/internal/wholefile"
	"banmesh/internal/wire"
)

// A Restored is the outcome of [Restore].
type Restored struct {
	Node     ban.Node
	Operator ban.Operator
	// Files were put back, Kept are those that stood in their place, under the
	// names that they have now.
	Files, Kept []string
}

// Restore puts the keys and the card of a [Backup] back into dir, for a machine
// that takes the place of the one that the copy is of. It looks at the whole copy
// before it writes anything, and replaces nothing: files in the way are kept
// under another name. Modes of the copy do not matter, as on a stick without any.
func Restore(dir, from, machine string) (r Restored, err error) {
	files := make(map[string][]byte)
	for _, name := range []string{operatorKeyFile, nodeKeyFile, cardFile} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return r, fmt.Errorf("reading the copy: %w", err)
		}
		files[name] = b
	}
	if r.Node, r.Operator, err = checkCopy(from, files); err != nil {
		return r, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, fmt.Errorf("putting the keys back: %w", err)
	}
	// The node's key is last: where a crash comes before, the next try begins anew.
	for _, name := range []string{cardFile, operatorKeyFile, nodeKeyFile} {
		b, ok := files[name]
		path := filepath.Join(dir, name)
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return r, fmt.Errorf("putting the keys back: %w", err)
		}
		if ok && bytes.Equal(old, b) {
			r.Files = append(r.Files, name)
			continue
		}
		if err == nil {
			kept, err := keepAside(path)
			if err != nil {
				return r, fmt.Errorf("keeping %s: %w", path, err)
			}
			r.Kept = append(r.Kept, kept)
		}
		if !ok {
			continue
		}
		mode := fs.FileMode(0o600)
		if name == cardFile {
			mode = 0o644
		}
		if err := wholefile.Write(path, b, mode); err != nil {
			return r, fmt.Errorf("putting %s back: %w", path, err)
		}
		r.Files = append(r.Files, name)
	}
	return r, Move(dir, machine)
}

// checkCopy says whose keys a copy has.
func checkCopy(from string, files map[string][]byte) (node ban.Node, o ban.Operator, err error) {
	if files[nodeKeyFile] == nil {
		return node, o, fmt.Errorf("%s: %w", from, ErrNoIdentity)
	}
	key, err := parseKey(bytes.NewReader(files[nodeKeyFile]), filepath.Join(from, nodeKeyFile), nodeKeyTitle)
	if err != nil {
		return node, o, err
	}
	node = ban.NodeOf(key.Public().(ed25519.PublicKey))
	if b := files[operatorKeyFile]; b != nil {
		root, err := parseKey(bytes.NewReader(b), filepath.Join(from, operatorKeyFile), operatorKeyTitle)
		if err != nil {
			return node, o, err
		}
		o = operatorOf(root)
	}
	if b := files[cardFile]; b != nil {
		card, err := wire.OpenCard(b)
		if err != nil {
			return node, o, fmt.Errorf("%s: %w", filepath.Join(from, cardFile), err)
		}
		if o != (ban.Operator{}) && card.Operator != o {
			return node, o, fmt.Errorf("%s: %s is the card of another operator than %s", from, cardFile, operatorKeyFile)
		}
		o = card.Operator
	}
	return node, o, nil
}

// keepAside renames a file that something else takes the place of.
func keepAside(path string) (string, error) {
	for n := 1; ; n++ {
		kept := fmt.Sprintf("%s.before-restore-%d", path, n)
		err := os.Link(path, kept)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		return kept, os.Remove(path)
	}
}
