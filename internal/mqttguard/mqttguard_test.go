package mqttguard

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// A scripted connection hands out bytes in pieces of a size and takes all that
// is written.
type scripted struct {
	net.Conn
	in     []byte
	piece  int
	closed bool
}

func (s *scripted) Read(p []byte) (int, error) {
	if len(s.in) == 0 || s.closed {
		return 0, io.EOF
	}
	n := copy(p, s.in[:min(len(s.in), max(1, s.piece))])
	s.in = s.in[n:]
	return n, nil
}

func (s *scripted) Write(p []byte) (int, error) { return len(p), nil }
func (s *scripted) Close() error                { s.closed = true; return nil }

const most = 1 << 16

var (
	hello     = []byte{0x20, 2, 0, 0}
	granted2  = []byte{0x90, 4, 0, 5, 1, 0x91} // a refusal of MQTT 5, which mochi gives to every client
	published = []byte{0x40, 2, 0, 7}
	removed   = []byte{0xb0, 2, 0, 6}
	pong      = []byte{0xd0, 0}
	message0  = []byte{0x31, 5, 0, 1, 't', 'h', 'i'}
	message1  = []byte{0x32, 6, 0, 1, 't', 0, 9, '!'}
)

// asks writes, in pieces, the packets that a client writes with its library.
func asks(t testing.TB, c *Conn, piece int) {
	t.Helper()
	var b bytes.Buffer
	connect := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	connect.ProtocolName, connect.ProtocolVersion, connect.CleanSession, connect.ClientIdentifier = "MQTT", 4, true, "c"
	sub := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	sub.MessageID, sub.Topics, sub.Qoss = 5, []string{"a/+", "b"}, []byte{1, 0}
	un := packets.NewControlPacket(packets.Unsubscribe).(*packets.UnsubscribePacket)
	un.MessageID, un.Topics = 6, []string{"a/+"}
	pub := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	pub.MessageID, pub.Qos, pub.TopicName, pub.Payload = 7, 1, "own", bytes.Repeat([]byte{0xb0}, 300)
	plain := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	plain.TopicName, plain.Payload = "own", []byte{0, 8}
	ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
	ack.MessageID = 3
	for _, p := range []packets.ControlPacket{connect, sub, pub, plain, un, ack, packets.NewControlPacket(packets.Pingreq)} {
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
	}
	for b.Len() > 0 {
		if _, err := c.Write(b.Next(piece)); err != nil {
			t.Fatal(err)
		}
	}
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func TestWhatAServerMaySendPasses(t *testing.T) {
	long := join([]byte{0x30, 0xb3, 0x75, 0, 1, 't'}, bytes.Repeat([]byte("x"), 0x75*128+0x33-3))
	all := join(hello, message0, granted2, message1, published, long, pong, removed, message0)
	for _, piece := range []int{1, 2, 7, 4096, 1 << 20} {
		c := New(&scripted{in: all, piece: piece}, most)
		asks(t, c, piece)
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, all) {
			t.Errorf("pieces of %d: %d of %d bytes passed, %v", piece, len(got), len(all), err)
		}
	}
}

