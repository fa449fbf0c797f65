package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wholefile"
	"banmesh/internal/wire"
)

// joinFile is the card of the operator that this node goes to. Whoever reads the keys
// next goes there.
const joinFile = "join.card"

// ErrOtherNodes says that the operator's root key here certifies other machines, which
// nobody could certify any more if this one went to another operator.
var ErrOtherNodes = errors.New("this machine has the operator's root key of other nodes")

// CheckJoin says whether this machine may go to operator o: it has no operator, the
// same one, one whose key is elsewhere, or one of its own that has no other node.
func CheckJoin(dir string, o ban.Operator) error {
	id, err := Load(dir)
	if errors.Is(err, ErrNoIdentity) || errors.Is(err, ErrNotCertified) {
		return nil
	}
	if err != nil {
		return err
	}
	card, _ := id.Card()
	if id.HasRoot() && id.Operator() == o {
		return fmt.Errorf("operator %v has its root key on this machine already: `agent pair` without a host is for this one", o)
	}
	if !id.HasRoot() || card == nil {
		return nil
	}
	for _, x := range card.Certificates {
		_, revoked := card.RevokedSince(x.Node())
		if x.Key != id.NodeKey() && !revoked && x.NotAfter.After(time.Now()) {
			return fmt.Errorf("%w: operator %v, node %v", ErrOtherNodes, id.Operator(), x.Node())
		}
	}
	return nil
}

// Join makes this node one of the card's operator, which certifies it. The change is
// one write: whoever reads the keys after it finds the new operator, and before it
// the old one. A root key that is here is kept beside, under its operator's name.
func Join(dir string, raw []byte) error {
	card, err := wire.OpenCard(raw)
	if err != nil {
		return err
	}
	node, err := readKeyFile(filepath.Join(dir, nodeKeyFile), nodeKeyTitle)
	if err != nil {
		return err
	}
	if err := card.Certifies(publicOf(node), time.Now()); err != nil {
		return err
	}
	if err := CheckJoin(dir, card.Operator); err != nil {
		return err
	}
	if err := wholefile.Write(filepath.Join(dir, joinFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	return nil
}

// finishJoin goes to the operator of a card that Join left. Each step may have been done
// before a crash.
func finishJoin(dir string) error {
	path := filepath.Join(dir, joinFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the card: %w", err)
	}
	card, err := wire.OpenCard(raw)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrCard, err)
	}
	root, err := readKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return err
	case operatorOf(root) != card.Operator:
		if err := putAside(filepath.Join(dir, operatorKeyFile), operatorOf(root)); err != nil {
			return err
		}
	}
	if old, err := os.ReadFile(filepath.Join(dir, cardFile)); err == nil {
		before, err := wire.OpenCard(old)
		switch {
		case err != nil:
		case before.Operator != card.Operator:
			if err := putAside(filepath.Join(dir, cardFile), before.Operator); err != nil {
				return err
			}
		case !card.Newer(before.Serial, before.Hash):
			raw = old // it came from a broker meanwhile
		}
	}
	if err := wholefile.Write(filepath.Join(dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	return nil
}

// putAside renames a file of another operator, whose name it then carries. A file that a
// crash left there is the same one.
func putAside(path string, o ban.Operator) error {
	if err := os.Rename(path, fmt.Sprintf("%s.%s", path, o)); err != nil {
		return fmt.Errorf("keeping the key of operator %v: %w", o, err)
	}
	return nil
}

// pairedFile names the nodes that this machine, which has the root key, certified over a
// code, one public key in hex a line. It renews their certificates with its own.
const pairedFile = "paired"

// maxPaired bounds the file.
const maxPaired = 64 << 10

// paired reads the file; a line that is none is left out.
func paired(dir string) (list []wire.PublicKey) {
	b, err := os.ReadFile(filepath.Join(dir, pairedFile))
	if err != nil || len(b) > maxPaired {
		return nil
	}
	for line := range bytes.Lines(b) {
		if key, err := hex.DecodeString(string(bytes.TrimSpace(line))); err == nil && len(key) == ed25519.PublicKeySize {
			list = append(list, wire.PublicKey(key))
		}
	}
	return list
}

// CertifyPaired certifies a node that came with the code, and notes that its
// certificate is renewed here from now on, until the node is revoked.
func (o *Store) CertifyPaired(key wire.PublicKey, now time.Time) error {
	if o.card != nil {
		if _, revoked := o.card.RevokedSince(ban.NodeOf(key[:])); revoked {
			return fmt.Errorf("node %v was revoked: `agent key node rotate` there makes a new key", ban.NodeOf(key[:]))
		}
	}
	list := paired(o.dir)
	var text bytes.Buffer
	for _, k := range append(list, key) {
		if k != key {
			fmt.Fprintf(&text, "%x\n", k[:])
		}
	}
	fmt.Fprintf(&text, "%x\n", key[:])
	if text.Len() > maxPaired {
		return errors.New("too many nodes are paired with this machine")
	}
	if err := wholefile.Write(filepath.Join(o.dir, pairedFile), text.Bytes(), 0o644); err != nil {
		return fmt.Errorf("noting the node: %w", err)
	}
	return o.Change(now, func(c *wire.Card) { c.Certify(key, now) })
}

// due are the paired nodes whose certificates want renewal. id.mu is not held.
func (id *Identity) due(now time.Time) (list []wire.PublicKey) {
	card, _ := id.Card()
	if card == nil || id.dir == "" || !id.HasRoot() {
		return nil
	}
	known := paired(id.dir)
	for _, x := range card.Certificates {
		if _, revoked := card.RevokedSince(x.Node()); revoked || x.NotAfter.Sub(now) > renewBefore {
			continue
		}
		for _, k := range known {
			if k == x.Key {
				list = append(list, k)
			}
		}
	}
	return list
}
