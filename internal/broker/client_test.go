package broker

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
)

// patience bounds every wait of a test; the events come in
// milliseconds.
const patience = 20 * time.Second

// start runs a broker on loopback until the test ends.
func start(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.Listeners == nil {
		o.Listeners = []Listener{{Kind: TCP, Address: "127.0.0.1:0"}}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	set(&o.Limits.DrainTime, time.Millisecond)
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, b)
	t.Cleanup(stop)
	return b
}

// run runs a broker and gives a function that stops it, once.
func run(t testing.TB, b *Broker) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	stopped := false
	return func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("the broker does not stop")
		}
	}
}

// A client speaks MQTT byte by byte.
type client struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	// early are publications that came before an answer that was waited for:
	// they may overtake it (MQTT 3.1.1, section 3.8.4).
	early []packet
}

func dial(t testing.TB, b *Broker) *client {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc, r: bufio.NewReader(nc)}
}

func (c *client) send(b ...byte) {
	c.t.Helper()
	if _, err := c.nc.Write(b); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

// packet is one from the broker.
type packet struct {
	kind, flags byte
	body        []byte
}

// read gives the next packet.
func (c *client) read() (packet, error) {
	if len(c.early) > 0 {
		p := c.early[0]
		c.early = c.early[1:]
		return p, nil
	}
	return c.receive()
}

// receive gives the next packet from the connection.
func (c *client) receive() (packet, error) {
	_ = c.nc.SetReadDeadline(time.Now().Add(patience))
	first, err := c.r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return packet{}, err
	}
	p := packet{first >> 4, first & 15, make([]byte, n)}
	_, err = io.ReadFull(c.r, p.body)
	return p, err
}

func (c *client) want(kind byte) packet {
	c.t.Helper()
	p, err := c.read()
	if err != nil || p.kind != kind {
		c.t.Fatalf("got packet %d %x, %v; want type %d", p.kind, p.body, err, kind)
	}
	return p
}

// answer wants a packet that answers one of the client's, and keeps the
// publications that overtake it.
func (c *client) answer(kind byte) packet {
	c.t.Helper()
	for {
		p, err := c.receive()
		switch {
		case err == nil && p.kind == frame.Publish && kind != frame.Publish:
			c.early = append(c.early, p)
		case err != nil || p.kind != kind:
			c.t.Fatalf("got packet %d %x, %v; want type %d", p.kind, p.body, err, kind)
		default:
			return p
		}
	}
}

// wantClosed reads until the broker closes.
func (c *client) wantClosed() {
	c.t.Helper()
	for {
		_, err := c.read()
		if err == nil {
			continue
		}
		if isTimeout(err) {
			c.t.Fatal("the broker keeps the connection")
		}
		return
	}
}

// wantNothing wants that the broker sends nothing before it answers a ping.
func (c *client) wantNothing() {
	c.t.Helper()
	c.send(frame.Pingreq<<4, 0)
	if p, err := c.read(); err != nil || p.kind != frame.Pingresp {
		c.t.Fatalf("got packet %d %q, %v; want nothing", p.kind, p.body, err)
	}
}

func text(s string) []byte {
	return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...)
}

func whole(first byte, body ...byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

// connecting is a CONNECT.
type connecting struct {
	id, user, password string
	flags              byte // beside those that the fields need
	keepalive          uint16
	level              byte
	will               string
}

func (n connecting) bytes() []byte {
	if n.level == 0 {
		n.level = 4
	}
	flags := n.flags
	var tail []byte
	if n.will != "" {
		flags |= frame.FlagWill
		tail = append(append(tail, text(n.will)...), text("gone")...)
	}
	if n.user != "" {
		flags |= 0x80
		tail = append(tail, text(n.user)...)
	}
	if n.password != "" {
		flags |= 0x40
		tail = append(tail, text(n.password)...)
	}
	body := append(text("MQTT"), n.level, flags, byte(n.keepalive>>8), byte(n.keepalive))
	return whole(0x10, append(append(body, text(n.id)...), tail...)...)
}

// join connects with a clean session and wants to be let in.
func join(t testing.TB, b *Broker, id string) *client {
	t.Helper()
	c := dial(t, b)
	c.connect(connecting{id: id, flags: frame.FlagClean, keepalive: 60})
	return c
}

func (c *client) connect(n connecting) (present bool) {
	c.t.Helper()
	c.send(n.bytes()...)
	p := c.want(frame.Connack)
	if p.body[1] != 0 {
		c.t.Fatalf("refused with code %d", p.body[1])
	}
	return p.body[0] == 1
}

// subscribe gives the granted quality of service, or 0x80.
func (c *client) subscribe(filter string, qos byte) byte {
	c.t.Helper()
	c.send(whole(0x82, append([]byte{0, 77}, append(text(filter), qos)...)...)...)
	return c.answer(frame.Suback).body[2]
}

func publishBytes(topic, payload string, id uint16, qos byte, retain bool) []byte {
	b, at := frame.AppendPublish(nil, topic, []byte(payload), qos, retain)
	if at >= 0 {
		b[at], b[at+1] = byte(id>>8), byte(id)
	}
	return b
}

// publish publishes with QoS 1 and waits for the acknowledgement.
func (c *client) publish(topic, payload string, id uint16, retain bool) {
	c.t.Helper()
	c.send(publishBytes(topic, payload, id, 1, retain)...)
	p := c.answer(frame.Puback)
	if got := frame.AckID(p.body); got != id {
		c.t.Fatalf("PUBACK %d, want %d", got, id)
	}
}

// message wants a publication and acknowledges it.
func (c *client) message() (topic, payload string, p packet) {
	c.t.Helper()
	p = c.want(frame.Publish)
	pub, err := frame.ParsePublish(frame.Header{Type: frame.Publish, Flags: p.flags}, p.body)
	if err != nil {
		c.t.Fatal(err)
	}
	if pub.QoS == 1 {
		c.send(frame.AppendPuback(nil, pub.ID)...)
	}
	return string(pub.Topic), string(pub.Payload), p
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("it never came true that %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}
