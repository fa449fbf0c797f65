package pairing

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a host with an operator's key and a joiner with a node's.
type pair struct {
	t      *testing.T
	root   ed25519.PrivateKey
	node   ed25519.PrivateKey
	code   Code
	offers atomic.Int32
	wrong  atomic.Int32
	at     string
	ended  chan struct{}
	joined *Joined
	err    error
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, code: NewCode(), ended: make(chan struct{})}
	for _, k := range []*ed25519.PrivateKey{&p.root, &p.node} {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		*k = key
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.at = l.Addr().String()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	h := &Host{Code: p.code, Offer: p.offer, Wrong: func(net.Addr, int) { p.wrong.Add(1) }}
	go func() {
		defer close(p.ended)
		p.joined, p.err = h.Serve(ctx, l)
	}()
	t.Cleanup(func() { cancel(); <-p.ended })
	return p
}

func (p *pair) offer(q Request) (Offer, error) {
	p.offers.Add(1)
	key, err := q.Key()
	if err != nil {
		return Offer{}, err
	}
	card := wire.NextCard(nil, time.Now())
	card.Certify(key, time.Now())
	raw, err := card.Sign(p.root)
	return Offer{
		Card: wire.CardText(raw), Network: "home", Brokers: []Broker{{URL: "ssl://:8883", Fingerprint: strings.Repeat("ab", 32)}},
		Accept: []ban.Topic{"sshd"}, Publish: []ban.Topic{"sshd"},
	}, err
}

// join goes to an address with a code, and gives the offer that was taken.
func (p *pair) join(at string, code Code) (got *Offer, err error) {
	j := &Joiner{Host: at, Code: code, Request: Request{Node: wire.SignRequest(p.node, time.Now())}, Now: time.Now, Take: func(o Offer, card *wire.Card) error {
		got = &o
		return nil
	}}
	err = j.Join(p.t.Context())
	return got, err
}

func TestTwoMachinesMeetOverACode(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	got, err := p.join(p.at, p.code)
	<-p.ended
	if err != nil || p.err != nil || !p.joined.Confirmed || p.joined.Node != ban.NodeOf(p.node.Public().(ed25519.PublicKey)) {
		t.Fatalf("joined: %v, %v, %+v", err, p.err, p.joined)
	}
	if got.Brokers[0].URL != "ssl://127.0.0.1:8883" || got.Network != "home" || len(got.Publish) != 1 {
		t.Errorf("handed over: %+v", got)
	}
	if _, err := p.join(p.at, p.code); err == nil {
		t.Error("a code is good twice")
	}
}

func TestThreeWrongCodesEndIt(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for n := range MaxWrong {
		code := NewCode()
		if _, err := p.join(p.at, code); !errors.Is(err, ErrCode) {
			t.Errorf("wrong code %d: %v", n+1, err)
		}
	}
	<-p.ended
	if !errors.Is(p.err, ErrTries) || p.offers.Load() != 0 || p.wrong.Load() != MaxWrong {
		t.Errorf("after three wrong codes: %v, %d offers, %d told", p.err, p.offers.Load(), p.wrong.Load())
	}
}

func TestTwoWrongCodesDoNotEndIt(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for range MaxWrong - 1 {
		if _, err := p.join(p.at, NewCode()); !errors.Is(err, ErrCode) {
			t.Error(err)
		}
	}
	if got, err := p.join(p.at, p.code); err != nil || got == nil {
		t.Errorf("the right code after two wrong ones: %v", err)
	}
}

// Whoever calls and never confirms, or says something else, has no guess and costs none.
func TestStrangersCostNoTry(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	for _, text := range []string{"", "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + strings.Repeat("x", 64), hello + strings.Repeat("\x00", sidSize+elementSize), hello + strings.Repeat("\xff", sidSize+elementSize)} {
		c, err := net.Dial("tcp", p.at)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(text))
		_ = c.(*net.TCPConn).CloseWrite()
		if b, _ := io.ReadAll(c); len(b) != 0 {
			t.Errorf("%q is answered with %x", text, b)
		}
		c.Close()
	}
	for range maxConns - 1 { // these say nothing at all
		c, err := net.Dial("tcp", p.at)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got, err := p.join(p.at, p.code); err != nil || got == nil || p.wrong.Load() != 0 {
		t.Errorf("after strangers: %v, %d wrong codes", err, p.wrong.Load())
	}
}

// Whoever stands between, hands every byte on, and changes one, ends the connection and
// learns nothing; nobody takes anything.
func TestWhoStandsBetweenGainsNothing(t *testing.T) {
	t.Parallel()
	for n := range 32 {
		at, up := n/2*23, n%2 == 0
		p := newPair(t)
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		between := make(chan struct{})
		go func() {
			defer close(between)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			d, err := net.Dial("tcp", p.at)
			if err != nil {
				return
			}
			defer d.Close()
			forward := func(to, from net.Conn, change bool) {
				n, b := 0, make([]byte, 1)
				for {
					if _, err := from.Read(b); err != nil {
						break
					}
					if change && n == at {
						b[0] ^= 1
					}
					n++
					if _, err := to.Write(b); err != nil {
						break
					}
				}
				to.Close()
				from.Close()
			}
			done := make(chan struct{})
			go func() { defer close(done); forward(d, c, up) }()
			forward(c, d, !up)
			<-done
		}()
		got, err := p.join(l.Addr().String(), p.code)
		l.Close()
		<-between
		if got != nil && err == nil && p.offers.Load() == 1 {
			continue // the byte lay beyond what counts
		}
		if got != nil {
			t.Fatalf("byte %d was changed, and an offer taken with %v", at, err)
		}
	}
}

