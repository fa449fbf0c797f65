package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"banmesh/internal/ban"
)

// A Card is an operator's key document, signed by the root key: who it is,
// which nodes speak for it, and which no longer do. It needs no other proof,
// because the operator's identity is the hash of the root key. The header's
// number counts its versions; the highest holds.
//
//	name text | contact text | criteria text | successor 16 |
//	certificates uvarint | each: key 32, not before u32, not after u32 |
//	revocations uvarint | each: node 10, since u32
//
// Certificates are ordered by key and revocations by node.
type Card struct {
	Operator ban.Operator
	Root     PublicKey
	Serial   uint64 // the header's number
	Issued   time.Time
	Hash     Hash // of the encoded body, by which heads name the card; filled by reading and signing

	Name     string // the operator's own name for itself; nothing vouches for it
	Contact  string // where to write about a ban
	Criteria string // URL of its criteria for bans
	// Successor is the operator that may take this one's place, or zero. Naming
	// it while the root key is in good hands makes it worth something.
	Successor    ban.Operator
	Certificates []Certificate
	Revocations  []Revocation
}

// A Certificate lets a node's key speak for the operator.
type Certificate struct {
	Key       PublicKey
	NotBefore time.Time // renewing keeps it
	NotAfter  time.Time // at most [MaxCertificate] after the card was issued
}

// Node is the certified node.
func (c Certificate) Node() ban.Node { return ban.NodeOf(c.Key[:]) }

// A Revocation ends a node: a reader takes nothing from it any more, whatever
// its date, and drops the claims that it heard from it at or after Since. The reader's own
// clock counts, because who has a stolen key can date messages back.
type Revocation struct {
	Node  ban.Node
	Since time.Time // the Unix epoch for all that it ever said
}

// Faults of a node's standing.
var (
	ErrUncertified = errors.New("the operator's card has no certificate for the node")
	ErrExpired     = errors.New("the node's certificate has expired")
	ErrRevoked     = errors.New("the operator has revoked the node")
)

// OpenCard reads a card wherever it was found: the root key in it must hash to
// the operator that it claims, and sign it.
func OpenCard(payload []byte) (*Card, error) {
	if len(payload) > MaxCard {
		return nil, fmt.Errorf("%w: %d bytes", ErrSize, len(payload))
	}
	h, err := Peek(payload)
	if err != nil {
		return nil, err
	}
	m, err := Open(Name{Kind: KindCard, Operator: h.Operator}, payload)
	if err != nil {
		return nil, err
	}
	return m.Body.(*Card), nil
}

// Peek reads a payload's header as it stands, without any check of where it
// belongs or of its signature. For tools that look at strange bytes.
func Peek(payload []byte) (Header, error) {
	if len(payload) <= ed25519.SignatureSize || len(payload) > MaxPayload {
		return Header{}, fmt.Errorf("%w: %d bytes", ErrSize, len(payload))
	}
	h, _, err := decodeHeader(payload[ed25519.SignatureSize:])
	return h, err
}

// Certifies says whether the card lets key speak for the operator in a message
// of the given date. It fails with [ErrRevoked], [ErrUncertified] or
// [ErrExpired].
func (c *Card) Certifies(key PublicKey, issued time.Time) error {
	if since, ok := c.RevokedSince(ban.NodeOf(key[:])); ok {
		return fmt.Errorf("%w since %s", ErrRevoked, since.Format(time.RFC3339))
	}
	for _, x := range c.Certificates {
		switch {
		case x.Key != key:
		case issued.Before(x.NotBefore), issued.After(x.NotAfter):
			return fmt.Errorf("%w: it is good from %s to %s", ErrExpired, x.NotBefore.Format(time.RFC3339), x.NotAfter.Format(time.RFC3339))
		default:
			return nil
		}
	}
	return ErrUncertified
}

// Newer says whether the card takes the place of one with a serial and hash: of
// two with one serial the greater hash counts, for everybody alike.
func (c *Card) Newer(serial uint64, hash Hash) bool {
	return c.Serial > serial || c.Serial == serial && bytes.Compare(c.Hash[:], hash[:]) > 0
}

// RevokedSince says whether a node is revoked, and since when it is not believed.
func (c *Card) RevokedSince(n ban.Node) (time.Time, bool) {
	for _, r := range c.Revocations {
		if r.Node == n {
			return r.Since, true
		}
	}
	return time.Time{}, false
}

