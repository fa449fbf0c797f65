package client

import (
	"encoding/base64"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
)

func mustTarget(t testing.TB, s string) target {
	t.Helper()
	v, err := parseTarget(s)
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return v
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
		k := key{anyPrefix(), fmt.Sprint(random.IntN(2))}
		u := update{target{prefix: k.prefix}, record{until: int64(random.IntN(100)), label: &label{topic: k.topic}}}
		// Few bans at a time, or everything is banned always.
		if len(model) > 6 || random.IntN(3) == 0 {
			for k = range model {
				break
			}
			u = update{target{prefix: k.prefix}, record{label: &label{topic: k.topic}}}
			b.apply(nil, []update{u}, false)
			delete(model, k)
		} else {
			b.apply([]update{u}, nil, round%2 == 0)
			model[k] = u.record.until
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
	always := mustTarget(t, "192.0.2.7")
	b.apply([]update{{always, record{until: 100, label: &label{topic: "a"}}}}, nil, true)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		readers.Go(func() {
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
		})
	}
	for i := range 20_000 {
		u := update{always, record{until: int64(100 + i), label: &label{topic: "b"}}}
		if i%2 == 0 {
			b.apply([]update{u}, nil, false)
		} else {
			b.apply(nil, []update{u}, false)
		}
	}
	close(stop)
	readers.Wait()
}

func TestWhatIsNoTargetIsRefused(t *testing.T) {
	for _, s := range []string{"", "x", "0x12", "0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaeg", "1.2.3.4/33", "::ffff:1.2.3.4/95", "fe80::1%eth0"} {
		if got, err := parseTarget(s); err == nil {
			t.Errorf("parseTarget(%q) = %v", s, got)
		}
	}
	if got := mustTarget(t, "::ffff:192.0.2.77/120"); got.prefix.String() != "192.0.2.0/24" {
		t.Errorf("IPv4 in IPv6 is %v", got.prefix)
	}
}

func TestALineThatMakesNoSenseEndsTheConnection(t *testing.T) {
	const snapshot = `{"type":"snapshot","run":"r","serial":3,"bans":[{"target":"192.0.2.7","topic":"a","until":9}]}`
	for claim, lines := range map[string][]string{
		"no JSON":                        {`x`},
		"a change before a snapshot":     {`{"type":"change","serial":1}`},
		"a change in a snapshot":         {`{"type":"snapshot","more":true}`, `{"type":"change","serial":1}`},
		"a resumption of another run":    {snapshot, `{"type":"resumed","run":"x","serial":3}`},
		"a resumption at another serial": {snapshot, `{"type":"resumed","run":"r","serial":4}`},
		"a ban of no target":             {snapshot, `{"type":"change","serial":4,"bans":[{"target":"x"}]}`},
		"a lift of no target":            {snapshot, `{"type":"change","serial":4,"lifted":[{"target":"x"}]}`},
	} {
		f := testFollower()
		var err error
		for _, l := range lines {
			_, err = f.take([]byte(l))
		}
		if err == nil {
			t.Errorf("%s is accepted", claim)
		}
	}
	f := testFollower()
	for _, l := range []string{snapshot, `{"type":"of a later version","x":1}`, `{"type":"change","serial":4,"lifted":[{"target":"192.0.2.7","topic":"a"}]}`} {
		if _, err := f.take([]byte(l)); err != nil {
			t.Errorf("%s: %v", l, err)
		}
	}
	if f.serial != 4 || f.c.bans.Load().len() != 0 {
		t.Errorf("at %d with %d bans", f.serial, f.c.bans.Load().len())
	}
}

// testFollower follows nobody.
func testFollower() *follower {
	c := &Client{log: slog.New(slog.DiscardHandler), ready: make(chan struct{}), listeners: map[int]func(Change){}}
	c.bans.Store(newBans())
	return &follower{c: c, labels: map[label]*label{}}
}

func FuzzAStreamNeverHalfApplies(f *testing.F) {
	f.Add(`{"type":"snapshot","run":"r","serial":3,"bans":[{"target":"192.0.2.7","topic":"a","until":9}]}`)
	f.Add(`{"type":"change","serial":4,"bans":[{"target":"2001:db8::/33"},{"target":"x"}],"lifted":[{"target":"192.0.2.7","topic":"a"}]}`)
	f.Add(`{"type":"snapshot","more":true,"bans":[{"target":"0x5aaeb6053f3e94c9b9a09f33669435e7ef1beaed"}]}`)
	f.Fuzz(func(t *testing.T, l string) {
		fo := testFollower()
		if _, err := fo.take([]byte(`{"type":"snapshot","run":"r","serial":1,"bans":[{"target":"192.0.2.7","topic":"a","until":9}]}`)); err != nil {
			t.Fatal(err)
		}
		_, err := fo.take([]byte(l))
		if err != nil && (fo.c.bans.Load().len() != 1 || fo.serial != 1) {
			t.Fatalf("%q failed with %v and left %d bans", l, err, fo.c.bans.Load().len())
		}
		if got := len(fo.c.bans.Load().all()); got != fo.c.bans.Load().len() {
			t.Fatalf("%d bans, counted as %d", got, fo.c.bans.Load().len())
		}
	})
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
func million(b *testing.B) *Client {
	b.Helper()
	c := &Client{}
	c.bans.Store(newBans())
	c.clock.Store(1)
	random := rand.New(rand.NewPCG(5, 6))
	for range 1000 {
		var set []update
		for range 1000 {
			v := random.Uint32()
			set = append(set, update{target{prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)}), 32)}, record{until: 9, label: &label{topic: "sshd"}}})
			var w target
			for i := range w.wallet {
				w.wallet[i] = byte(random.Uint32())
			}
			set = append(set, update{w, record{until: 9, label: &label{topic: "broadcaster-addresses"}}})
		}
		c.bans.Load().apply(set, nil, true)
	}
	// As a real list has beside single addresses.
	c.bans.Load().apply([]update{
		{mustTarget(b, "192.0.2.0/24"), record{until: 9, label: &label{}}}, {mustTarget(b, "198.18.0.0/15"), record{until: 9, label: &label{}}}, {mustTarget(b, "2001:db8::/64"), record{until: 9, label: &label{}}},
	}, nil, true)
	return c
}

func BenchmarkCheckInAMillion(b *testing.B) {
	c := million(b)
	const asked = 1 << 12
	random := rand.New(rand.NewPCG(7, 8))
	var addrs [asked]netip.Addr
	var wallets [asked][20]byte
	for i := range asked {
		v := random.Uint32()
		addrs[i] = netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
		for j := range wallets[i] {
			wallets[i][j] = byte(random.Uint32())
		}
	}
	six := netip.MustParseAddr("2001:db8:1::1")
	found := 0
	b.Run("IPv4", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if c.IP(addrs[i%asked]) {
				found++
			}
		}
	})
	b.Run("IPv6", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if c.IP(six) {
				found++
			}
		}
	})
	b.Run("Wallet", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if c.Wallet(wallets[i%asked]) {
				found++
			}
		}
	})
}
