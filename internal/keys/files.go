package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"banmesh/internal/wholefile"
)

// newKeyFile makes a key and writes its seed, durable before it returns.
func newKeyFile(path, title string) error {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	return writeKeyFile(path, title, key)
}

func writeKeyFile(path, title string, key ed25519.PrivateKey) error {
	text := title + "\n" + base64.StdEncoding.EncodeToString(key.Seed()) + "\n"
	// Not through a temporary name: an existing key must never be replaced.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, wholefile.Give(f), f.Sync(), f.Close())
	if err != nil {
		os.Remove(path)
	}
	return err
}

func readKeyFile(path, title string) (ed25519.PrivateKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w: its mode is %04o, not 0600", path, ErrKeyMode, info.Mode().Perm())
	}
	return parseKey(f, path, title)
}

// parseKey reads a key file's text; path is for its errors.
func parseKey(f io.Reader, path, title string) (ed25519.PrivateKey, error) {
	buf := make([]byte, 256)
	n, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	first, rest, _ := strings.Cut(string(buf[:n]), "\n")
	if first != title {
		return nil, fmt.Errorf("%s: %w: it does not begin with %q", path, ErrKeyFile, title)
	}
	seed, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSpace(rest))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: %w: the second line is not a key", path, ErrKeyFile)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
