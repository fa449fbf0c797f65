package gate

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// pathBytes makes the path 32 hex digits: nobody guesses it.
const pathBytes = 16

var errPath = errors.New("it is 32 digits of 0-9 and a-f")

// LoadPath reads the secret path of the gate's URL from a file of mode 0600,
// and makes the file with a random path if there is none. Whoever knows the
// path can learn which wallets are denied, nothing else.
func LoadPath(file string) (string, error) {
	b, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return createPath(file)
	case err != nil:
		return "", fmt.Errorf("reading the gate's path: %w", err)
	}
	info, err := os.Stat(file)
	if err != nil {
		return "", fmt.Errorf("reading the gate's path: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s is readable by others (mode %v): chmod 600 it, or remove it for a new path", file, info.Mode().Perm())
	}
	path := strings.TrimSuffix(string(b), "\n")
	if !validPath(path) {
		return "", fmt.Errorf("%s holds no path of the gate: %w; remove it for a new one", file, errPath)
	}
	return path, nil
}

// createPath writes the file under another name first, so that a crash leaves
// the whole file or none.
func createPath(file string) (path string, err error) {
	var raw [pathBytes]byte
	rand.Read(raw[:])
	path = hex.EncodeToString(raw[:])
	f, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*") // mode 0600
	if err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, writeErr := f.WriteString(path + "\n")
	if err := errors.Join(writeErr, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	if err := os.Rename(f.Name(), file); err != nil {
		return "", fmt.Errorf("making the gate's path: %w", err)
	}
	return path, nil
}

func validPath(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == pathBytes && strings.ToLower(s) == s
}