func TestWhatNoServerMaySendEndsTheConnection(t *testing.T) {
	for name, sent := range map[string][]byte{
		"nothing but a publication first":  message0,
		"two CONNACKs":                     join(hello, hello),
		"a session where none was kept":    {0x20, 2, 1, 0},
		"a return code of no version":      {0x20, 2, 0, 6},
		"a CONNACK of MQTT 5":              {0x20, 3, 0, 0, 0},
		"flags in a CONNACK":               {0x21, 2, 0, 0},
		"one code too few":                 join(hello, []byte{0x90, 3, 0, 5, 1}),
		"one code too many":                join(hello, []byte{0x90, 5, 0, 5, 1, 0, 0}),
		"no codes":                         join(hello, []byte{0x90, 2, 0, 5}),
		"a SUBACK of one byte":             join(hello, []byte{0x90, 1, 0}),
		"a SUBACK nobody asked for":        join(hello, []byte{0x90, 4, 0, 4, 1, 0}),
		"a SUBACK twice":                   join(hello, granted2, granted2),
		"a higher QoS than asked for":      join(hello, []byte{0x90, 4, 0, 5, 1, 1}),
		"a QoS that does not exist":        join(hello, []byte{0x90, 4, 0, 5, 1, 0x7f}),
		"a PUBACK nobody asked for":        join(hello, []byte{0x40, 2, 0, 8}),
		"a PUBACK twice":                   join(hello, published, published),
		"an UNSUBACK nobody asked for":     join(hello, []byte{0xb0, 2, 0, 5}),
		"a PINGRESP twice":                 join(hello, pong, pong),
		"QoS 2":                            join(hello, []byte{0x34, 6, 0, 1, 't', 0, 9, '!'}),
		"QoS 3":                            join(hello, []byte{0x36, 6, 0, 1, 't', 0, 9, '!'}),
		"DUP with QoS 0":                   join(hello, []byte{0x38, 3, 0, 1, 't'}),
		"identifier 0":                     join(hello, []byte{0x32, 5, 0, 1, 't', 0, 0}),
		"no identifier":                    join(hello, []byte{0x32, 3, 0, 1, 't'}),
		"no topic":                         join(hello, []byte{0x30, 2, 0, 0}),
		"a topic longer than the packet":   join(hello, []byte{0x30, 3, 0, 9, 't'}),
		"a topic that is no text":          join(hello, []byte{0x30, 3, 0, 1, 0xff}),
		"a topic with U+0000":              join(hello, []byte{0x30, 3, 0, 1, 0}),
		"a topic with a wildcard":          join(hello, []byte{0x30, 3, 0, 1, '#'}),
		"PUBREC":                           join(hello, []byte{0x50, 2, 0, 7}),
		"PUBREL":                           join(hello, []byte{0x62, 2, 0, 7}),
		"PUBCOMP":                          join(hello, []byte{0x70, 2, 0, 7}),
		"a packet of a client":             join(hello, []byte{0xc0, 0}),
		"a DISCONNECT with a reason":       join(hello, []byte{0xe0, 1, 0x8b}),
		"a DISCONNECT before the CONNACK":  {0xe0, 0},
		"type 0":                           join(hello, []byte{0, 0}),
		"type 15":                          join(hello, []byte{0xf0, 0}),
		"five bytes of length":             join(hello, []byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x80}),
		"a packet larger than the largest": join(hello, []byte{0x30, 0x80, 0x80, 0x04}),
	} {
		for _, piece := range []int{1, 1 << 20} {
			s := &scripted{in: append(sent, message0...), piece: piece}
			c := New(s, most)
			asks(t, c, 1<<20)
			_, err := io.ReadAll(c)
			if !errors.Is(err, ErrMisbehaving) || !errors.Is(c.Err(), ErrMisbehaving) || !s.closed {
				t.Errorf("%s, in pieces of %d: %v, closed %v", name, piece, err, s.closed)
			}
		}
	}
}

func TestTheLargestPacketPassesAndOneMoreByteDoesNot(t *testing.T) {
	for _, extra := range []int{0, 1} {
		body := strings.Repeat("x", most-4-3+extra)
		n := len(body) + 3
		sent := join(hello, []byte{0x30, byte(n&0x7f) | 0x80, byte(n>>7&0x7f) | 0x80, byte(n >> 14), 0, 1, 't'}, []byte(body))
		c := New(&scripted{in: sent, piece: 1000}, most)
		if _, err := io.ReadAll(c); (err == nil) != (extra == 0) {
			t.Errorf("%d bytes: %v", most+extra, err)
		}
	}
}

// An announced length takes no memory before its bytes come.
func TestAnAnnouncedLengthTakesNoMemory(t *testing.T) {
	c := New(&scripted{in: join(hello, []byte{0x30, 0xff, 0xff, 0x03, 0, 1, 't'}), piece: 1}, 1<<20)
	if _, err := io.ReadAll(c); err != nil {
		t.Fatal(err)
	}
	if cap(c.in) > 2*readSize {
		t.Errorf("seven bytes take %d", cap(c.in))
	}
}

