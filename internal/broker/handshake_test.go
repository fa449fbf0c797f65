package broker

import (
	"crypto/tls"
	"net/netip"
	"testing"
	"time"
)

// Beyond the limit a handshake is refused before the server signs anything,
// on every encrypted transport; plain clients are served.
func TestHandshakesAreLimited(t *testing.T) {
	t.Parallel()
	server := &tls.Config{Certificates: []tls.Certificate{selfSigned(t, "broker.example", nil)}}
	for _, kind := range []Kind{TLS, SecureWS} {
		b := start(t, Options{
			Network: "net", Anonymous: AccessFull, Limits: Limits{HandshakeRate: 0.001, HandshakeBurst: 2},
			Listeners: []Listener{{Kind: kind, Address: "127.0.0.1:0", TLS: server}, {Kind: TCP, Address: "127.0.0.1:0"}},
		})
		for i := range 4 {
			nc, err := tls.Dial("tcp", b.Addr().String(), &tls.Config{InsecureSkipVerify: true})
			if (err == nil) != (i < 2) {
				t.Errorf("%s: handshake %d: %v", kind, i, err)
			}
			if err == nil {
				defer nc.Close()
			}
		}
		eventually(t, "both are counted", func() bool { return b.Status().TurnedAway["too many handshakes"] == 2 })
	}
}

func TestAnAddressMakesItsShareOfHandshakes(t *testing.T) {
	t.Parallel()
	w, now := newPerIPLimit(), time.Now()
	l := Limits{}.defaults()
	try := func(a string) bool {
		_, ok := w.hello(netip.MustParseAddr(a), now, &l, 0)
		return ok
	}
	for i := range 2*l.PerAddress + 1 {
		if ok := try("192.0.2.1"); ok != (i < 2*l.PerAddress) {
			t.Fatalf("handshake %d of one address: %v", i, ok)
		}
	}
	if !try("198.51.100.1") {
		t.Error("another address is refused")
	}
	if now = now.Add(time.Second); !try("192.0.2.1") {
		t.Error("its share of a second does not come back")
	}
	// All together, from addresses enough.
	taken := 0
	for i := range 2000 {
		if try(netip.AddrFrom4([4]byte{203, byte(i >> 8), byte(i), 1}).String()) {
			taken++
		}
	}
	if taken > l.HandshakeBurst {
		t.Errorf("%d handshakes at once, %d are the limit", taken, l.HandshakeBurst)
	}
}
