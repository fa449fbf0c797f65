package wire

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

// testKey gives a key that is the same in every run.
// testMessages gives one message of every kind that a network carries.
func testMessages(tb testing.TB) map[Name][]byte {
	tb.Helper()
	root, node := testKey("root"), testKey("node")
	f := testFeed("sshd", root, node)
	es := SortClaims([]ban.Claim{
		{Target: ban.MustTarget("192.0.2.7"), End: testTime.Add(time.Hour), Class: ban.ClassAuth, Hits: 5, Established: true, Basis: ban.BasisStrong},
		{Target: ban.MustTarget("192.0.2.9"), End: testTime.Add(10 * time.Minute), Class: ban.ClassScan, Hits: 1},
		{Target: ban.MustTarget("2001:db8::1"), End: testTime.Add(24 * time.Hour), Class: ban.ClassManual, Basis: ban.BasisDecided},
		{Target: ban.MustTarget("2001:db8:1::/64"), End: testTime.Add(240 * time.Hour), Class: ban.ClassFlood, Hits: 255, Basis: ban.BasisHandedOver},
		{Target: ban.MustTarget("198.51.100.0/24"), End: testTime.Add(time.Hour)},
		{Target: ban.MustTarget("2001:db8::/32"), End: testTime.Add(time.Hour)},
		{Target: ban.MustTarget("0x00112233445566778899aabbccddeeff00112233"), End: testTime.Add(time.Hour), Class: ban.ClassContent, Hits: 2},
	}, testTime)
	var down []Withdrawal
	for i, s := range []string{"203.0.113.1", "203.0.113.2", "2001:db8::2"} {
		down = append(down, WithdrawalOf(ban.Withdrawal{Target: ban.MustTarget(s), Reason: ban.Reason(i)}))
	}
	pieces := Pieces{
		Chunks:   []ChunkRef{{Slot: 0, Size: 100}, {Lo: es[3].Key.Text(), Slot: 1, Size: 200}},
		Segments: []SegmentRef{{From: 3, To: 9, Slot: 2, Size: 300}},
	}
	gc := Minutes(testTime)
	out := map[Name][]byte{}
	for _, m := range []struct {
		slot int
		body Body
	}{
		{0, &Head{N: 12, TTL: 3 * time.Hour, GC: gc, Count: 7, CardSerial: 3, CardHash: HashOf([]byte("card")), Ring: 16, SnapshotN: 3, SnapshotGC: gc - 9, Pieces: &pieces}},
		{3, &Delta{GC: gc, Up: es, Down: down}},
		{4, &Segment{Slot: 4, From: 3, To: 9, GC: gc, Up: es, Down: down}},
		{5, &Chunk{Slot: 5, Hi: es[4].Key.Text(), Up: es[:4]}},
		{0, &Manifest{pieces}},
		{0, &Dispute{es[:2]}},
	} {
		n := FeedName("livepeer", f, m.body.Kind(), m.slot)
		out[n] = Seal(node, Header{Kind: n.Kind, Network: "livepeer", Topic: "sshd", Operator: f.Operator, Epoch: 7, Number: 12, Issued: testTime}, m.body.Append(nil))
	}
	card := Card{
		Serial: 3, Issued: testTime, Name: "alice", Contact: "mailto:alice@example.org", Criteria: "https://example.org/bans",
		Certificates: []Certificate{{Key: publicOf(node), NotBefore: testTime, NotAfter: testTime.Add(MaxCertificate)}},
		Revocations:  []Revocation{{Node: ban.NodeOf([]byte("old")), Since: testTime.Add(-time.Hour)}},
	}
	b, err := card.Sign(root)
	if err != nil {
		tb.Fatal(err)
	}
	out[Name{Network: "livepeer", Kind: KindCard, Operator: f.Operator}] = b
	b, err = SignTrust(root, "livepeer", 2, testTime, Trust{[]Trusted{{Operator: ban.OperatorOf([]byte("bob")), Weight: 60, Name: "bob"}, {Operator: ban.OperatorOf([]byte("carol")), Weight: 100, Follows: true, Name: "carol"}}})
	if err != nil {
		tb.Fatal(err)
	}
	out[Name{Network: "livepeer", Kind: KindTrust, Operator: f.Operator}] = b
	b, err = SignDefinition(root, "livepeer", "spam", 2, testTime, "name = 'spam'\n")
	if err != nil {
		tb.Fatal(err)
	}
	out[Name{Network: "livepeer", Kind: KindDefinition, Topic: "spam", Operator: f.Operator}] = b
	b, err = SignList(root, "livepeer", "gateway-payment", 2, testTime, List{
		Name: "unpaid work", Contact: "appeals@example.org", Criteria: "https://example.org/criteria",
		Entries: []Listed{{Wallet: [20]byte{9}}, {Wallet: [20]byte{1}, Note: "tickets without funds", Evidence: "https://example.org/case/7"}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	out[Name{Network: "livepeer", Kind: KindList, Topic: "gateway-payment", Operator: f.Operator}] = b
	return out
}

func TestEveryMessageOpensWhereItBelongs(t *testing.T) {
	for n, b := range testMessages(t) {
		if got, err := ParseTopicName(n.String()); err != nil || got != n {
			t.Errorf("%v reads back as %+v, %v", n, got, err)
		}
		if len(n.String()) > MaxName {
			t.Errorf("%v is longer than MaxName", n)
		}
		m, err := Open(n, b)
		if err != nil {
			t.Errorf("%v: %v", n, err)
			continue
		}
		if m.Header.Kind != n.Kind || m.Body.Kind() != n.Kind {
			t.Errorf("%v opened as %v", n, m.Header.Kind)
		}
		if h, err := Inspect(n, b); err != nil || h != m.Header {
			t.Errorf("Inspect(%v) = %+v, %v; Open says %+v", n, h, err, m.Header)
		}
	}
}

func TestAMessageIsWorthNothingElsewhere(t *testing.T) {
	msgs := testMessages(t)
	other := testKey("other")
	for n, b := range msgs {
		move := func(what string, f func(*Name)) {
			m := n
			f(&m)
			if m == n {
				return
			}
			if _, err := Open(m, b); !errors.Is(err, ErrMisplaced) && !errors.Is(err, ErrSize) {
				t.Errorf("%v with %s opened: %v", n, what, err)
			}
			if m.Slot != n.Slot {
				return // Inspect does not read bodies
			}
			if _, err := Inspect(m, b); !errors.Is(err, ErrMisplaced) && !errors.Is(err, ErrSize) {
				t.Errorf("%v with %s passed Inspect: %v", n, what, err)
			}
		}
		if n.Kind != KindCard { // an operator is the same in every network
			move("another network", func(m *Name) { m.Network = "jellyfin" })
		}
		if n.Topic != "" {
			move("another topic", func(m *Name) { m.Topic = "livepeer" })
		}
		move("another operator", func(m *Name) { m.Operator = testFeed("sshd", other, other).Operator })
		if n.OfNode() {
			move("another node", func(m *Name) { m.Node = testFeed("sshd", other, other).Node })
		}
		for k := KindHead; k <= KindInvitation; k++ {
			move("another kind", func(m *Name) { m.Kind = k })
		}
		if n.Kind == KindChunk || n.Kind == KindSegment {
			move("another slot", func(m *Name) { m.Slot++ })
		}
	}
}

func TestEveryFlippedBitIsRefused(t *testing.T) {
	for n, b := range testMessages(t) {
		for i := range b {
			for bit := range 8 {
				bad := bytes.Clone(b)
				bad[i] ^= 1 << bit
				if _, err := Open(n, bad); err == nil {
					t.Fatalf("%v opened with bit %d of byte %d flipped", n, bit, i)
				}
			}
		}
	}
}

func TestBadPayloadsAreRefusedByName(t *testing.T) {
	msgs := testMessages(t)
	for n, b := range msgs {
		for i := range b {
			if _, err := Open(n, b[:i]); err == nil {
				t.Fatalf("%v opened when cut to %d bytes", n, i)
			}
		}
		_, body, _ := InspectBody(n, b)
		h, _, _ := InspectBody(n, b)
		longer := ErrSignature
		if n.Kind == KindHead {
			longer = ErrFormat // a state may stand behind a head, but not any bytes
		}
		for name, c := range map[string]struct {
			payload []byte
			want    error
		}{
			"empty":          {nil, ErrSize},
			"too large":      {append(bytes.Clone(b), make([]byte, MaxPayload)...), ErrSize},
			"longer":         {append(bytes.Clone(b), 0), longer},
			"unsigned":       {append(make([]byte, 64), b[64:]...), ErrSignature},
			"another signer": {resign(testKey("thief"), h, body), ErrSignature},
			"other magic":    {append(append(bytes.Clone(b[:64]), "XXXX"...), b[68:]...), ErrFormat},
			"other version":  {append(append(bytes.Clone(b[:68]), 2), b[69:]...), ErrFormat},
		} {
			if _, err := Open(n, c.payload); !errors.Is(err, c.want) {
				t.Errorf("%v, %s: %v, want %v", n, name, err, c.want)
			}
		}
	}
}

// resign signs with a key that is not the one that the header names.
func resign(k ed25519.PrivateKey, h Header, body []byte) []byte {
	b := Seal(k, h, body)
	text := append(appendHeader(nil, h), body...)
	return append(bytes.Clone(b[:64]), text...)
}

func TestABodyHasOneEncoding(t *testing.T) {
	for name, body := range map[string][]byte{
		"long uvarint":         {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0},
		"repeated target":      append(make([]byte, 36), 2, byte(ban.KindAddr4), 2, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0),
		"base above the least": append(make([]byte, 36), 1, byte(ban.KindAddr4), 1, 5, 0, 0, 0, 0, 1, 1, 0, 0, 0),
		"unused pair":          append(make([]byte, 36), 1, byte(ban.KindAddr4), 1, 5, 0, 0, 0, 0, 0, 2, 0, 0, 1, 1, 0, 0),
		"unmasked prefix":      append(make([]byte, 36), 0, 1, byte(ban.KindCIDR4), 1, 192, 0, 2, 1, 24),
		"prefix of full width": append(make([]byte, 36), 0, 1, byte(ban.KindCIDR4), 1, 192, 0, 2, 1, 32),
		"mapped address":       append(make([]byte, 36), 0, 1, byte(ban.KindAddr6), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4),
		"zero wallet":          append(append(make([]byte, 36), 0, 1, byte(ban.KindWallet), 1), make([]byte, 20)...),
		"unknown kind":         append(make([]byte, 36), 0, 1, 99, 1, 1),
		"empty group":          append(make([]byte, 36), 0, 1, byte(ban.KindAddr4), 0),
		"no reason":            append(make([]byte, 36), 0, 1, byte(ban.KindAddr4), 1, 5),
		"equal reasons apart":  append(make([]byte, 36), 0, 2, byte(ban.KindAddr4), 2, 5, 1, 255, 1, 1),
		"reason out of range":  append(make([]byte, 36), 0, 2, byte(ban.KindAddr4), 2, 5, 1, 255, 1, 255),
	} {
		d := &Decoder{B: body}
		delta := decodeDelta(d)
		if err := d.End(); err == nil && bytes.Equal(delta.Append(nil), body) {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestColumnsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		up, other := genEntries(t, "up"), genEntries(t, "down")
		var down []Withdrawal
		reason := rapid.Uint8Range(0, uint8(ban.MaxReason))
		for _, e := range other {
			down = append(down, Withdrawal{e.Key, ban.Reason(reason.Draw(t, "reason"))})
		}
		want := &Delta{GC: 5, Up: up, Down: down}
		d := &Decoder{B: want.Append(nil)}
		got := decodeDelta(d)
		if err := d.End(); err != nil {
			t.Fatal(err)
		}
		for i := range up {
			up[i].Said = 0
		}
		if len(got.Up) != len(up) || len(got.Down) != len(down) {
			t.Fatalf("%d up and %d down, want %d and %d", len(got.Up), len(got.Down), len(up), len(down))
		}
		for i := range up {
			if got.Up[i] != up[i] {
				t.Fatalf("entry %d: %+v, want %+v", i, got.Up[i], up[i])
			}
			if c := up[i].Claim(); EntryOf(c).Meta != up[i].Meta || ban.KeyOf(c.Target) != up[i].Key {
				t.Fatalf("claim %+v is not entry %+v", c, up[i])
			}
		}
		for i := range down {
			if got.Down[i] != down[i] {
				t.Fatalf("key %d: %+v, want %+v", i, got.Down[i], down[i])
			}
		}
	})
}

func TestAnyNumberOfPairsOfClassAndHitsReadsBack(t *testing.T) {
	for _, n := range []int{1, 2, 15, 16, 17, 255, 256, 257, 1000} {
		var es []Entry
		for i := range n {
			es = append(es, Entry{Key: ban.KeyOf(ban.MustTarget(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())), End: uint32(i), Meta: Meta{byte(i >> 8), byte(i)}})
		}
		b := AppendEntries(nil, es)
		d := &Decoder{B: b}
		got := d.Entries(MaxMessageClaims)
		if err := d.End(); err != nil || len(got) != n {
			t.Fatalf("%d entries: %d read back, %v", n, len(got), err)
		}
		for i := range es {
			if got[i] != es[i] {
				t.Fatalf("%d entries: entry %d is %+v, want %+v", n, i, got[i], es[i])
			}
		}
	}
}

func TestOnlyTheOneSpellingIsAName(t *testing.T) {
	for n := range testMessages(t) {
		s := n.String()
		for _, bad := range []string{
			s + "/", "/" + s, strings.ToUpper(s), s + "/0", strings.Replace(s, "/", "//", 1), strings.Replace(s, "banmesh/1", "banmesh/2", 1),
			strings.Replace(s, "livepeer", "+", 1), strings.Replace(s, "livepeer", "live peer", 1), s[:len(s)-1] + "#", s[:len(s)-1], "", strings.Repeat("a/", 30000),
			s[:strings.LastIndexByte(s, '/')+1] + "07", s[:strings.LastIndexByte(s, '/')+1] + "-1", s[:strings.LastIndexByte(s, '/')+1] + "99999",
		} {
			if got, err := ParseTopicName(bad); err == nil && got.String() != bad {
				t.Errorf("%.200q is %+v", bad, got)
			} else if err != nil && (!errors.Is(err, ErrName) || len(err.Error()) > 600) {
				t.Errorf("%.200q: %v", bad, err)
			}
		}
	}
	if _, err := ParseTopicName("banmesh/1/livepeer/operators/" + testFeed("a", testKey("a"), testKey("b")).Operator.String() + "/" + testFeed("a", testKey("a"), testKey("b")).Node.String() + "/head"); err == nil {
		t.Error("a topic is called operators")
	}
}

func TestACardSaysWhoSpeaksForTheOperator(t *testing.T) {
	root, a, b := testKey("root"), testKey("a"), testKey("b")
	card := &Card{Serial: 1, Issued: testTime, Certificates: []Certificate{
		{Key: publicOf(a), NotBefore: testTime, NotAfter: testTime.Add(24 * time.Hour)},
		{Key: publicOf(b), NotBefore: testTime, NotAfter: testTime.Add(48 * time.Hour)},
	}, Revocations: []Revocation{{Node: testFeed("", root, b).Node, Since: testTime.Add(time.Hour)}}}
	raw, err := card.Sign(root)
	if err != nil {
		t.Fatal(err)
	}
	if card, err = OpenCard(raw); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		key  ed25519.PrivateKey
		at   time.Duration
		want error
	}{
		{"certified", a, time.Minute, nil},
		{"before its time", a, -time.Minute, ErrExpired},
		{"after its time", a, 25 * time.Hour, ErrExpired},
		{"revoked, dated back", b, 59 * time.Minute, ErrRevoked},
		{"revoked", b, time.Hour, ErrRevoked},
		{"of nobody", testKey("c"), time.Minute, ErrUncertified},
	} {
		if err := card.Certifies(publicOf(c.key), testTime.Add(c.at)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	if n := card.Nodes(testTime.Add(2 * time.Hour)); len(n) != 1 || n[0] != testFeed("", root, a).Node {
		t.Errorf("nodes %v", n)
	}
	long := &Card{Issued: testTime, Certificates: []Certificate{{Key: publicOf(a), NotBefore: testTime, NotAfter: testTime.Add(MaxCertificate + time.Second)}}}
	if _, err := long.Sign(root); err == nil {
		t.Error("a certificate for more than 90 days was signed")
	}
	if _, err := (&Card{Issued: testTime, Name: "al\x1b[31mice"}).Sign(root); err == nil {
		t.Error("a name that steers terminals was signed")
	}
}

func TestALoginProvesAKeyToOneBroker(t *testing.T) {
	root, node := testKey("root"), testKey("node")
	f := testFeed("", root, node)
	pass := LoginPassword(node, f.Operator, "broker.example.org", testTime.Add(5*time.Minute))
	ours := func(name string) bool { return name == "broker.example.org" }
	l, err := VerifyLogin(f.Node.String(), f.Operator.String(), pass, ours, testTime)
	if err != nil || l.Node != f.Node || l.Operator != f.Operator || l.Key != publicOf(node) {
		t.Fatalf("%+v, %v", l, err)
	}
	theirs := func(name string) bool { return name == "other.example.org" }
	other := testFeed("", testKey("x"), testKey("y"))
	for name, err := range map[string]error{
		"another broker":   second(VerifyLogin(f.Node.String(), f.Operator.String(), pass, theirs, testTime)),
		"another client":   second(VerifyLogin(other.Node.String(), f.Operator.String(), pass, ours, testTime)),
		"another operator": second(VerifyLogin(f.Node.String(), other.Operator.String(), pass, ours, testTime)),
		"expired":          second(VerifyLogin(f.Node.String(), f.Operator.String(), pass, ours, testTime.Add(6*time.Minute))),
		"too long a life":  second(VerifyLogin(f.Node.String(), f.Operator.String(), pass, ours, testTime.Add(-time.Hour))),
		"changed":          second(VerifyLogin(f.Node.String(), f.Operator.String(), "A"+pass[1:], ours, testTime)),
		"empty":            second(VerifyLogin(f.Node.String(), f.Operator.String(), "", ours, testTime)),
		"huge":             second(VerifyLogin(f.Node.String(), f.Operator.String(), strings.Repeat("A", 1<<16), ours, testTime)),
	} {
		if !errors.Is(err, ErrLogin) {
			t.Errorf("%s: %v, want ErrLogin", name, err)
		}
	}
}

func second(_ Login, err error) error { return err }

func TestAnInvitationIsSignedShortAndEnds(t *testing.T) {
	root := testKey("root")
	v := &Invitation{
		Network: "livepeer", Issued: testTime, Expires: testTime.Add(24 * time.Hour), Note: "Welcome", Brokers: []string{"ssl://broker.example.org:8883"},
		Topics: []ban.Topic{"sshd"}, Trusted: []Trusted{{Operator: ban.OperatorOf([]byte("bob")), Weight: 50, Name: "bob"}},
	}
	text, err := v.Sign(root)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseInvitation(text+"\n", testTime)
	if err != nil || got.Network != "livepeer" || got.Brokers[0] != v.Brokers[0] || got.Trusted[0] != v.Trusted[0] {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := ParseInvitation(text, testTime.Add(25*time.Hour)); !errors.Is(err, ErrInvitationExpired) {
		t.Errorf("an old invitation: %v", err)
	}
	for i := len(InvitationPrefix); i < len(text); i++ {
		bad := []byte(text)
		bad[i] = map[bool]byte{true: 'B', false: 'A'}[bad[i] == 'A']
		if _, err := ParseInvitation(string(bad), testTime); err == nil {
			t.Fatalf("character %d can be changed", i)
		}
	}
}
