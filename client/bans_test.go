package client

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

func mustKey(t testing.TB, s string) key {
	t.Helper()
	p, err := netip.ParsePrefix(s)
	if err != nil {
		t.Fatal(err)
	}
	return keyOfPrefix(p)
}

// TestTheTablesAgreeWithASimpleModel makes and lifts bans at random and
// compares each answer with a search through a list.
func TestTheTablesAgreeWithASimpleModel(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	type key struct {
		prefix netip.Prefix
		topic  string
	}
	model := map[key]int64{}
	b := newBans()
	anyPrefix := func() netip.Prefix {
		if random.IntN(2) == 0 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(random.IntN(64))})
			return netip.PrefixFrom(a, []int{0, 8, 24, 28, 31, 32}[random.IntN(6)]).Masked()
		}
		a := netip.AddrFrom16([16]byte{0x20, 1, 5: byte(random.IntN(2)), 7: byte(random.IntN(2)), 8: byte(random.IntN(2) << 7), 15: byte(random.IntN(8))})
		return netip.PrefixFrom(a, []int{1, 48, 63, 64, 65, 127, 128}[random.IntN(7)]).Masked()
	}
	for round := range 4000 {
		if round%100 == 99 {
			b = loaded(t, b) // as if a snapshot had come
		}
		k := key{anyPrefix(), fmt.Sprint(random.IntN(2))}
		u := update{keyOfPrefix(k.prefix), uint32(random.IntN(100)), label{topic: k.topic, class: fmt.Sprint(random.IntN(2))}}
		// Few bans at a time, or everything is banned always.
		if len(model) > 6 || random.IntN(3) == 0 {
			for k = range model {
				break
			}
			u = update{key: keyOfPrefix(k.prefix), label: label{topic: k.topic}}
			apply(t, b, nil, []update{u})
			delete(model, k)
		} else {
			apply(t, b, []update{u}, nil)
			model[k] = int64(u.until)
		}
		asked, now := anyPrefix().Addr(), int64(random.IntN(100))
		want := 0
		for k, until := range model {
			if k.prefix.Contains(asked) && until > now {
				want++
			}
		}
		var got []Ban
		if b.ip(asked, now, &got) != (want > 0) || len(got) != want || b.ip(asked, now, nil) != (want > 0) || b.len() != len(model) {
			t.Fatalf("%s at %d: %v of %d, want %d of %v", asked, now, got, b.len(), want, model)
		}
	}
}

func TestReadersSeeOldOrNewWhileAWriterWrites(t *testing.T) {
	b := newBans()
	always := mustKey(t, "192.0.2.7/32")
	apply(t, b, []update{{always, 100, label{topic: "a"}}}, nil)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Add(1)
		go func() {
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				if !b.ip(netip.MustParseAddr("192.0.2.7"), 1, nil) {
					t.Error("a ban was away while another changed")
					return
				}
			}
		}()
	}
	for i := range 20_000 {
		u := update{always, uint32(100 + i), label{topic: "b"}}
		if i%2 == 0 {
			apply(t, b, []update{u}, nil)
		} else {
			apply(t, b, nil, []update{u})
		}
	}
	close(stop)
	readers.Wait()
}

// apply is [bans.apply] without a fault.
func apply(t testing.TB, b *bans, set, lift []update) {
	t.Helper()
	if err := b.apply(set, lift); err != nil {
		t.Fatal(err)
	}
}

// loaded gives the same bans as a snapshot of them would.
func loaded(t testing.TB, b *bans) *bans {
	t.Helper()
	next := newBans()
	b.records(func(k key, tail []byte) {
		l := (*b.labels.Load())[binary.BigEndian.Uint16(tail[4:])]
		if err := next.load(update{k, binary.BigEndian.Uint32(tail), l}); err != nil {
			t.Fatal(err)
		}
	})
	next.finish()
	if next.len() != b.len() {
		t.Fatalf("loaded %d of %d", next.len(), b.len())
	}
	return next
}

func TestASnapshotThatNamesABanTwiceHasItOnce(t *testing.T) {
	b := newBans()
	k := mustKey(t, "192.0.2.7/32")
	for _, u := range []update{{k, 5, label{topic: "a", class: "x"}}, {k, 9, label{topic: "a", class: "y"}}, {k, 7, label{topic: "b"}}} {
		if err := b.load(u); err != nil {
			t.Fatal(err)
		}
	}
	b.finish()
	var got []Ban
	if b.ip(netip.MustParseAddr("192.0.2.7"), 1, &got); b.len() != 2 || len(got) != 2 || got[0].Until.Unix() != 9 {
		t.Errorf("%d bans: %v", b.len(), got)
	}
}

