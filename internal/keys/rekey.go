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
)

// nextKeyFile is the key that takes the place of the node's as soon as a card
// certifies it.
const nextKeyFile = nodeKeyFile + ".next"

// Rekey makes this machine a new node, and revokes the node that it was: readers
// drop all that they heard from it at or after since. It fails with [ErrNoRoot]
// where the root key is elsewhere. A crash in between leaves the old node or the
// new one.
func (id *Identity) Rekey(now, since time.Time) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.root == nil {
		return ErrNoRoot
	}
	path := filepath.Join(id.dir, nextKeyFile)
	if err := newKeyFile(path, nodeKeyTitle); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("making the node's key: %w", err)
	}
	node, err := readKeyFile(path, nodeKeyTitle)
	if err != nil {
		return err
	}
	next := wire.NextCard(id.card, now)
	next.Revoke(ban.NodeOf(id.node.Public().(ed25519.PublicKey)), since)
	next.Certify(publicOf(node), now)
	if err := id.sign(next, apart); err != nil {
		return err
	}
	return id.takeNextKey(node)
}

func publicOf(key ed25519.PrivateKey) wire.PublicKey {
	return wire.PublicKey(key.Public().(ed25519.PublicKey))
}

// takeNextKey puts the next key in place of the node's. The old one is kept
// beside it. id.mu is held.
func (id *Identity) takeNextKey(node ed25519.PrivateKey) error {
	path := filepath.Join(id.dir, nodeKeyFile)
	old := ban.NodeOf(id.node.Public().(ed25519.PublicKey))
	if err := os.Link(path, fmt.Sprintf("%s.%s", path, old)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("keeping the old key: %w", err)
	}
	if err := os.Rename(filepath.Join(id.dir, nextKeyFile), path); err != nil {
		return fmt.Errorf("taking the new key: %w", err)
	}
	id.node = node
	return nil
}

// finishRekey goes on where a crash interrupted Rekey.
func (id *Identity) finishRekey() error {
	node, err := readKeyFile(filepath.Join(id.dir, nextKeyFile), nodeKeyTitle)
	if errors.Is(err, fs.ErrNotExist) || id.card == nil {
		return nil
	}
	if err != nil {
		return err
	}
	if !id.card.Knows(ban.NodeOf(node.Public().(ed25519.PublicKey))) {
		return nil
	}
	return id.takeNextKey(node)
}
