package wire

import (
	"encoding/hex"
	"time"

	"banmesh/internal/ban"
)

// A Description is an opened message in words, for people, other programs and
// the test vectors. Its JSON form is part of docs/protocol.md.
type Description struct {
	Kind     string    `json:"kind"`
	Network  string    `json:"network,omitempty"`
	Topic    ban.Topic `json:"topic,omitempty"`
	Operator string    `json:"operator"`
	Node     string    `json:"node,omitempty"`
	Signer   string    `json:"signer"`
	Epoch    uint64    `json:"epoch"`
	Number   uint64    `json:"number"`
	Issued   int64     `json:"issued"` // Unix seconds
	Hash     string    `json:"hash"`   // of the body

	N           *uint64               `json:"n,omitempty"`
	TTL         int64                 `json:"ttl,omitempty"` // seconds
	GC          int64                 `json:"gc,omitempty"`  // Unix seconds
	Count       *uint32               `json:"count,omitempty"`
	Fingerprint string                `json:"fingerprint,omitempty"`
	CardSerial  *uint64               `json:"card_serial,omitempty"`
	CardHash    string                `json:"card_hash,omitempty"`
	Ring        uint16                `json:"ring,omitempty"`
	SnapshotN   *uint64               `json:"snapshot_n,omitempty"`
	SnapshotGC  int64                 `json:"snapshot_gc,omitempty"`
	Stolen      bool                  `json:"stolen,omitempty"`
	Manifest    string                `json:"manifest,omitempty"`
	Chunks      []DescribedPiece      `json:"chunks,omitempty"`
	Segments    []DescribedPiece      `json:"segments,omitempty"`
	From        *uint64               `json:"from,omitempty"`
	To          *uint64               `json:"to,omitempty"`
	Slot        *int                  `json:"slot,omitempty"`
	Lo          string                `json:"lo,omitempty"`
	Hi          string                `json:"hi,omitempty"`
	Claims      []DescribedClaim      `json:"claims,omitempty"`
	Withdrawn   []DescribedWithdrawal `json:"withdrawn,omitempty"`
	Name        string                `json:"name,omitempty"`
	Contact     string                `json:"contact,omitempty"`
	Criteria    string                `json:"criteria,omitempty"`
	Successor   string                `json:"successor,omitempty"`
	Nodes       []DescribedNode       `json:"nodes,omitempty"`
	Revoked     []DescribedNode       `json:"revoked,omitempty"`
	Trusted     []DescribedTrust      `json:"trusted,omitempty"`
	Listed      []DescribedListed     `json:"listed,omitempty"`
	Text        string                `json:"text,omitempty"`
	Invitation  *DescribedInvitation  `json:"invitation,omitempty"`
}

// DescribedClaim is a claim; End is in Unix seconds.
type DescribedClaim struct {
	Target      string `json:"target"`
	End         int64  `json:"end"`
	Class       uint8  `json:"class"`
	Hits        uint8  `json:"hits"`
	Established bool   `json:"established"`
	Basis       string `json:"basis"`
}

// DescribedWithdrawal is a claim that its author ended.
type DescribedWithdrawal struct {
	Target string `json:"target"`
	Reason string `json:"reason"`
}

// DescribedPiece is a line of a list of pieces.
type DescribedPiece struct {
	Lo   string  `json:"lo,omitempty"`
	From *uint64 `json:"from,omitempty"`
	To   *uint64 `json:"to,omitempty"`
	Slot int     `json:"slot"`
	Hash string  `json:"hash"`
	Size uint32  `json:"size"`
}

// DescribedNode is a certificate, or with Since a revocation. Times are in
// Unix seconds.
type DescribedNode struct {
	Node  string `json:"node"`
	Key   string `json:"key,omitempty"`
	From  int64  `json:"from,omitempty"`
	Until int64  `json:"until,omitempty"`
	Since *int64 `json:"since,omitempty"`
}

// DescribedTrust is a line of a trust list.
type DescribedTrust struct {
	Operator string `json:"operator"`
	Weight   uint8  `json:"weight"`
	Follows  bool   `json:"follows,omitempty"`
	Name     string `json:"name"`
}

// DescribedInvitation is the fields that only an invitation has.
type DescribedInvitation struct {
	Note    string      `json:"note"`
	Expires int64       `json:"expires"`
	Brokers []string    `json:"brokers"`
	Topics  []ban.Topic `json:"topics"`
}

