package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"banmesh/internal/ban"
)

// A List is an operator's document about the wallets that it denies in a topic:
// where they may object, by which criteria, and of each why. It bans nobody: the
// feed does, and a wallet that stands here alone is not denied. The root key
// signs; the header's number counts versions. All texts are foreign and plain.
//
//	name text | contact text | criteria text |
//	entries uvarint, each: wallet 20, note text, evidence text
type List struct {
	Name     string // at most [MaxCardName] bytes
	Contact  string // this and all other texts: at most [MaxNote] bytes
	Criteria string
	Entries  []Listed // in order of the wallet, at most [MaxListed]
}

// Listed is one wallet of a [List].
type Listed struct {
	Wallet   [20]byte
	Note     string
	Evidence string // an http(s) address, or sha256: and 64 hex digits
}

// Kind implements [Body].
func (*List) Kind() Kind { return KindList }

// Append implements [Body].
func (l *List) Append(b []byte) []byte {
	for _, s := range []string{l.Name, l.Contact, l.Criteria} {
		b = appendText(b, s)
	}
	b = binary.AppendUvarint(b, uint64(len(l.Entries)))
	for i := range l.Entries {
		e := &l.Entries[i]
		b = append(b, e.Wallet[:]...)
		b = appendText(b, e.Note)
		b = appendText(b, e.Evidence)
	}
	return b
}

func decodeList(d *Decoder) *List {
	l := &List{Name: d.line(MaxCardName), Contact: d.line(MaxNote), Criteria: d.line(MaxNote)}
	for i, n := 0, int(d.Uvarint(MaxListed)); i < n && d.err == nil; i++ {
		var e Listed
		copy(e.Wallet[:], d.Take(len(e.Wallet)))
		e.Note, e.Evidence = d.line(MaxNote), d.line(MaxNote)
		if i > 0 && bytes.Compare(e.Wallet[:], l.Entries[i-1].Wallet[:]) <= 0 {
			d.fail(errors.New("wallets are not in order"))
		}
		l.Entries = append(l.Entries, e)
	}
	return l
}

// Withdrawn says whether the list says nothing any more.
func (l *List) Withdrawn() bool {
	return l.Name == "" && l.Contact == "" && l.Criteria == "" && len(l.Entries) == 0
}

// Find gives the entry of a wallet.
func (l *List) Find(wallet [20]byte) (Listed, bool) {
	i, found := slices.BinarySearchFunc(l.Entries, wallet, func(e Listed, w [20]byte) int { return bytes.Compare(e.Wallet[:], w[:]) })
	if !found {
		return Listed{}, false
	}
	return l.Entries[i], true
}

// SignList gives a list as a payload for a network. It puts the entries in order.
func SignList(root ed25519.PrivateKey, network string, topic ban.Topic, serial uint64, issued time.Time, l List) ([]byte, error) {
	l.Entries = slices.Clone(l.Entries)
	slices.SortFunc(l.Entries, func(a, b Listed) int { return bytes.Compare(a.Wallet[:], b.Wallet[:]) })
	return signDocument(root, Header{Kind: KindList, Network: network, Topic: topic, Number: serial, Issued: issued}, &l)
}

// DescribedListed is a line of a list of wallets.
type DescribedListed struct {
	Wallet   string `json:"wallet"`
	Note     string `json:"note,omitempty"`
	Evidence string `json:"evidence,omitempty"`
}

func (l *List) described() (out []DescribedListed) {
	for _, e := range l.Entries {
		out = append(out, DescribedListed{"0x" + hex.EncodeToString(e.Wallet[:]), e.Note, e.Evidence})
	}
	return out
}
