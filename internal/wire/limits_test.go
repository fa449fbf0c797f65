package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// edges has, for a limit of this package's limits.go, a message of so many units
// that it opens at the limit and is refused with one more. A message is judged
// for itself, so a restart, which opens the stored ones again, comes to the same.
var edges = map[string]struct {
	limit int
	open  func(n int) error
}{
	"MaxPayload":       {MaxPayload, func(n int) error { return openSized(KindChunk, n) }},
	"MaxLivePayload":   {MaxLivePayload, func(n int) error { return openSized(KindHead, n+MaxState) }},
	"MaxState":         {MaxState, openBehindAHead},
	"MaxMessageClaims": {MaxMessageClaims, func(n int) error { return decodeEntries(n, MaxMessageClaims) }},
	"MaxDeltaOps": {MaxDeltaOps, func(n int) error {
		return openBody(KindDelta, 1, (&Delta{Up: entriesOf(n)}).Append(nil))
	}},
	"MaxFeedClaims": {MaxFeedClaims, func(n int) error {
		return openBody(KindHead, 0, (&Head{TTL: time.Hour, Ring: 1, Count: uint32(n), Pieces: &Pieces{}}).Append(nil))
	}},
	"MaxRing": {MaxRing, func(n int) error {
		return openBody(KindHead, 0, (&Head{TTL: time.Hour, Ring: uint16(n), Pieces: &Pieces{}}).Append(nil))
	}},
	"MaxTTL": {int(MaxTTL / time.Second), func(n int) error {
		return openBody(KindHead, 0, (&Head{TTL: time.Duration(n) * time.Second, Ring: 1, Pieces: &Pieces{}}).Append(nil))
	}},
	"MaxInlinePieces": {MaxInlinePieces, func(n int) error {
		return openBody(KindHead, 0, (&Head{TTL: time.Hour, Ring: 1, Pieces: piecesOf(n)}).Append(nil))
	}},
	"MaxPieces": {MaxPieces, func(n int) error { return openBody(KindManifest, 0, (&Manifest{*piecesOf(n)}).Append(nil)) }},
	"MaxSlot":   {MaxSlot, func(n int) error { return openBody(KindChunk, n, (&Chunk{Slot: n}).Append(nil)) }},
	"MaxNodes": {MaxNodes, func(n int) error {
		return openCard(Card{Certificates: certificatesOf(n)})
	}},
	"MaxRevocations": {MaxRevocations, func(n int) error {
		var c Card
		for i := range n {
			c.Revocations = append(c.Revocations, Revocation{Node: ban.NodeOf(binary.AppendUvarint(nil, uint64(i))), Since: testTime})
		}
		return openCard(c)
	}},
	"MaxCertificate": {int(MaxCertificate / time.Second), func(n int) error {
		c := certificatesOf(1)
		c[0].NotAfter = c[0].NotBefore.Add(time.Duration(n) * time.Second)
		return openCard(Card{Certificates: c})
	}},
	"MaxCardName": {MaxCardName, func(n int) error { return openCard(Card{Name: strings.Repeat("x", n)}) }},
	"MaxText":     {MaxText, func(n int) error { return openCard(Card{Contact: strings.Repeat("x", n)}) }},
	"MaxTrusted": {MaxTrusted, func(n int) error {
		var list Trust
		for i := range n {
			list.Operators = append(list.Operators, Trusted{Operator: ban.OperatorOf(binary.AppendUvarint(nil, uint64(i))), Weight: 1})
		}
		raw, err := SignTrust(testKey("root"), "testnet", 1, testTime, list)
		return openDocument(KindTrust, "", raw, err)
	}},
	"MaxDefinition": {MaxDefinition, func(n int) error {
		raw, err := SignDefinition(testKey("root"), "testnet", "sshd", 1, testTime, strings.Repeat("x", n))
		return openDocument(KindDefinition, "sshd", raw, err)
	}},
	"MaxListed": {MaxListed, func(n int) error {
		var list List
		for i := range n {
			list.Entries = append(list.Entries, Listed{Wallet: [20]byte{byte(i >> 8), byte(i)}})
		}
		raw, err := SignList(testKey("root"), "testnet", "wallets", 1, testTime, list)
		return openDocument(KindList, "wallets", raw, err)
	}},
	"MaxNote": {MaxNote, func(n int) error {
		raw, err := SignList(testKey("root"), "testnet", "wallets", 1, testTime, List{Entries: []Listed{{Note: strings.Repeat("x", n)}}})
		return openDocument(KindList, "wallets", raw, err)
	}},
	"MaxAhead": {int(MaxAhead / time.Second), func(n int) error {
		if (Header{Issued: testTime.Add(time.Duration(n) * time.Second)}).Ahead(testTime) {
			return ErrFuture
		}
		return nil
	}},
	"MaxEpochAhead": {int(MaxEpochAhead / time.Second), func(n int) error {
		if (Header{Issued: testTime, Epoch: uint64(testTime.Unix()+int64(n)) << EpochShift}).Ahead(testTime) {
			return ErrFuture
		}
		return nil
	}},
}