// Describe puts the message in words.
func (m *Message) Describe() Description {
	h := m.Header
	d := Description{
		Kind: h.Kind.String(), Network: h.Network, Topic: h.Topic, Operator: h.Operator.String(), Signer: hex.EncodeToString(h.Signer[:]),
		Epoch: h.Epoch, Number: h.Number, Issued: h.Issued.Unix(), Hash: hex.EncodeToString(m.Hash[:]),
	}
	if h.Kind.OfNode() {
		d.Node = h.Node().String()
	}
	switch b := m.Body.(type) {
	case *Head:
		d.N, d.TTL, d.GC, d.Count, d.Ring = &b.N, int64(b.TTL/time.Second), int64(b.GC)*60, &b.Count, b.Ring
		d.Fingerprint, d.SnapshotN, d.SnapshotGC = hex.EncodeToString(b.Fingerprint[:]), &b.SnapshotN, int64(b.SnapshotGC)*60
		d.CardSerial, d.CardHash = &b.CardSerial, hex.EncodeToString(b.CardHash[:])
		switch {
		case b.Stolen:
			d.Stolen = true
		case b.Pieces != nil:
			d.pieces(b.Pieces)
		default:
			d.Manifest = hex.EncodeToString(b.Manifest[:])
		}
		d.ops(m.State, nil)
	case *Manifest:
		d.pieces(&b.Pieces)
	case *Delta:
		d.GC, d.Fingerprint = int64(b.GC)*60, hex.EncodeToString(b.Fingerprint[:])
		d.ops(b.Up, b.Down)
	case *Segment:
		d.Slot, d.From, d.To, d.GC = &b.Slot, &b.From, &b.To, int64(b.GC)*60
		d.ops(b.Up, b.Down)
	case *Chunk:
		d.Slot, d.Lo, d.Hi = &b.Slot, hex.EncodeToString([]byte(b.Lo)), hex.EncodeToString([]byte(b.Hi))
		d.ops(b.Up, nil)
	case *Dispute:
		d.ops(b.Up, nil)
	case *Card:
		d.card(b)
	case *Trust:
		d.trust(b.Operators)
	case *Definition:
		d.Text = b.Text
	case *List:
		d.Name, d.Contact, d.Criteria, d.Listed = b.Name, b.Contact, b.Criteria, b.described()
	case *Invitation:
		d.trust(b.Trusted)
		d.Invitation = &DescribedInvitation{b.Note, b.Expires.Unix(), b.Brokers, b.Topics}
	}
	return d
}

func (d *Description) ops(up []Entry, down []Withdrawal) {
	for i := range up {
		c := up[i].Claim()
		d.Claims = append(d.Claims, DescribedClaim{c.Target.String(), c.End.Unix(), uint8(c.Class), c.Hits, c.Established, c.Basis.String()})
	}
	for _, w := range Withdrawals(down) {
		d.Withdrawn = append(d.Withdrawn, DescribedWithdrawal{w.Target.String(), w.Reason.String()})
	}
}

func (d *Description) pieces(p *Pieces) {
	for i := range p.Chunks {
		c := &p.Chunks[i]
		d.Chunks = append(d.Chunks, DescribedPiece{Lo: hex.EncodeToString([]byte(c.Lo)), Slot: c.Slot, Hash: hex.EncodeToString(c.Hash[:]), Size: c.Size})
	}
	for i := range p.Segments {
		s := &p.Segments[i]
		d.Segments = append(d.Segments, DescribedPiece{From: &s.From, To: &s.To, Slot: s.Slot, Hash: hex.EncodeToString(s.Hash[:]), Size: s.Size})
	}
}

func (d *Description) card(c *Card) {
	d.Name, d.Contact, d.Criteria = c.Name, c.Contact, c.Criteria
	if c.Successor != (ban.Operator{}) {
		d.Successor = c.Successor.String()
	}
	for _, x := range c.Certificates {
		d.Nodes = append(d.Nodes, DescribedNode{Node: x.Node().String(), Key: hex.EncodeToString(x.Key[:]), From: x.NotBefore.Unix(), Until: x.NotAfter.Unix()})
	}
	for _, r := range c.Revocations {
		since := r.Since.Unix()
		d.Revoked = append(d.Revoked, DescribedNode{Node: r.Node.String(), Since: &since})
	}
}

func (d *Description) trust(list []Trusted) {
	for _, o := range list {
		d.Trusted = append(d.Trusted, DescribedTrust{o.Operator.String(), o.Weight, o.Follows, o.Name})
	}
}
