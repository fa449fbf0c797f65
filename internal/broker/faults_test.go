package broker

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"banmesh/internal/broker/frame"
)

// Faults of MQTT servers that others have published or that we met, as the
// bytes of a hostile client. docs/broker.md says which test is for which.

// secure is a broker with every transport that speaks over TCP.
func secure(t *testing.T, change func(*Options)) *Broker {
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t, "broker.example", nil)}}
	return community(t, func(o *Options) {
		o.Listeners = []Listener{
			{Kind: TCP, Address: "127.0.0.1:0"},
			{Kind: TLS, Address: "127.0.0.1:0", TLS: config},
			{Kind: WebSocket, Address: "127.0.0.1:0"},
			{Kind: SecureWS, Address: "127.0.0.1:0", TLS: config},
		}
		change(o)
	})
}

func TestEveryTransportEndsWhoDoesNotLogIn(t *testing.T) {
	t.Parallel()
	b := secure(t, func(o *Options) { o.Limits.ConnectTime = 200 * time.Millisecond })
	trust := &tls.Config{InsecureSkipVerify: true}
	for name, connect := range map[string]func() (net.Conn, error){
		"TCP, silent":           func() (net.Conn, error) { return net.Dial("tcp", b.Addrs()[0].String()) },
		"TLS, no handshake":     func() (net.Conn, error) { return net.Dial("tcp", b.Addrs()[1].String()) },
		"TLS, no CONNECT":       func() (net.Conn, error) { return tls.Dial("tcp", b.Addrs()[1].String(), trust) },
		"WebSocket, no request": func() (net.Conn, error) { return net.Dial("tcp", b.Addrs()[2].String()) },
		"WebSocket, half a request": func() (net.Conn, error) {
			nc, err := net.Dial("tcp", b.Addrs()[2].String())
			if err == nil {
				_, err = nc.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n"))
			}
			return nc, err
		},
		"WebSocket, no CONNECT": func() (net.Conn, error) {
			ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws://"+b.Addrs()[2].String(), nil)
			if err != nil {
				return nil, err
			}
			return ws.NetConn(), nil
		},
		"secure WebSocket, no handshake": func() (net.Conn, error) { return net.Dial("tcp", b.Addrs()[3].String()) },
	} {
		t.Run(name, func(t *testing.T) {
			nc, err := connect()
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			(&client{t: t, nc: nc, r: bufio.NewReader(nc)}).wantClosed()
		})
	}
	eventually(t, "nothing is left of them", func() bool { return b.accepted.Load() == 0 && b.open.Load() == 0 })
	alive(t, b)
}

func TestBytesAloneEarnNoTime(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := dial(t, b)
	c.connect(connecting{id: "slow", flags: frame.FlagClean, keepalive: 1})
	c.send(frame.Publish<<4, 0xff, 0x7f) // and then byte by byte
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for range 16_000 { // a second more than the packet takes
			<-tick.C
			if _, err := c.nc.Write([]byte{0}); err != nil {
				return
			}
		}
	}()
	c.wantClosed()
	c.nc.Close()
	<-ended
	if value(b.count.broken.WithLabelValues("keepalive")) != 1 {
		t.Error("it was not the keepalive that ended it")
	}
}

// A packet in many small pieces is taken all the same, and whole ones in one
// stream whose reads end anywhere keep the connection alive.
func TestAPacketMayComeInPieces(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := join(t, b, "c")
	c.subscribe("t", 1)
	for _, x := range publishBytes("t", "in pieces", 1, 1, false) {
		c.send(x)
	}
	c.answer(frame.Puback)
	if _, payload, _ := c.message(); payload != "in pieces" {
		t.Errorf("got %q", payload)
	}
}