func TestAFrameThatMakesNoSenseEndsTheConnection(t *testing.T) {
	one := update{mustKey(t, "192.0.2.7/32"), 9, label{topic: "a"}}
	snapshot := frame{kind: frameSnapshot, run: "r", serial: 3, set: []update{one}}
	for claim, frames := range map[string][]frame{
		"a change before a snapshot":     {{kind: frameChange, serial: 1}},
		"a change in a snapshot":         {{kind: frameSnapshot, more: true}, {kind: frameChange, serial: 1}},
		"a resumption of another run":    {snapshot, {kind: frameResumed, run: "x", serial: 3}},
		"a resumption at another serial": {snapshot, {kind: frameResumed, run: "r", serial: 4}},
	} {
		f := testFollower()
		var err error
		for _, x := range frames {
			_, err = f.take(x)
		}
		if !errors.Is(err, errFrame) {
			t.Errorf("%s: %v", claim, err)
		}
	}
	f := testFollower()
	for _, x := range []frame{snapshot, {kind: 'Z'}, {kind: frameChange, serial: 4, lift: []update{one}}} {
		if _, err := f.take(x); err != nil {
			t.Errorf("%q: %v", x.kind, err)
		}
	}
	if f.serial != 4 || f.c.bans.Load().len() != 0 {
		t.Errorf("at %d with %d bans", f.serial, f.c.bans.Load().len())
	}
}

func testFollower() *follower {
	c := &Client{log: slog.New(slog.DiscardHandler), ready: make(chan struct{})}
	c.bans.Store(newBans())
	return &follower{c: c}
}

// body gives the content of a snapshot's frame of a target's bytes.
func body(target ...byte) []byte {
	b := append(make([]byte, 8), 0, 1, 'r', 0, 0, 0, 1, 1, 'a', 0, 0, 0, 0, 0, 1)
	return append(append(b, target...), 0, 0, 0, 9, 0, 0, 0, 0, 0, 0)
}

func TestAFrameIsReadStrictly(t *testing.T) {
	for claim, b := range map[string][]byte{
		"an address":    body(4, 192, 0, 2, 7),
		"a prefix":      body(5, 24, 192, 0, 2, 0),
		"an IPv6 /64":   body(append([]byte{7, 64, 0x20, 1}, make([]byte, 14)...)...),
		"a wallet":      body(append([]byte{8}, make([]byte, 20)...)...),
		"a zero prefix": body(5, 0, 0, 0, 0, 0),
	} {
		if f, err := parseFrame(frameSnapshot, b); err != nil || len(f.set) != 1 || f.run != "r" || f.set[0].label.topic != "a" {
			t.Errorf("%s: %+v, %v", claim, f, err)
		}
		for n := range b {
			if _, err := parseFrame(frameSnapshot, b[:n]); err == nil {
				t.Errorf("%s, cut at %d, is read", claim, n)
			}
		}
		if _, err := parseFrame(frameSnapshot, append(b[:len(b):len(b)], 0)); err == nil {
			t.Errorf("%s with a byte behind it is read", claim)
		}
	}
	for claim, target := range map[string][]byte{
		"no kind":                       {1, 192, 0, 2, 7},
		"a /32 as a prefix":             {5, 32, 192, 0, 2, 7},
		"a prefix with bits behind it":  {5, 24, 192, 0, 2, 7},
		"a prefix longer than possible": {5, 33, 192, 0, 2, 7},
	} {
		if _, err := parseFrame(frameSnapshot, body(target...)); err == nil {
			t.Errorf("%s is read", claim)
		}
	}
}

func FuzzAFrameNeverHalfApplies(f *testing.F) {
	f.Add(byte(frameSnapshot), body(4, 192, 0, 2, 7))
	f.Add(byte(frameChange), body(5, 24, 192, 0, 2, 0))
	f.Add(byte('Z'), []byte("later"))
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		x, err := parseFrame(kind, b)
		if err != nil {
			if len(x.set)+len(x.lift) > 0 {
				t.Fatalf("%x gives %+v beside %v", b, x, err)
			}
			return
		}
		w := testFollower()
		if _, err := w.take(frame{kind: frameSnapshot, run: "r"}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.take(x); err != nil {
			return
		}
		if w.next != nil {
			w.next.finish()
		}
		if got := len(w.c.bans.Load().all()); got != w.c.bans.Load().len() {
			t.Fatalf("%d bans are counted as %d", got, w.c.bans.Load().len())
		}
	})
}

// The examples of EIP-55.
func TestWalletsAreSpeltByEIP55(t *testing.T) {
	for _, want := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7", "0x8617E340B3D01FA5F11F306F4090FD50E238070D", "0xde709f2102306220921060314715629080e2fb77",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359", "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		raw, err := hex.DecodeString(strings.ToLower(want[2:]))
		if err != nil {
			t.Fatal(err)
		}
		if got := walletText([20]byte(raw)); got != want {
			t.Errorf("%s is spelt %s", want, got)
		}
	}
}