func TestAFaultOfTheGuardEndsOneConnection(t *testing.T) {
	c := New(faulty{}, most)
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrMisbehaving) {
		t.Errorf("got %v", err)
	}
}

type faulty struct{ net.Conn }

func (faulty) Read([]byte) (int, error) { panic("a test asked for it") }
func (faulty) Close() error             { return nil }

func FuzzNothingElseReachesTheClient(f *testing.F) {
	for _, b := range [][]byte{hello, granted2, published, removed, pong, message0, message1} {
		f.Add(join(hello, b), 3)
	}
	f.Add(join(hello, []byte{0x90, 5, 0, 5, 1, 0, 0}), 1)
	f.Fuzz(func(t *testing.T, sent []byte, piece int) {
		c := New(&scripted{in: sent, piece: piece}, most)
		asks(t, c, 1+piece&0xff)
		passed, err := io.ReadAll(c)
		if !bytes.HasPrefix(sent, passed) {
			t.Fatalf("%x passed of %x", passed, sent)
		}
		if err != nil && !errors.Is(err, ErrMisbehaving) {
			t.Fatal(err)
		}
		// The client library reads the same packets, and each is one it waits for.
		seen := map[string]int{}
		for r := bytes.NewReader(passed); ; {
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("the library cannot read %x: %v", passed, err)
			}
			switch p := p.(type) {
			case *packets.ConnackPacket:
				seen["connack"]++
			case *packets.PublishPacket:
				if p.Qos > 1 || p.TopicName == "" || seen["connack"] == 0 {
					t.Fatalf("%+v passed", p)
				}
			case *packets.SubackPacket:
				if seen["suback"]++; p.MessageID != 5 || len(p.ReturnCodes) != 2 {
					t.Fatalf("%+v passed", p)
				}
			case *packets.PubackPacket:
				if seen["puback"]++; p.MessageID != 7 {
					t.Fatalf("%+v passed", p)
				}
			case *packets.UnsubackPacket:
				if seen["unsuback"]++; p.MessageID != 6 {
					t.Fatalf("%+v passed", p)
				}
			case *packets.PingrespPacket:
				seen["pingresp"]++
			default:
				t.Fatalf("%T passed", p)
			}
		}
		for kind, n := range seen {
			if n > 1 {
				t.Fatalf("%d times %s", n, kind)
			}
		}
	})
}

// Nothing else may hold it up: reads and writes are of two goroutines.
func TestReadsAndWritesDoNotWaitForEachOther(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	c := New(near, most)
	defer c.Close()
	reading := make(chan error, 1)
	go func() {
		_, err := c.Read(make([]byte, 4))
		reading <- err
	}()
	go func() { _, _ = far.Read(make([]byte, 16)); _, _ = far.Write(hello) }()
	_ = c.SetWriteDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Write([]byte{0x10, 0}); err != nil {
		t.Fatal(err)
	}
	if err := <-reading; err != nil {
		t.Fatal(err)
	}
}

// Brokers that also speak MQTT 5 say goodbye to clients of 3.1.1: an end in order
// and no misbehaviour. Nothing that comes after it is passed on.
func TestADisconnectEndsTheConnectionInOrder(t *testing.T) {
	s := &scripted{in: append(join([]byte{0x20, 2, 0, 0}, []byte{0xe0, 0}), message0...), piece: 1 << 20}
	c := New(s, 1024)
	asks(t, c, 1<<20)
	got, err := io.ReadAll(c)
	if !errors.Is(err, ErrGoodbye) || errors.Is(c.Err(), ErrMisbehaving) || !s.closed {
		t.Errorf("%v, closed %v", err, s.closed)
	}
	if bytes.Contains(got, message0) {
		t.Error("a message after the goodbye was passed on")
	}
}
