package broker

import (
	"testing"

	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// The cost of admission, once a publication, however many receive it.
func BenchmarkAdmitAHead(b *testing.B) {
	a := newAuthor("alice")
	br, err := New(Options{Network: "net", Anonymous: AccessFull, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}})
	if err != nil {
		b.Fatal(err)
	}
	defer br.Close()
	_, card := a.card(b, 1)
	opened, err := wire.OpenCard([]byte(card))
	if err != nil {
		b.Fatal(err)
	}
	br.admission.learn(opened)
	who := identity{method: "anonymous", access: AccessFull}
	topic, head := a.head(1)
	payload := []byte(head)
	b.ReportAllocs()
	for b.Loop() {
		if _, why := br.admission.admit(who, topic, payload, 1, true, a.now); why != admitted {
			b.Fatal(why)
		}
	}
}

// The publisher's cost of one delivery: the rest is system calls.
func BenchmarkFindAndEncodeForAThousand(b *testing.B) {
	var x index
	const n = 1000
	for range n {
		x.subscribe(&session{clean: true, subs: map[string]subscription{}}, "banmesh/1/net/sshd/+/+/head", 1)
	}
	a := newAuthor("alice")
	topic, head := a.head(1)
	m := &retained.Message{Topic: topic, Payload: []byte(head)}
	out := make([]byte, 0, 1<<20)
	for b.Loop() {
		f := encode(m.Topic, m.Payload, 1, false)
		out = out[:0]
		for _, to := range x.audience(topic) {
			out = append(out, f.as(to.qos).bytes...)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/delivery")
}
