package nft

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"banmesh/internal/firewall"
)

func FuzzKernelMessagesAreReadWithoutPanic(f *testing.F) {
	var seq uint32
	t := transaction{writer: writer{seq: &seq}}
	t.begin()
	want := build(firewall.Config{Scopes: []firewall.Scope{{Topic: "a", Ports: []uint16{1}, Protocols: []string{"tcp"}, Remember: time.Hour, MaxConnections: 2}}}, nil, true, true, features{mapGate: true}, false)
	if err := want.encode(&t, "banmesh", nil); err != nil {
		f.Fatal(err)
	}
	for m, rest, ok := nextMessage(t.b); ok; m, rest, ok = nextMessage(rest) {
		f.Add(m.body)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := binary.NativeEndian.AppendUint32(nil, uint32(headerSize+len(b)))
		whole = append(append(whole, make([]byte, 12)...), b...)
		m, _, ok := nextMessage(whole)
		if !ok || !bytes.Equal(m.body, b) {
			t.Fatal("the message was not cut as it was joined")
		}
		_ = m.asError()
		m.flags = 0x200
		_ = m.asError()
		readSet(m.attrs())
		readChain(m.attrs())
		readElement(m.attrs())
		readSocket(m.body)
		canonicalRead(find(m.attrs(), unix.NFTA_RULE_EXPRESSIONS))
	})
}
