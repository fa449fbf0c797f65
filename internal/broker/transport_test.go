package broker

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"banmesh/internal/broker/frame"
)

// selfSigned makes a certificate for a key; nil makes a key.
func selfSigned(t testing.TB, name string, key any) tls.Certificate {
	t.Helper()
	if key == nil {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key = k
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.(crypto.Signer).Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *author) plain() connecting {
	return connecting{id: a.feed.Node.String(), flags: 2, keepalive: 60}
}

func TestEveryTransportCarriesFeeds(t *testing.T) {
	t.Parallel()
	server := selfSigned(t, "broker.example", nil)
	config := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert}
	socket := filepath.Join(t.TempDir(), "mqtt.sock")
	b := community(t, func(o *Options) {
		o.Listeners = []Listener{
			{Kind: TCP, Address: "127.0.0.1:0"},
			{Kind: TLS, Address: "127.0.0.1:0", TLS: config},
			{Kind: WebSocket, Address: "127.0.0.1:0"},
			{Kind: SecureWS, Address: "127.0.0.1:0", TLS: config},
			{Kind: Unix, Address: socket},
		}
	})
	addrs := b.Addrs()
	pool := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(server.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(leaf)
	trust := &tls.Config{RootCAs: pool, ServerName: "broker.example"}
	web := func(url string) net.Conn {
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}, TLSClientConfig: trust}
		ws, _, err := d.Dial(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return &webConn{Conn: ws.NetConn(), ws: ws}
	}
	for name, connect := range map[string]func() (net.Conn, error){
		"tls":  func() (net.Conn, error) { return tls.Dial("tcp", addrs[1].String(), trust) },
		"ws":   func() (net.Conn, error) { return web("ws://" + addrs[2].String() + "/mqtt"), nil },
		"wss":  func() (net.Conn, error) { return web("wss://" + addrs[3].String()), nil },
		"unix": func() (net.Conn, error) { return net.Dial("unix", socket) },
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			a := newAuthor(name)
			c := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
			c.connect(a.connecting(a.now.Add(time.Minute), "broker.example"))
			reader := newAuthor("reader of "+name).join(t, b)
			reader.subscribe("banmesh/1/net/sshd/+/+/chunk/+", 1)
			topic, card := a.card(t, 1)
			c.publish(topic, card, 1, true)
			// Big enough for several writes, back to the publisher itself.
			c.subscribe("banmesh/1/net/sshd/+/+/chunk/+", 1)
			for i := range 50 {
				topic, chunk := a.chunk(i, 1)
				c.send(publishBytes(topic, chunk, uint16(i+1), 1, true)...)
			}
			acks, messages := 0, 0
			for acks < 50 || messages < 50 {
				p, err := c.read()
				if err != nil {
					t.Fatalf("after %d acknowledgements and %d messages: %v", acks, messages, err)
				}
				switch p.kind {
				case frame.Puback:
					acks++
				case frame.Publish:
					messages++
				}
			}
			for range 50 {
				reader.message()
			}
			c.send(frame.Disconnect<<4, 0)
			c.wantClosed()
		})
	}
	t.Run("a certificate is a proof of key", func(t *testing.T) {
		a := newAuthor("certified")
		with := trust.Clone()
		with.Certificates = []tls.Certificate{selfSigned(t, "node", a.node)}
		nc, err := tls.Dial("tcp", addrs[1].String(), with)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
		c.connect(a.plain())
		topic, card := a.card(t, 1)
		c.publish(topic, card, 1, true)
		topic, head := a.head(1)
		c.publish(topic, head, 2, true)
		if b.store.Get(topic) == nil {
			t.Error("its head was refused")
		}
		// The same certificate for another node's identifier.
		nc, err = tls.Dial("tcp", addrs[1].String(), with)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c = &client{t: t, nc: nc, r: bufio.NewReader(nc)}
		if got := c.refusal(newAuthor("other").plain()); got != frame.RefusedAuthorized {
			t.Errorf("CONNACK %d", got)
		}
	})
	t.Run("WebSocket without the subprotocol", func(t *testing.T) {
		r, err := http.Get("http://" + addrs[2].String() + "/")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusBadRequest {
			t.Errorf("status %d", r.StatusCode)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	t.Run("WebSocket text", func(t *testing.T) {
		d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
		ws, _, err := d.Dial("ws://"+addrs[2].String(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ws.Close()
		if err := ws.WriteMessage(websocket.TextMessage, connecting{id: "x", flags: 2, keepalive: 9}.bytes()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.ReadMessage(); err == nil || isTimeout(err) {
			t.Errorf("got %v", err)
		}
	})
}

func TestListenersThatCannotBeAreErrors(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]Listener{
		"a misspelt kind":   {Kind: "tpc", Address: "127.0.0.1:0"},
		"TLS without a key": {Kind: TLS, Address: "127.0.0.1:0"},
		"no port":           {Kind: TCP, Address: "127.0.0.1"},
		"no socket":         {Kind: Unix, Address: filepath.Join(t.TempDir(), "no", "dir", "s")},
		"a file in the way": {Kind: Unix, Address: "client_test.go"},
	} {
		if b, err := New(Options{Network: "net", Listeners: []Listener{l}}); err == nil {
			t.Errorf("%s: no error", name)
			b.Close()
		} else if !strings.Contains(err.Error(), "listen") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(Options{Network: "net"}); err == nil {
		t.Error("a broker without listeners")
	}
	if _, err := New(Options{Network: "a/b", Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}}); err == nil {
		t.Error("a network with a slash")
	}
}
