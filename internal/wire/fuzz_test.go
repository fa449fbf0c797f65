package wire

import (
	"bytes"
	"runtime"
	"testing"

	"banmesh/internal/ban"
)

// fuzzBody signs arbitrary bodies, so that the fuzzer gets past the signature.
func fuzzBody(f *testing.F, kind Kind) {
	for n, b := range testMessages(f) {
		if n.Kind == kind {
			_, body, err := InspectBody(n, b)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(body)
		}
	}
	root, node := testKey("root"), testKey("node")
	feed := testFeed("sshd", root, node)
	f.Fuzz(func(t *testing.T, body []byte) {
		h := Header{Kind: kind, Operator: feed.Operator, Signer: publicOf(root), Issued: testTime}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := decodeBody(h, body)
		runtime.ReadMemStats(&after)
		// Whatever the bytes announce, memory is linear in the bytes received.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 256<<10+200*uint64(len(body)) {
			t.Fatalf("%d bytes made the decoder allocate %d", len(body), grown)
		}
		if err != nil {
			return
		}
		if again := got.Append(nil); !bytes.Equal(again, body) {
			t.Fatalf("%x reads back as %x", body, again)
		}
		m := &Message{Header: h, Body: got}
		m.Describe()
	})
}

func FuzzHead(f *testing.F)       { fuzzBody(f, KindHead) }
func FuzzDelta(f *testing.F)      { fuzzBody(f, KindDelta) }
func FuzzSegment(f *testing.F)    { fuzzBody(f, KindSegment) }
func FuzzChunk(f *testing.F)      { fuzzBody(f, KindChunk) }
func FuzzManifest(f *testing.F)   { fuzzBody(f, KindManifest) }
func FuzzCard(f *testing.F)       { fuzzBody(f, KindCard) }
func FuzzTrust(f *testing.F)      { fuzzBody(f, KindTrust) }
func FuzzInvitation(f *testing.F) { fuzzBody(f, KindInvitation) }
func FuzzDispute(f *testing.F)    { fuzzBody(f, KindDispute) }
func FuzzList(f *testing.F)       { fuzzBody(f, KindList) }
func FuzzDefinition(f *testing.F) { fuzzBody(f, KindDefinition) }

func FuzzEnvelope(f *testing.F) {
	for n, b := range testMessages(f) {
		f.Add(n.String(), b)
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		n, err := ParseTopicName(topic)
		if err != nil {
			return
		}
		if n.String() != topic {
			t.Fatalf("%q is spelled %q", topic, n)
		}
		m, err := Open(n, payload)
		if err == nil && (m.Header.Operator != n.Operator || n.OfNode() && m.Header.Node() != n.Node || n.Kind != KindCard && m.Header.Network != n.Network) {
			t.Fatalf("%q opened a message of another place", topic)
		}
		if _, inspected := Inspect(n, payload); err == nil && inspected != nil {
			t.Fatal("Open accepts what Inspect refuses")
		}
	})
}

func FuzzLogin(f *testing.F) {
	node := testKey("node")
	o := ban.OperatorOf([]byte("x"))
	pass := LoginPassword(node, o, "b", testTime)
	f.Add(testFeed("", node, node).Node.String(), o.String(), pass)
	f.Fuzz(func(t *testing.T, client, user, password string) {
		l, err := VerifyLogin(client, user, password, nil, testTime)
		if err == nil && (l.Node.String() != client || l.Operator.String() != user) {
			t.Fatal("a login for somebody else")
		}
	})
}