// Nodes gives the nodes that the card certifies at the time, in order.
func (c *Card) Nodes(now time.Time) []ban.Node {
	var out []ban.Node
	for _, x := range c.Certificates {
		if c.Certifies(x.Key, now) == nil {
			out = append(out, x.Node())
		}
	}
	slices.SortFunc(out, func(a, b ban.Node) int { return strings.Compare(string(a[:]), string(b[:])) })
	return out
}

// Sign gives the card as a payload. It sorts the lists and fills Operator and
// Root in; it fails where a limit is crossed.
func (c *Card) Sign(root ed25519.PrivateKey) ([]byte, error) {
	copy(c.Root[:], root.Public().(ed25519.PublicKey))
	c.Operator = ban.OperatorOf(c.Root[:])
	c.Issued = time.Unix(int64(Seconds(c.Issued)), 0).UTC()
	slices.SortFunc(c.Certificates, func(a, b Certificate) int { return strings.Compare(string(a.Key[:]), string(b.Key[:])) })
	slices.SortFunc(c.Revocations, func(a, b Revocation) int { return strings.Compare(string(a.Node[:]), string(b.Node[:])) })
	body := c.Append(nil)
	c.Hash = HashOf(body)
	out := Seal(root, Header{Kind: KindCard, Operator: c.Operator, Number: c.Serial, Issued: c.Issued}, body)
	if _, err := OpenCard(out); err != nil {
		return nil, fmt.Errorf("signing the card: %w", err)
	}
	return out, nil
}

// Kind implements [Body].
func (*Card) Kind() Kind { return KindCard }

// Append implements [Body].
func (c *Card) Append(b []byte) []byte {
	b = appendText(b, c.Name)
	b = appendText(b, c.Contact)
	b = appendText(b, c.Criteria)
	b = append(b, c.Successor[:]...)
	b = binary.AppendUvarint(b, uint64(len(c.Certificates)))
	for _, x := range c.Certificates {
		b = append(b, x.Key[:]...)
		b = binary.BigEndian.AppendUint32(b, Seconds(x.NotBefore))
		b = binary.BigEndian.AppendUint32(b, Seconds(x.NotAfter))
	}
	b = binary.AppendUvarint(b, uint64(len(c.Revocations)))
	for _, r := range c.Revocations {
		b = append(b, r.Node[:]...)
		b = binary.BigEndian.AppendUint32(b, Seconds(r.Since))
	}
	return b
}

func decodeCard(d *Decoder, h Header) *Card {
	c := &Card{
		Operator: h.Operator, Root: h.Signer, Serial: h.Number, Issued: h.Issued,
		Name: d.line(MaxCardName), Contact: d.line(MaxText), Criteria: d.line(MaxText),
	}
	copy(c.Successor[:], d.Take(len(c.Successor)))
	for i, n := 0, int(d.Uvarint(MaxNodes)); i < n && d.err == nil; i++ {
		var x Certificate
		copy(x.Key[:], d.Take(len(x.Key)))
		x.NotBefore, x.NotAfter = d.time(), d.time()
		switch {
		case d.err != nil:
		case i > 0 && string(x.Key[:]) <= string(c.Certificates[i-1].Key[:]):
			d.fail(errors.New("certificates are not in order"))
		case x.NotAfter.Before(x.NotBefore) || x.NotAfter.After(h.Issued.Add(MaxCertificate)):
			d.fail(fmt.Errorf("a certificate is good for more than %v", MaxCertificate))
		}
		c.Certificates = append(c.Certificates, x)
	}
	for i, n := 0, int(d.Uvarint(MaxRevocations)); i < n && d.err == nil; i++ {
		var r Revocation
		copy(r.Node[:], d.Take(len(r.Node)))
		r.Since = d.time()
		if i > 0 && string(r.Node[:]) <= string(c.Revocations[i-1].Node[:]) {
			d.fail(errors.New("revocations are not in order"))
		}
		c.Revocations = append(c.Revocations, r)
	}
	return c
}

// line reads text that a terminal can show: valid UTF-8 without control or
// formatting characters.
func (d *Decoder) line(most int) string {
	s := d.text(most)
	if d.err == nil && !PlainText(s) {
		d.fail(errors.New("a text has characters that cannot be shown"))
	}
	return s
}

// PlainText says whether s is valid UTF-8 of graphic characters, so that it
// can neither steer a terminal nor reverse a line.
func PlainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

func (d *Decoder) time() time.Time { return time.Unix(int64(d.U32()), 0).UTC() }