func TestFramesAreBounded(t *testing.T) {
	var s [64]byte
	_, _, up, _, err := keysOf(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, maxFrame, maxFrame + 1} {
		sealed := up.Seal(nil, nonce(up, 0), bytes.Repeat([]byte(" "), n), nil)
		ch := &channel{in: up}
		_, err := ch.open(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...)))
		if (err == nil) != (n <= maxFrame) {
			t.Errorf("a message of %d bytes: %v", n, err)
		}
	}
	ch := &channel{in: up}
	if _, err := ch.open(bytes.NewReader([]byte{0xff, 0xff, 0xff, 0xff})); !errors.Is(err, ErrProtocol) {
		t.Errorf("a message that announces 4 GiB: %v", err)
	}
}

func TestAnOfferIsChecked(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	request := Request{Node: wire.SignRequest(p.node, time.Now())}
	key, err := request.Key()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Offer){
		"another's card":     func(o *Offer) { o.Card = "banmesh" },
		"no network":         func(o *Offer) { o.Network = "a/b" },
		"no broker":          func(o *Offer) { o.Brokers = nil },
		"many brokers":       func(o *Offer) { o.Brokers = make([]Broker, maxBrokers+1) },
		"a file":             func(o *Offer) { o.Brokers[0].URL = "file:///etc/passwd" },
		"a socket":           func(o *Offer) { o.Brokers[0].URL = "unix:///run/x" },
		"a password":         func(o *Offer) { o.Brokers[0].URL = "ssl://a:b@x:1" },
		"control characters": func(o *Offer) { o.Brokers[0].ServerName = "a\x1b[2J" },
		"no port":            func(o *Offer) { o.Brokers[0].URL = "ssl://" },
		"a key":              func(o *Offer) { o.Brokers[0].CA = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" },
		"a topic of ours":    func(o *Offer) { o.Accept = []ban.Topic{"../x"} },
		"many topics":        func(o *Offer) { o.Publish = make([]ban.Topic, maxTopics+1) },
	} {
		o, err := p.offer(request)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.check("192.0.2.9", key, time.Now()); err != nil {
			t.Fatal(err)
		}
		spoil(&o)
		if _, err := o.check("192.0.2.9", key, time.Now()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	o, _ := p.offer(request)
	if _, err := o.check("2001:db8::9", wire.PublicKey{1}, time.Now()); err == nil {
		t.Error("a card for another node is taken")
	}
}

func TestCodesAreReadAsTheyAreTyped(t *testing.T) {
	for range 100 {
		c := NewCode()
		plain := strings.ReplaceAll(string(c), "-", "")
		for _, text := range []string{string(c), plain, strings.ToUpper(plain), plain[:5] + " " + plain[5:], " " + string(c) + " "} {
			if got, err := ParseCode(text); err != nil || got != c {
				t.Fatalf("%q is read as %q, %v", text, got, err)
			}
		}
	}
	for _, bad := range []string{"", "lusab", "lusab-bido", "lusab-bidoff", "lusab-bid0f", "lusab-bédof", "aaaaa-aaaaa"} {
		if got, err := ParseCode(bad); err == nil {
			t.Errorf("%q is read as %q", bad, got)
		}
	}
}

func TestAddressesAreReadAsTheyAreTyped(t *testing.T) {
	for text, want := range map[string][2]string{
		"192.0.2.1": {"192.0.2.1", "7935"}, "192.0.2.1:99": {"192.0.2.1", "99"}, "2001:db8::1": {"2001:db8::1", "7935"}, "[2001:db8::1]": {"2001:db8::1", "7935"},
		"[2001:db8::1]:99": {"2001:db8::1", "99"}, "first.example.org": {"first.example.org", "7935"},
	} {
		if host, port := address(text); host != want[0] || port != want[1] {
			t.Errorf("%q is %q, %q", text, host, port)
		}
	}
}

func FuzzParseCode(f *testing.F) {
	f.Add("lusab-bidof")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCode(text)
		if err != nil {
			return
		}
		if again, err := ParseCode(string(c)); err != nil || again != c {
			t.Errorf("%q becomes %q, which becomes %q, %v", text, c, again, err)
		}
	})
}

// FuzzMessages reads whatever a side that has the code may send.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"node":"banmesh-request:AAAA"}`))
	f.Add([]byte(`{"offer":{"card":"x","network":"home","brokers":[{"url":"ssl://:1"}],"accept":["sshd"],"publish":[]}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var q Request
		if decode(text, &q) == nil {
			_, _ = q.Key()
		}
		var r reply
		if decode(text, &r) == nil && r.Offer != nil {
			if _, err := r.Offer.check("192.0.2.1", wire.PublicKey{}, time.Unix(1, 0)); err == nil {
				t.Error("an offer without a certificate for the node is taken")
			}
		}
		var d done
		_ = decode(text, &d)
	})
}

// FuzzCaller is a host that is called by anybody.
func FuzzCaller(f *testing.F) {
	f.Add([]byte(hello))
	f.Add([]byte(hello + strings.Repeat("\x01", sidSize+elementSize+32)))
	f.Fuzz(func(t *testing.T, text []byte) {
		here, there := net.Pipe()
		go func() {
			go func() { _, _ = io.Copy(io.Discard, there) }()
			_, _ = there.Write(text)
			there.Close()
		}()
		if _, err := answer(here, "lusab-bidof", func(right bool) error {
			if right {
				t.Error("bytes of no key exchange are the right code")
			}
			return ErrCode
		}); err == nil {
			t.Error("a stranger is let in")
		}
		here.Close()
	})
}
