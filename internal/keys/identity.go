package keys

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"

	"banmesh/internal/wholefile"
)

// Files of an identity, all in one directory.
const (
	operatorKeyFile = "operator.key" // 0600; may live on another machine
	nodeKeyFile     = "node.key"     // 0600
	cardFile        = "operator.card"
)

// First lines of the key files.
const (
	operatorKeyTitle = "banmesh operator key 1"
	nodeKeyTitle     = "banmesh node key 1"
)

// renewBefore is when a certificate is renewed where the root key is at hand:
// a third of its life, so that a machine that is off for weeks comes back
// certified.
const renewBefore = wire.MaxCertificate / 3

// loginLife is how long a login proof is good: clocks differ by minutes.
const loginLife = wire.MaxLoginLife / 2

// Faults of an identity.
var (
	ErrNoIdentity   = errors.New("there are no keys here")
	ErrKeyFile      = errors.New("not a key file")
	ErrCard         = errors.New("the operator's card is damaged")
	ErrKeyMode      = errors.New("others may read the key file")
	ErrNoRoot       = errors.New("the operator's root key is not on this machine")
	ErrNotCertified = errors.New("the operator's card has no certificate for this node")
)

// An Identity is a node's key, its operator's card, and the operator's root
// key where that is on the same machine. It may be used from several
// goroutines.
type Identity struct {
	dir string

	mu   sync.Mutex
	node ed25519.PrivateKey
	root ed25519.PrivateKey // nil where it is elsewhere
	raw  []byte
	card *wire.Card
}

// New gives an identity of keys that are at hand, without a card. It writes
// nothing before a card is updated; with dir "" none can be.
func New(dir string, node, root ed25519.PrivateKey) *Identity {
	return &Identity{dir: dir, node: node, root: root}
}

// Create makes a root key and a node key in dir and a card that
// certifies the node. It never overwrites a file.
func Create(dir, name string, now time.Time) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the keys: %w", err)
	}
	for _, f := range []struct{ name, title string }{{operatorKeyFile, operatorKeyTitle}, {nodeKeyFile, nodeKeyTitle}} {
		if err := newKeyFile(filepath.Join(dir, f.name), f.title); err != nil {
			return nil, fmt.Errorf("making the keys: %w", err)
		}
	}
	id, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	return id, id.UpdateCard(now, func(c *wire.Card) { c.Name = name })
}

// Load reads the files in dir. It fails with [ErrNoIdentity] where there
// is no node key, and otherwise with [ErrKeyFile], [ErrKeyMode] or the faults of the
// card.
func Load(dir string) (*Identity, error) {
	if err := finishJoin(dir); err != nil {
		return nil, err
	}
	id, err := readKeys(dir)
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, cardFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if id.root == nil {
			return nil, fmt.Errorf("%s: %w", dir, ErrNotCertified)
		}
		return id, nil
	case err != nil:
		return nil, fmt.Errorf("reading the card: %w", err)
	}
	card, err := wire.OpenCard(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", filepath.Join(dir, cardFile), ErrCard, err)
	}
	if id.root != nil && card.Operator != operatorOf(id.root) {
		return nil, fmt.Errorf("%s is the card of another operator than %s", cardFile, operatorKeyFile)
	}
	id.raw, id.card = raw, card
	return id, id.finishRekey()
}

// Open loads the identity in dir, or makes one where there is none. A
// crash while it was made is repaired.
func Open(dir, name string, now time.Time) (*Identity, error) {
	if _, err := os.Stat(filepath.Join(dir, nodeKeyFile)); errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, operatorKeyFile)); err == nil {
			if err := newKeyFile(filepath.Join(dir, nodeKeyFile), nodeKeyTitle); err != nil {
				return nil, err
			}
		} else {
			return Create(dir, name, now)
		}
	}
	id, err := Load(dir)
	if err == nil && id.card == nil {
		err = id.UpdateCard(now, func(c *wire.Card) { c.Name = name })
	}
	if err != nil {
		return nil, err
	}
	return id, nil
}

func readKeys(dir string) (*Identity, error) {
	node, err := readKeyFile(filepath.Join(dir, nodeKeyFile), nodeKeyTitle)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoIdentity)
	}
	if err != nil {
		return nil, err
	}
	root, err := readKeyFile(filepath.Join(dir, operatorKeyFile), operatorKeyTitle)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return &Identity{dir: dir, node: node, root: root}, nil
}

func operatorOf(root ed25519.PrivateKey) ban.Operator {
	return ban.OperatorOf(root.Public().(ed25519.PublicKey))
}

// Node is this machine's node.
func (id *Identity) Node() ban.Node { return ban.NodeOf(id.Signer().Public().(ed25519.PublicKey)) }

// Signer is the node's private key, which signs its feeds.
func (id *Identity) Signer() ed25519.PrivateKey {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.node
}

// NodeKey is the node's public key, which `agent key node certify` certifies.
func (id *Identity) NodeKey() (k wire.PublicKey) {
	copy(k[:], id.Signer().Public().(ed25519.PublicKey))
	return k
}

// Operator is the operator that the node belongs to.
func (id *Identity) Operator() ban.Operator {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.card != nil {
		return id.card.Operator
	}
	return operatorOf(id.root)
}

// HasRoot says whether the operator's root key is on this machine.
func (id *Identity) HasRoot() bool {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.root != nil
}

// Root gives the operator's root key for signing documents, or [ErrNoRoot].
func (id *Identity) Root() (ed25519.PrivateKey, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.root == nil {
		return nil, ErrNoRoot
	}
	return id.root, nil
}