// A library that writes each field by itself, over a transport that keeps the
// pieces apart, is not held up; one that never stops is.
func TestManySmallPiecesAreReadAsTheyCome(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}, {Kind: WebSocket, Address: "127.0.0.1:0"}}})
	ws, _, err := (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws://"+b.Addrs()[1].String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	nc := &webConn{Conn: ws.NetConn(), ws: ws}
	defer nc.Close()
	c := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
	c.connect(connecting{id: "fields", flags: frame.FlagClean, keepalive: 60})
	body := []byte{0, 1}
	var fields [][]byte
	for i := range 50 {
		filter := text(fmt.Sprint("t/", i))
		fields = append(fields, filter[:2], filter[2:], []byte{1})
		body = append(append(body, filter...), 1)
	}
	sub := whole(0x82, body...)
	c.send(sub[:len(sub)-len(body)]...)
	c.send(0, 1)
	for _, f := range fields {
		c.send(f...)
	}
	if p := c.answer(frame.Suback); len(p.body) != 52 {
		t.Errorf("SUBACK %x", p.body)
	}
	if n := value(b.count.gathered); n != 0 {
		t.Errorf("%d pauses", n)
	}
	for _, x := range publishBytes("t/0", strings.Repeat("x", 2*piecesBurst), 1, 1, false) {
		c.send(x)
	}
	c.answer(frame.Puback)
	if value(b.count.gathered) == 0 {
		t.Error("a thousand pieces were read one by one")
	}
}

func TestHTTPIsNoWayAroundTheLimitOfConnections(t *testing.T) {
	t.Parallel()
	b := secure(t, func(o *Options) { o.Limits.Connections = 3 })
	for range 3 {
		nc, err := net.Dial("tcp", b.Addrs()[2].String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
	}
	eventually(t, "they are in", func() bool { return b.accepted.Load() == 3 })
	if got := dial(t, b).refusal(newAuthor("late").connecting(time.Now().Add(time.Minute), "broker.example")); got != frame.RefusedUnavailable {
		t.Errorf("CONNACK %d", got)
	}
	if value(b.count.turnedAway.WithLabelValues("full")) != 1 {
		t.Error("not counted")
	}
}

// The packets of MQTT 5 are not understood, and does no harm before the refusal or
// after it.
func TestMQTT5IsRefusedBeforeAnythingOfItIsRead(t *testing.T) {
	t.Parallel()
	b := community(t)
	connect := append(text("MQTT"), 5, frame.FlagClean, 0, 60)
	for name, sent := range map[string][]byte{
		"properties":            whole(0x10, append(append(append([]byte(nil), connect...), 3, 0x21, 0, 10), text("x")...)...),
		"properties cut off":    whole(0x10, append(append([]byte(nil), connect...), 0xff, 0xff, 0xff, 0x7f)...),
		"nothing else":          whole(0x10, connect...),
		"and a SUBSCRIBE of it": append(whole(0x10, append(append(append([]byte(nil), connect...), 0), text("x")...)...), 0x82, 5, 0, 1, 0, 0, 0),
		"and a topic alias":     append(whole(0x10, append(append(append([]byte(nil), connect...), 0), text("x")...)...), 0x30, 6, 0, 0, 3, 0x23, 0xff, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, b)
			_, _ = c.nc.Write(sent)
			p := c.want(frame.Connack)
			if len(p.body) != 3 || p.body[1] != frame.RefusedVersion5 || p.body[2] != 0 {
				t.Errorf("CONNACK %x, want one of MQTT 5 that says unsupported protocol version", p.body)
			}
			c.wantClosed()
		})
	}
	alive(t, b)
}

func TestDepthCostsNothing(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := join(t, b, "deep")
	deep := strings.Repeat("/", 32_000)
	for i := range 50 {
		c.send(publishBytes(deep, "x", uint16(i+1), 1, true)...)
		c.want(frame.Puback)
	}
	if got := b.refusals(refusedTopic); got != 50 {
		t.Errorf("%d of 50 were refused", got)
	}
	if q := c.subscribe(deep, 1); q != 0x80 {
		t.Errorf("granted %#x", q)
	}
	if q := c.subscribe(strings.Repeat("+/", 9)+"+", 1); q != 1 {
		t.Errorf("ten levels: %#x", q)
	}
	c.publish(strings.Repeat("a/", 9)+"a", "x", 1, false)
	c.message()
}

