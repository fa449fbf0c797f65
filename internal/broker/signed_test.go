package broker

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

// An author is an operator with one node, for tests: it signs by the protocol's
// documented bytes, not through the code under test.
type author struct {
	root, node ed25519.PrivateKey
	feed       ban.Feed
	epoch      uint64
	now        time.Time
}

func newAuthor(name string) *author {
	key := func(s string) ed25519.PrivateKey {
		seed := sha256.Sum256([]byte(s))
		return ed25519.NewKeyFromSeed(seed[:])
	}
	a := &author{root: key(name + " root"), node: key(name + " node"), epoch: 7, now: time.Now().Truncate(time.Second)}
	a.feed = ban.Feed{
		Topic:    "sshd",
		Operator: ban.OperatorOf(a.root.Public().(ed25519.PublicKey)),
		Node:     ban.NodeOf(a.node.Public().(ed25519.PublicKey)),
	}
	return a
}

func (a *author) public(k ed25519.PrivateKey) (p wire.PublicKey) {
	copy(p[:], k.Public().(ed25519.PublicKey))
	return p
}

// card gives the operator's card, which certifies the node, and its topic.
func (a *author) card(t testing.TB, serial uint64, revoked ...wire.Revocation) (topic, payload string) {
	t.Helper()
	c := wire.Card{
		Serial: serial, Issued: a.now, Name: "test",
		Certificates: []wire.Certificate{{Key: a.public(a.node), NotBefore: a.now.Add(-time.Hour), NotAfter: a.now.Add(time.Hour)}},
		Revocations:  revoked,
	}
	b, err := c.Sign(a.root)
	if err != nil {
		t.Fatal(err)
	}
	return wire.Name{Network: "net", Kind: wire.KindCard, Operator: a.feed.Operator}.String(), string(b)
}

// head gives a signed head of the feed.
func (a *author) head(number uint64) (topic, payload string) { return a.headOf("net", number) }

func (a *author) headOf(network string, number uint64) (topic, payload string) {
	var body []byte
	body = binary.BigEndian.AppendUint64(body, number) // n
	body = binary.BigEndian.AppendUint32(body, 3600)   // ttl
	body = binary.BigEndian.AppendUint32(body, 1)      // gc
	body = binary.BigEndian.AppendUint32(body, 0)      // count
	body = append(body, make([]byte, 32)...)           // fingerprint
	body = binary.BigEndian.AppendUint64(body, 0)      // card's serial
	body = append(body, make([]byte, 16)...)           // card's hash
	body = binary.BigEndian.AppendUint16(body, 16)     // ring
	body = binary.BigEndian.AppendUint64(body, 0)      // snapshot n
	body = binary.BigEndian.AppendUint32(body, 1)      // snapshot gc
	body = append(body, 0, 0, 0)                       // no pieces
	name := wire.FeedName(network, a.feed, wire.KindHead, 0)
	return name.String(), string(a.sign(a.node, network, wire.KindHead, number, body))
}

// chunk gives a signed chunk of no claims and a body of its own size.
func (a *author) chunk(slot int, number uint64) (topic, payload string) {
	body := binary.AppendUvarint(nil, uint64(slot))
	body = append(body, 0, 0) // lo, hi
	body = append(body, 0)    // no entries
	name := wire.FeedName("net", a.feed, wire.KindChunk, slot)
	return name.String(), string(a.sign(a.node, "net", wire.KindChunk, number, body))
}

func (a *author) sign(key ed25519.PrivateKey, network string, kind wire.Kind, number uint64, body []byte) []byte {
	text := append([]byte("BMSH"), 1, byte(kind))
	text = append(append(text, byte(len(network))), network...)
	text = append(append(text, byte(len(a.feed.Topic))), a.feed.Topic...)
	text = append(text, a.feed.Operator[:]...)
	text = append(text, key.Public().(ed25519.PublicKey)...)
	text = binary.BigEndian.AppendUint64(text, a.epoch)
	text = binary.BigEndian.AppendUint64(text, number)
	text = binary.BigEndian.AppendUint32(text, uint32(a.now.Unix()))
	text = append(text, body...)
	return append(ed25519.Sign(key, text), text...)
}

// join logs the author's node in by proof of its key.
func (a *author) join(t testing.TB, b *Broker) *client {
	t.Helper()
	c := dial(t, b)
	c.connect(a.connecting(a.now.Add(10*time.Minute), "broker.example"))
	return c
}

func (a *author) connecting(until time.Time, broker string) connecting {
	return connecting{
		id: a.feed.Node.String(), user: a.feed.Operator.String(), flags: 2, keepalive: 60,
		password: wire.LoginPassword(a.node, a.feed.Operator, broker, until),
	}
}
