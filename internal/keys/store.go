package keys

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"

	"banmesh/internal/wholefile"
)

// A Store is where an operator's root key lives: a directory with the key
// and the card, on a machine that need not be a node nor have a network.
type Store struct {
	dir  string
	root ed25519.PrivateKey
	card *wire.Card
	raw  []byte
}

// CreateStore makes a root key in dir and a first card. It never overwrites.
func CreateStore(dir string, now time.Time, change func(*wire.Card)) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the operator's key: %w", err)
	}
	if err := newKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle); err != nil {
		return nil, fmt.Errorf("making the operator's key: %w", err)
	}
	root, err := readKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle)
	if err != nil {
		return nil, err
	}
	o := &Store{dir: dir, root: root}
	return o, o.Change(now, change)
}

// OpenStore reads the root key and card in dir. It fails with [ErrNoRoot]
// where there is no key.
func OpenStore(dir string) (*Store, error) {
	root, err := readKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoRoot)
	}
	if err != nil {
		return nil, err
	}
	o := &Store{dir: dir, root: root}
	raw, err := os.ReadFile(filepath.Join(dir, cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the card: %w", err)
	}
	if o.card, err = wire.OpenCard(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, cardFile), err)
	}
	if o.card.Operator != operatorOf(root) {
		return nil, fmt.Errorf("%s is the card of another operator than %s", cardFile, operatorKeyFile)
	}
	o.raw = raw
	return o, nil
}

// Operator is who the root key stands for.
func (o *Store) Operator() ban.Operator { return operatorOf(o.root) }

// Root is the key itself, for signing documents.
func (o *Store) Root() ed25519.PrivateKey { return o.root }

// Card gives the newest card and its payload.
func (o *Store) Card() (*wire.Card, []byte) { return o.card, o.raw }

// Change signs the next card; it is durable when Change returns nil.
func (o *Store) Change(now time.Time, change func(*wire.Card)) error {
	next := wire.NextCard(o.card, now)
	if change != nil {
		change(next)
	}
	raw, err := next.Sign(o.root)
	if err != nil {
		return err
	}
	if err := wholefile.Write(filepath.Join(o.dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	o.card, o.raw = next, raw
	return nil
}

// Adopt takes a card of the same operator that is newer than the one here, as
// when two machines have the root key.
func (o *Store) Adopt(raw []byte) error {
	card, err := wire.OpenCard(raw)
	if err != nil {
		return err
	}
	if card.Operator != o.Operator() || o.card != nil && card.Serial <= o.card.Serial {
		return errors.New("the card is not a newer one of this operator")
	}
	if err := wholefile.Write(filepath.Join(o.dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	o.card, o.raw = card, raw
	return nil
}

// RequestText makes a node's request for a certificate: its key, signed by
// itself, as a line of text. It makes the key where there is none yet.
func RequestText(dir string, now time.Time) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the node's key: %w", err)
	}
	path := filepath.Join(dir, nodeKeyFile)
	if err := newKeyFile(path, nodeKeyTitle); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("making the node's key: %w", err)
	}
	node, err := readKeyFile(path, nodeKeyTitle)
	if err != nil {
		return "", err
	}
	return wire.SignRequest(node, now), nil
}

// InstallNodeCard puts a card beside the node's key in dir, from which an
// agent then starts, or takes it over if it runs.
func InstallNodeCard(dir string, b []byte) (*wire.Card, error) {
	card, raw, err := wire.ParseCardText(b)
	if err != nil {
		return nil, err
	}
	id, err := Load(dir)
	if errors.Is(err, ErrNotCertified) {
		id, err = readKeys(dir)
	}
	if err != nil {
		return nil, err
	}
	return card, id.InstallCard(raw)
}

// RotateNode makes a new node key in dir. The old one is kept beside it until
// the new one is certified; where the root key is here, that is at once, and
// the old node is revoked from now on.
func RotateNode(dir string, now time.Time) (old, next ban.Node, err error) {
	path := filepath.Join(dir, nodeKeyFile)
	key, err := readKeyFile(path, nodeKeyTitle)
	if err != nil {
		return old, next, err
	}
	old = ban.NodeOf(key.Public().(ed25519.PublicKey))
	kept := fmt.Sprintf("%s.%s", path, old)
	if err := os.Rename(path, kept); err != nil {
		return old, next, fmt.Errorf("keeping the old key: %w", err)
	}
	if err := newKeyFile(path, nodeKeyTitle); err != nil {
		return old, next, errors.Join(fmt.Errorf("making the node's key: %w", err), os.Rename(kept, path))
	}
	if key, err = readKeyFile(path, nodeKeyTitle); err != nil {
		return old, next, err
	}
	next = ban.NodeOf(key.Public().(ed25519.PublicKey))
	o, err := OpenStore(dir)
	if errors.Is(err, ErrNoRoot) {
		return old, next, nil
	}
	if err != nil {
		return old, next, err
	}
	var public wire.PublicKey
	copy(public[:], key.Public().(ed25519.PublicKey))
	return old, next, o.Change(now, func(c *wire.Card) {
		c.Revoke(old, now)
		c.Certify(public, now)
	})
}

// Backup copies keys and card into a directory that it makes.
func Backup(dir, to string) (files []string, err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, fmt.Errorf("backing up the keys: %w", err)
	}
	for _, name := range []string{operatorKeyFile, nodeKeyFile, cardFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = wholefile.Write(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			return files, fmt.Errorf("backing up the keys: %w", err)
		}
		files = append(files, name)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoIdentity)
	}
	return files, nil
}