func TestAStalledReaderIsCutOnEncryptedTransportsToo(t *testing.T) {
	t.Parallel()
	config := &tls.Config{Certificates: []tls.Certificate{selfSigned(t, "broker.example", nil)}}
	for _, kind := range []Kind{TLS, WebSocket} {
		t.Run(string(kind), func(t *testing.T) {
			b := start(t, Options{
				Open: true, Anonymous: AccessFull, Limits: Limits{MaxQueued: 256 << 10, StallTime: time.Second},
				Listeners: []Listener{{Kind: TCP, Address: "127.0.0.1:0"}, {Kind: kind, Address: "127.0.0.1:0", TLS: config}},
			})
			var nc net.Conn
			var err error
			if kind == TLS {
				nc, err = tls.Dial("tcp", b.Addrs()[1].String(), &tls.Config{InsecureSkipVerify: true})
			} else {
				var ws *websocket.Conn
				ws, _, err = (&websocket.Dialer{Subprotocols: []string{"mqtt"}}).Dial("ws://"+b.Addrs()[1].String(), nil)
				if err == nil {
					nc = &webConn{Conn: ws.NetConn(), ws: ws}
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			defer nc.Close()
			stalled := &client{t: t, nc: nc, r: bufio.NewReader(nc)}
			stalled.connect(connecting{id: "stalled", flags: frame.FlagClean, keepalive: 60})
			stalled.subscribe("t", 1)
			healthy, pub := join(t, b, "healthy"), join(t, b, "pub")
			healthy.subscribe("t", 1)
			payload := strings.Repeat("x", 100_000)
			for i := 0; b.sessions.get("stalled") != nil; i++ {
				if i == 2000 {
					t.Fatal("it was never cut")
				}
				pub.publish("t", payload, uint16(i+1), false)
				if _, got, _ := healthy.message(); got != payload {
					t.Fatal("wrong payload")
				}
			}
		})
	}
}

func TestWhatWaitsForAnAbsentClientIsBoundedAndCounted(t *testing.T) {
	t.Parallel()
	b := open(t)
	c, _ := stay(t, b, "away")
	c.subscribe("t", 1)
	c.leave(b, "away")
	pub := join(t, b, "pub")
	const n = maxInflight + 100
	go func() {
		for i := range n {
			if _, err := pub.nc.Write(publishBytes("t", fmt.Sprint(i), uint16(i%60000+1), 1, false)); err != nil {
				return
			}
		}
	}()
	for range n {
		pub.want(frame.Puback)
	}
	if got := value(b.count.dropped); got != 100 {
		t.Errorf("%d are counted as dropped, want 100", got)
	}
	c, _ = stay(t, b, "away")
	for i := range maxInflight {
		if _, payload, _ := c.message(); payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, payload)
		}
	}
	c.wantNothing()
}

func TestAnExpiredSessionLeavesNothing(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{SessionTime: time.Second}})
	c, _ := stay(t, b, "old")
	c.subscribe("t", 1)
	c.leave(b, "old")
	join(t, b, "pub").publish("t", "queued", 1, false)
	eventually(t, "the session is forgotten", func() bool {
		_, known := b.engine.Clients.Get("old")
		return !known && b.sessions.get("old") == nil && b.index.subscriptions() == 0
	})
	if _, present := stay(t, b, "old"); present {
		t.Error("it came back")
	}
}

// Bridges of mosquitto say so in the protocol level.
func TestABridgeHearsTheRetainFlagAndNotItself(t *testing.T) {
	t.Parallel()
	b := open(t)
	bridge := dial(t, b)
	bridge.connect(connecting{id: "bridge", flags: frame.FlagClean, keepalive: 60, level: 0x84})
	bridge.subscribe("t/#", 1)
	bridge.publish("t/own", "echo", 1, true)
	bridge.wantNothing()
	join(t, b, "pub").publish("t/other", "m", 1, true)
	if topic, _, p := bridge.message(); topic != "t/other" || p.flags&1 == 0 {
		t.Errorf("heard %s with flags %x", topic, p.flags)
	}
}