// Card gives the operator's newest card and its payload.
func (id *Identity) Card() (*wire.Card, []byte) {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.card, id.raw
}

// Login gives the proof of the node's key for a broker.
func (id *Identity) Login(broker string, now time.Time) (client, user, password string) {
	o := id.Operator()
	return id.Node().String(), o.String(), wire.LoginPassword(id.Signer(), o, broker, now.Add(loginLife))
}

// UpdateCard signs a new card with the root key: change edits the text of the card
// and this node's certificate is made or renewed. The card is durable
// before UpdateCard returns. It fails with [ErrNoRoot] where the key is
// elsewhere.
func (id *Identity) UpdateCard(now time.Time, change func(*wire.Card)) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.root == nil {
		return ErrNoRoot
	}
	next := wire.NextCard(id.card, now)
	if change != nil {
		change(next)
	}
	var key wire.PublicKey
	copy(key[:], id.node.Public().(ed25519.PublicKey))
	next.Certify(key, now)
	return id.sign(next, 1)
}

// Renew renews the node's certificate, and those of nodes that were paired with this
// machine, if a third of its life is left and the root key is at hand. It says whether
// there is a new card.
func (id *Identity) Renew(now time.Time) (bool, error) {
	if !id.HasRoot() {
		return false, nil
	}
	due := id.due(now)
	card, _ := id.Card()
	if card != nil && len(due) == 0 {
		for _, x := range card.Certificates {
			if x.Key == id.NodeKey() && x.NotAfter.Sub(now) > renewBefore {
				return false, nil
			}
		}
	}
	if card != nil {
		if _, revoked := card.RevokedSince(id.Node()); revoked {
			return false, nil
		}
	}
	err := id.UpdateCard(now, func(c *wire.Card) {
		for _, key := range due {
			c.Certify(key, now)
		}
	})
	return err == nil, err
}

// Expires is when the node's certificate ends; the zero time without one.
func (id *Identity) Expires() time.Time {
	card, _ := id.Card()
	if card != nil {
		for _, x := range card.Certificates {
			if x.Key == id.NodeKey() {
				return x.NotAfter
			}
		}
	}
	return time.Time{}
}

// InstallCard takes a card that was signed elsewhere. It refuses one of another
// operator, one that is not newer, and one without a certificate or revocation
// for this node, unless the root key is here to add one.
//
// Two machines that have the root key may sign cards without having seen each
// other's. Each keeps all certificates and revocations of both, so they end with
// one card that has them all, and neither undoes the other's.
func (id *Identity) InstallCard(raw []byte) error {
	card, err := wire.OpenCard(raw)
	if err != nil {
		return err
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.card != nil && card.Operator != id.card.Operator || id.root != nil && card.Operator != operatorOf(id.root) {
		return fmt.Errorf("the card is of operator %v, this node belongs to another", card.Operator)
	}
	if id.card != nil && !card.Newer(id.card.Serial, id.card.Hash) {
		return fmt.Errorf("the card has serial %d; the one here has %d", card.Serial, id.card.Serial)
	}
	if id.root == nil {
		if !card.Knows(ban.NodeOf(id.node.Public().(ed25519.PublicKey))) {
			return ErrNotCertified
		}
		return id.install(raw)
	}
	before := id.card
	if err := id.install(raw); err != nil {
		return err
	}
	if before == nil {
		return nil
	}
	issued := card.Issued
	if before.Issued.After(issued) {
		issued = before.Issued
	}
	next := wire.NextCard(card, issued)
	if !next.Merge(before) {
		return nil
	}
	return id.sign(next, apart)
}

// apart is how far serials of cards that machines sign by themselves lie apart
// at most: two that do so at the same moment hardly take the same one.
const apart = 1 << 16

// sign signs a card with the root key and installs it. Its serial is raised by
// a random number below spread. id.mu is held.
func (id *Identity) sign(next *wire.Card, spread int64) error {
	if spread > 1 {
		n, err := rand.Int(rand.Reader, big.NewInt(spread))
		if err != nil {
			return err
		}
		next.Serial += n.Uint64()
	}
	raw, err := next.Sign(id.root)
	if err != nil {
		return err
	}
	return id.install(raw)
}

// Refresh takes a newer card that another process put in the directory, as
// `agent key` does.
func (id *Identity) Refresh() error {
	if id.dir == "" {
		return nil
	}
	raw, err := os.ReadFile(filepath.Join(id.dir, cardFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the card: %w", err)
	}
	card, err := wire.OpenCard(raw)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(id.dir, cardFile), err)
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.card != nil && (card.Operator != id.card.Operator || !card.Newer(id.card.Serial, id.card.Hash)) {
		return nil
	}
	id.raw, id.card = raw, card
	return nil
}

// install writes the card through a temporary file, so that a crash leaves the
// old one or the new one.
func (id *Identity) install(raw []byte) error {
	card, err := wire.OpenCard(raw)
	if err != nil {
		return err
	}
	if err := wholefile.Write(filepath.Join(id.dir, cardFile), raw, 0o644); err != nil {
		return fmt.Errorf("keeping the card: %w", err)
	}
	id.raw, id.card = raw, card
	return nil
}

// Throwaway is an identity that is nowhere on disk, for tools that
// only listen.
func Throwaway(now time.Time) (*Identity, error) {
	_, root, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	_, node, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	id := New("", node, root)
	card := wire.NextCard(nil, now)
	card.Certify(id.NodeKey(), now)
	id.raw, err = card.Sign(root)
	id.card = card
	return id, err
}