func TestOnlyWholeMessagesOfHandshakesAreEvidence(t *testing.T) {
	const at = "http: TLS handshake error from "
	for message, want := range map[string]string{
		at + "192.0.2.7:51234: tls: first record does not look like a TLS handshake\n": "192.0.2.7 scan",
		at + "[2001:db8::7]:51234: tls: unsupported SSLv2 handshake received\n":        "2001:db8::7 scan",
		at + "192.0.2.7:51234: client sent an HTTP request to an HTTPS server\n":       "",
		at + "192.0.2.7:51234: tls: client offered only unsupported versions: [301]\n": "192.0.2.7 scan-weak",
		at + "192.0.2.7:51234: EOF\n":                                                    "",
		at + "192.0.2.7:51234: remote error: tls: bad certificate\n":                     "",
		at + "192.0.2.7: tls: unsupported SSLv2 handshake received\n":                    "",
		"x\n" + at + "192.0.2.7:1: tls: unsupported SSLv2 handshake received\n":          "",
		"http: panic serving " + at + "192.0.2.7:1: client sent an HTTP request to an\n": "",
		at + "192.0.2.7:1: tls: unsupported SSLv2 handshake received, more\n":            "",
	} {
		peer, class, ok := readHandshake(message)
		got := ""
		if ok {
			got = peer.String() + " " + class
		}
		if got != want {
			t.Errorf("%q is %q, want %q", message, got, want)
		}
	}
}

func FuzzAPaymentHeaderIsReadOrRefused(f *testing.F) {
	sender := append([]byte{2<<3 | 2, 20}, make([]byte, 19)...)
	f.Add(base64.StdEncoding.EncodeToString(append(sender, 7)))
	f.Add(base64.StdEncoding.EncodeToString(append([]byte{1<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 3 << 3, 0xff, 1}, append(sender, 7)...)))
	f.Add("not base64")
	f.Fuzz(func(t *testing.T, header string) {
		w, ok := WalletFromPayment(header)
		if ok == (w == [20]byte{}) {
			t.Fatalf("%q gives %x, %v", header, w, ok)
		}
	})
}

func TestAPaymentHeaderIsReadStrictly(t *testing.T) {
	w := [20]byte{1, 2, 19: 3}
	sender := append([]byte{2<<3 | 2, 20}, w[:]...)
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	for claim, c := range map[string]struct {
		raw []byte
		ok  bool
	}{
		"the sender alone":           {sender, true},
		"behind fields of all types": {join([]byte{1 << 3, 0x96, 1, 3<<3 | 5, 1, 2, 3, 4, 4<<3 | 1, 1, 2, 3, 4, 5, 6, 7, 8, 6<<3 | 2, 1, 0}, sender), true},
		"the last of two":            {join([]byte{2<<3 | 2, 20}, make([]byte, 20), sender), true},
		"nothing":                    {nil, false},
		"another field":              {join([]byte{3<<3 | 2, 20}, w[:]), false},
		"the zero address":           {join([]byte{2<<3 | 2, 20}, make([]byte, 20)), false},
		"too short":                  {join([]byte{2<<3 | 2, 19}, w[:19]), false},
		"too long":                   {join([]byte{2<<3 | 2, 21}, w[:], []byte{0}), false},
		"cut off":                    {sender[:15], false},
		"cut off behind it":          {join(sender, []byte{3<<3 | 2, 5, 1}), false},
		"a number":                   {[]byte{2 << 3, 7}, false},
		"a group":                    {join([]byte{1<<3 | 3}, sender), false},
		"field zero":                 {join([]byte{0, 1}, sender), false},
	} {
		got, ok := WalletFromPayment(base64.StdEncoding.EncodeToString(c.raw))
		if ok != c.ok || ok && got != w {
			t.Errorf("%s: %x, %v", claim, got, ok)
		}
	}
}

// million fills tables with a million addresses and a million wallets.
// million gives a client of a million addresses and as many wallets.
func million(b *testing.B) *Client {
	b.Helper()
	c := &Client{}
	bans := newBans()
	var raw [20]byte
	for i := range 1_000_000 {
		binary.LittleEndian.PutUint64(raw[4:], uint64(i)*0x9e3779b97f4a7c15)
		w := key{b: raw, n: 20}
		a := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 7})
		for _, k := range []key{w, keyOfPrefix(netip.PrefixFrom(a, 32))} {
			if err := bans.load(update{k, 1 << 31, label{topic: "a"}}); err != nil {
				b.Fatal(err)
			}
		}
	}
	bans.finish()
	c.bans.Store(bans)
	return c
}

func BenchmarkCheckInAMillion(b *testing.B) {
	c := million(b)
	b.Run("nobody", func(b *testing.B) {
		a := netip.MustParseAddr("203.0.113.9")
		for b.Loop() {
			c.Banned(a)
		}
	})
	b.Run("banned", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			c.Banned(netip.AddrFrom4([4]byte{byte(i>>16) & 7, byte(i >> 8), byte(i), 7}))
		}
	})
}
