package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"banmesh/internal/export"
	"banmesh/internal/wholefile"
)

// referenceFile keeps the key of references, below the state directory.
const referenceFile = "reference.key"

// openReferences reads the key by which visitors' references are made, or makes
// one. A key of another length is an error: with a new one the references
// that people were given would find nothing.
func openReferences(state string) (*export.References, error) {
	path := filepath.Join(state, referenceFile)
	key, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, export.ReferenceKey)
		rand.Read(key) // it never fails
		err = wholefile.Write(path, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the key of references: %w", err)
	}
	if len(key) != export.ReferenceKey {
		return nil, fmt.Errorf("%s has %d bytes and not %d: remove it, and references given so far find nothing", path, len(key), export.ReferenceKey)
	}
	return export.NewReferences(key), nil
}
