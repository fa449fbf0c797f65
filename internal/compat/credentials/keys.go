// Package credentials keeps those by which other programs may ask: keys of
// bouncers, passwords and tokens of CrowdSec installations. Hashes of them are
// kept, in files of the node.
package credentials

import (
	"crypto/rand"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wholefile"
)

// MaxBouncers bounds the keys of one node.
const MaxBouncers = 1000

// maxName bounds a bouncer's name, in bytes.
const maxName = 64

// Errors of [Keys.Add] and [Keys.Remove].
var (
	ErrName    = errors.New("a bouncer's name has 1 to 64 letters, digits, dots, dashes and underscores")
	ErrTaken   = errors.New("a bouncer of that name has a key already")
	ErrMany    = fmt.Errorf("there are %d bouncers already", MaxBouncers)
	ErrUnknown = errors.New("no bouncer has that name")
)

// A Bouncer is a program that may ask, by its key.
type Bouncer struct {
	Name string `json:"name"`
	// Hash is the SHA-512 of the key, in hex. The key itself is not kept.
	Hash string `json:"sha512"`
	// Topics are those whose bans it is given; empty means all.
	Topics  []ban.Topic `json:"topics,omitempty"`
	Created time.Time   `json:"created"`
}

// Keys are the bouncers' keys, in a file of the node. Methods may be called from
// several goroutines.
type Keys struct {
	path string

	mu     sync.Mutex
	list   []Bouncer // by name
	byHash map[string]Bouncer
}

// OpenKeys reads the file, which need not exist.
func OpenKeys(path string) (*Keys, error) {
	k := &Keys{path: path}
	if _, err := read(path, &k.list); err != nil {
		return nil, fmt.Errorf("%w: restore it, or remove it and give every bouncer a new key", err)
	}
	k.index()
	return k, nil
}

func (k *Keys) index() {
	k.byHash = make(map[string]Bouncer, len(k.list))
	for _, b := range k.list {
		k.byHash[b.Hash] = b
	}
}

// Add makes a bouncer and gives its key, which is told this once.
func (k *Keys) Add(name string, topics []ban.Topic, now time.Time) (key string, err error) {
	if !PlainName(name) {
		return "", ErrName
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	at, found := k.find(name)
	switch {
	case found:
		return "", ErrTaken
	case len(k.list) >= MaxBouncers:
		return "", ErrMany
	}
	var secret [32]byte
	rand.Read(secret[:]) // never fails
	// Without padding and signs that YAML, shells and headers would read.
	key = base64.RawURLEncoding.EncodeToString(secret[:])
	next := slices.Insert(slices.Clone(k.list), at, Bouncer{Name: name, Hash: hashOf(key), Topics: topics, Created: now.UTC().Truncate(time.Second)})
	return key, k.save(next)
}

// Remove takes a bouncer's key away.
func (k *Keys) Remove(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, found := k.find(name)
	if !found {
		return ErrUnknown
	}
	return k.save(slices.Delete(slices.Clone(k.list), at, at+1))
}

// List gives all bouncers, by name.
func (k *Keys) List() []Bouncer {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.list)
}

// Of gives the bouncer of a key. It compares hashes, so that the time it takes
// says nothing about keys.
func (k *Keys) Of(key string) (Bouncer, bool) {
	h := hashOf(key)
	k.mu.Lock()
	defer k.mu.Unlock()
	b, ok := k.byHash[h]
	return b, ok
}

func (k *Keys) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(k.list, name, func(b Bouncer, name string) int { return strings.Compare(b.Name, name) })
}

// save writes next and takes it over; k.mu is held.
func (k *Keys) save(next []Bouncer) error {
	if err := write(k.path, next); err != nil {
		return err
	}
	k.list = next
	k.index()
	return nil
}

func hashOf(key string) string {
	h := sha512.Sum512([]byte(key))
	return hex.EncodeToString(h[:])
}

// PlainName says that a name has 1 to 64 letters, digits, dots, dashes and
// underscores.
func PlainName(s string) bool { return plain(s, maxName) }

func plain(s string, most int) bool {
	return s != "" && len(s) <= most && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r))
	}) < 0
}

// read decodes a file of credentials; there is false where there is none.
func read(path string, into any) (there bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading credentials: %w", err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		return false, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return true, nil
}

func write(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		err = wholefile.Write(path, append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("saving credentials: %w", err)
	}
	return nil
}
