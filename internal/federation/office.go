package federation

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/nacl/sign"

	"banmesh/internal/ban"
)

// An Office is where an operator's root key lives: a directory with the key
// and the card, on a machine that need not be a node nor have a network.
type Office struct {
	dir  string
	root ed25519.PrivateKey
	card *Card
	raw  []byte
}

// CreateOffice makes a root key in dir and a first card. It never overwrites.
func CreateOffice(dir string, now time.Time, change func(*Card)) (*Office, error) {
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
	o := &Office{dir: dir, root: root}
	return o, o.Change(now, change)
}

// OpenOffice reads the root key and card in dir. It fails with [ErrNoRoot]
// where there is no key.
func OpenOffice(dir string) (*Office, error) {
	root, err := readKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoRoot)
	}
	if err != nil {
		return nil, err
	}
	o := &Office{dir: dir, root: root}
	raw, err := os.ReadFile(filepath.Join(dir, cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return o, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the card: %w", err)
	}
	if o.card, err = OpenCard(raw); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, cardFile), err)
	}
	if o.card.Operator != operatorOf(root) {
		return nil, fmt.Errorf("%s is the card of another operator than %s", cardFile, operatorKeyFile)
	}
	o.raw = raw
	return o, nil
}

// Operator is who the root key stands for.
func (o *Office) Operator() ban.Operator { return operatorOf(o.root) }

// Root is the key itself, for signing documents.
func (o *Office) Root() ed25519.PrivateKey { return o.root }

// Card gives the newest card and its payload.
func (o *Office) Card() (*Card, []byte) { return o.card, o.raw }

// Change signs the next card; it is durable when Change returns nil.
func (o *Office) Change(now time.Time, change func(*Card)) error {
	next := nextCard(o.card, now)
	if change != nil {
		change(next)
	}
	raw, err := next.Sign(o.root)
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(o.dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	o.card, o.raw = next, raw
	return nil
}

// Adopt takes a card of the same operator that is newer than the one here, as
// when two machines have the root key.
func (o *Office) Adopt(raw []byte) error {
	card, err := OpenCard(raw)
	if err != nil {
		return err
	}
	if card.Operator != o.Operator() || o.card != nil && card.Serial <= o.card.Serial {
		return errors.New("the card is not a newer one of this operator")
	}
	if err := writeFile(filepath.Join(o.dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	o.card, o.raw = card, raw
	return nil
}

// Revoke ends a node: its certificate goes, and readers drop what they heard
// from it at or after since.
func (c *Card) Revoke(n ban.Node, since time.Time) {
	c.Certificates = slices.DeleteFunc(c.Certificates, func(x Certificate) bool { return x.Node() == n })
	c.Revocations = slices.DeleteFunc(c.Revocations, func(r Revocation) bool { return r.Node == n })
	c.Revocations = append(c.Revocations, Revocation{Node: n, Since: since.Truncate(time.Second)})
}

// Texts that people pass on, in one line each.
const (
	cardPrefix    = "banmesh-card:"
	requestPrefix = "banmesh-request:"
	requestMagic  = "BMSH request 1"
)

// CardText gives a card as a line of text.
func CardText(raw []byte) string { return cardPrefix + base64.RawURLEncoding.EncodeToString(raw) }

// ParseCardText reads a card from the line or the file's bytes.
func ParseCardText(b []byte) (*Card, []byte, error) {
	raw := b
	if s, ok := strings.CutPrefix(strings.TrimSpace(string(b)), cardPrefix); ok {
		var err error
		if raw, err = base64.RawURLEncoding.Strict().DecodeString(s); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
	}
	card, err := OpenCard(raw)
	return card, raw, err
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
	text := append([]byte(requestMagic), node.Public().(ed25519.PublicKey)...)
	text = binary.BigEndian.AppendUint32(text, seconds(now))
	private := [64]byte(node)
	return requestPrefix + base64.RawURLEncoding.EncodeToString(sign.Sign(nil, text, &private)), nil
}

// ParseRequest reads a request and gives the node's key.
func ParseRequest(text string) (key PublicKey, made time.Time, err error) {
	s, ok := strings.CutPrefix(strings.TrimSpace(text), requestPrefix)
	if !ok {
		return key, made, fmt.Errorf("%w: a request begins with %s", ErrFormat, requestPrefix)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != sign.Overhead+len(requestMagic)+32+4 {
		return key, made, fmt.Errorf("%w: it is no request", ErrFormat)
	}
	d := decoder{b: b[sign.Overhead:]}
	if string(d.take(len(requestMagic))) != requestMagic {
		return key, made, fmt.Errorf("%w: it is no request", ErrFormat)
	}
	copy(key[:], d.take(len(key)))
	made = d.time()
	k := [32]byte(key)
	if _, ok := sign.Open(nil, b, &k); !ok {
		return key, made, ErrSignature
	}
	return key, made, nil
}

// InstallNodeCard puts a card beside the node's key in dir, from which an
// agent then starts, or takes it over if it runs.
func InstallNodeCard(dir string, b []byte) (*Card, error) {
	card, raw, err := ParseCardText(b)
	if err != nil {
		return nil, err
	}
	id, err := LoadIdentity(dir)
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
	o, err := OpenOffice(dir)
	if errors.Is(err, ErrNoRoot) {
		return old, next, nil
	}
	if err != nil {
		return old, next, err
	}
	var public PublicKey
	copy(public[:], key.Public().(ed25519.PublicKey))
	return old, next, o.Change(now, func(c *Card) {
		c.Revoke(old, now)
		c.Certify(public, now)
	})
}

// BackupIdentity copies keys and card into a directory that it makes.
func BackupIdentity(dir, to string) (files []string, err error) {
	if err := os.Mkdir(to, 0o700); err != nil {
		return nil, fmt.Errorf("backing up the keys: %w", err)
	}
	for _, name := range []string{operatorKeyFile, nodeKeyFile, cardFile} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = writeFile(filepath.Join(to, name), b, 0o600)
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

// SpokenFingerprint gives an operator's identity in eight syllable words that
// two people can read to each other on a telephone: proquints (Wilkerson,
// "A Proposal for Proquints", 2009), 16 bits each.
func SpokenFingerprint(o ban.Operator) string {
	const consonants, vowels = "bdfghjklmnprstvz", "aiou"
	words := make([]string, 0, len(o)/2)
	for i := 0; i < len(o); i += 2 {
		v := binary.BigEndian.Uint16(o[i:])
		words = append(words, string([]byte{
			consonants[v>>12], vowels[v>>10&3], consonants[v>>6&15], vowels[v>>4&3], consonants[v&15],
		}))
	}
	return strings.Join(words, "-")
}

// ThrowawayIdentity is an identity that is nowhere on disk, for tools that
// only listen.
func ThrowawayIdentity(now time.Time) (*Identity, error) {
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, node, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id := &Identity{root: root, node: node}
	card := nextCard(nil, now)
	card.Certify(id.NodeKey(), now)
	id.raw, err = card.Sign(root)
	id.card = card
	return id, err
}