// elsewhere are the limits whose edge is another package's, with the test there.
var elsewhere = map[string]string{
	"MaxSent":         "the author's own: federation TestAFullFeedFitsItsLimits",
	"MaxFeedBytes":    "federation TestTheAccountOfAnOperatorEndsAtItsLimits",
	"MaxPendingBytes": "federation TestManyNodesOfAnOperatorShareOneAccount",
	"MaxEnd":          "federation TestALongerEndIsCut",
	"MaxCard":         "follows from MaxNodes and MaxRevocations",
	"MaxLoginLife":    "TestALoginProvesAKeyToOneBroker",
}

func TestEveryLimitOfAMessageHoldsAtItsEdge(t *testing.T) {
	for name, e := range edges {
		if err := e.open(e.limit); err != nil {
			t.Errorf("%s: %d is refused: %v", name, e.limit, err)
		}
		if err := e.open(e.limit + 1); err == nil {
			t.Errorf("%s: %d is taken", name, e.limit+1)
		}
	}
}

// Whoever adds a limit gives it a row here for its edge.
func TestEveryLimitHasARow(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "limits.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for _, id := range v.Names {
			if !strings.HasPrefix(id.Name, "Max") {
				continue
			}
			found++
			_, here := edges[id.Name]
			_, there := elsewhere[id.Name]
			if here == there {
				t.Errorf("%s has no row, or two", id.Name)
			}
		}
		return true
	})
	if found != len(edges)+len(elsewhere) {
		t.Errorf("%d limits, %d rows", found, len(edges)+len(elsewhere))
	}
}

// openBody opens a body as a message of a feed.
func openBody(k Kind, slot int, body []byte) error {
	root, node := testKey("root"), testKey("node")
	f := ban.Feed{Topic: "sshd", Operator: ban.OperatorOf(root[32:]), Node: ban.NodeOf(node[32:])}
	_, err := Open(FeedName("testnet", f, k, slot), Seal(node, Header{Kind: k, Network: "testnet", Topic: "sshd", Operator: f.Operator, Epoch: 1 << EpochShift, Number: 1, Issued: testTime}, body))
	return err
}

// openBehindAHead says whether a state of n bytes behind a head is looked at.
func openBehindAHead(n int) error {
	root, node := testKey("root"), testKey("node")
	f := ban.Feed{Topic: "sshd", Operator: ban.OperatorOf(root[32:]), Node: ban.NodeOf(node[32:])}
	head := (&Head{TTL: time.Hour, Ring: 1, Pieces: &Pieces{}}).Append(nil)
	b := Seal(node, Header{Kind: KindHead, Network: "testnet", Topic: "sshd", Operator: f.Operator, Epoch: 1 << EpochShift, Number: 1, Issued: testTime}, head)
	if _, err := Open(FeedName("testnet", f, KindHead, 0), append(b, make([]byte, n)...)); errors.Is(err, ErrSize) {
		return err
	}
	return nil
}

// openSized says whether a payload of n bytes is looked at.
func openSized(k Kind, n int) error {
	f := ban.Feed{Topic: "sshd"}
	if _, err := Open(FeedName("testnet", f, k, 0), make([]byte, n)); errors.Is(err, ErrSize) {
		return err
	}
	return nil
}

func openCard(c Card) error {
	c.Serial, c.Issued = 1, testTime
	raw, err := c.Sign(testKey("root"))
	if err != nil {
		return err
	}
	_, err = OpenCard(raw)
	return err
}

func openDocument(k Kind, topic ban.Topic, raw []byte, err error) error {
	if err != nil {
		return err
	}
	root := testKey("root")
	_, err = Open(Name{Network: "testnet", Kind: k, Topic: topic, Operator: ban.OperatorOf(root[32:])}, raw)
	return err
}

func certificatesOf(n int) (list []Certificate) {
	for i := range n {
		list = append(list, Certificate{Key: PublicKey(sha256.Sum256(fmt.Append(nil, i))), NotBefore: testTime, NotAfter: testTime.Add(time.Hour)})
	}
	return list
}

func piecesOf(n int) *Pieces {
	p := &Pieces{}
	for i := range n {
		lo := ""
		if i > 0 {
			lo = string(binary.BigEndian.AppendUint32([]byte{byte(ban.KindAddr4)}, uint32(i)))
		}
		p.Chunks = append(p.Chunks, ChunkRef{Lo: lo, Slot: i})
	}
	return p
}

func entriesOf(n int) []Entry {
	claims := make([]ban.Claim, 0, n)
	for i := range n {
		t := ban.MustTarget(fmt.Sprintf("45.%d.%d.%d", i>>16, i>>8&255, i&255))
		claims = append(claims, ban.Claim{Target: t, End: testTime.Add(time.Hour), Class: ban.ClassAuth})
	}
	return SortClaims(claims, testTime)
}

// decodeEntries reads n entries where at most so many may stand; they are more
// bytes than a message has.
func decodeEntries(n, most int) error {
	d := &Decoder{B: AppendEntries(nil, entriesOf(n))}
	d.Entries(most)
	return d.End()
}
