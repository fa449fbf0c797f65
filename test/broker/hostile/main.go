// Command hostile is an MQTT broker that wants to harm its clients: it answers
// with broken, foreign and oversized packets, with answers to questions that
// nobody put, with floods and with silence. Each connection gets another mood.
// It prints its address, and serves until it is ended.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address")
	seed := flag.Uint64("seed", 1, "where chance and the moods begin")
	flag.Parse()
	l, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
	fmt.Println(l.Addr())
	for n := uint64(0); ; n++ {
		c, err := l.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
			os.Exit(1)
		}
		s := &session{Conn: c, in: bufio.NewReader(c), chance: rand.New(rand.NewPCG(*seed, n))}
		go s.serve(moods[(n+*seed)%uint64(len(moods))])
	}
}

// A session is one connection of a victim.
type session struct {
	net.Conn
	in     *bufio.Reader
	chance *rand.Rand
}

// lifetime bounds a session: a victim that is held by silence shall meet the
// other moods, too.
const lifetime = 3 * time.Second

var moods = []func(*session){
	(*session).wrongAnswers, (*session).floodQoS2, (*session).noise, (*session).announce, (*session).silence,
	(*session).spray, (*session).strangers, (*session).tooManyCodes, (*session).refuse, (*session).drip,
}

func (s *session) serve(mood func(*session)) {
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(lifetime))
	if kind, _, err := s.packet(); err != nil || kind != 1 {
		return
	}
	mood(s)
}

// packet reads one packet of the victim.
func (s *session) packet() (kind byte, body []byte, err error) {
	first, err := s.in.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(s.in)
	if err != nil || n > 1<<20 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	body = make([]byte, n)
	_, err = io.ReadFull(s.in, body)
	return first >> 4, body, err
}

func frame(first byte, body ...byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func (s *session) send(b []byte) bool {
	_, err := s.Write(b)
	return err == nil
}

func (s *session) greet() bool { return s.send(frame(0x20, 0, 0)) }

// answer is the right answer to a packet, or nil.
func answer(kind byte, body []byte) []byte {
	if len(body) < 2 {
		if kind == 12 {
			return frame(0xd0)
		}
		return nil
	}
	switch kind {
	case 3: // a publication of QoS 1: the identifier follows the topic
		at := 2 + int(binary.BigEndian.Uint16(body))
		if at+2 > len(body) {
			return nil
		}
		return frame(0x40, body[at], body[at+1])
	case 8:
		codes := []byte{body[0], body[1]}
		for rest := body[2:]; len(rest) > 2; {
			n := 2 + int(binary.BigEndian.Uint16(rest))
			if n >= len(rest) {
				break
			}
			codes = append(codes, rest[n])
			rest = rest[n+1:]
		}
		return frame(0x90, codes...)
	case 10:
		return frame(0xb0, body[0], body[1])
	}
	return nil
}

// wrongAnswers answers rightly for a while, then with one byte changed, left
// out or added.
func (s *session) wrongAnswers() {
	s.greet()
	for {
		kind, body, err := s.packet()
		if err != nil {
			return
		}
		b := answer(kind, body)
		if b != nil && s.chance.IntN(3) == 0 {
			switch at := s.chance.IntN(len(b)); s.chance.IntN(3) {
			case 0:
				b[at] ^= 1 << s.chance.IntN(8)
			case 1:
				b = append(b[:at], b[at+1:]...)
			case 2:
				b = append(b, byte(s.chance.IntN(256)))
			}
		}
		if !s.send(b) {
			return
		}
	}
}

// tooManyCodes answers a SUBSCRIBE with one code more than it has filters.
func (s *session) tooManyCodes() {
	s.greet()
	for {
		kind, body, err := s.packet()
		if err != nil {
			return
		}
		b := answer(kind, body)
		if kind == 8 {
			b = frame(0x90, append(b[2:], 0)...)
		}
		if !s.send(b) {
			return
		}
	}
}

func (s *session) publication(topic string, qos byte, size int) []byte {
	body := append(binary.BigEndian.AppendUint16(nil, uint16(len(topic))), topic...)
	if qos > 0 {
		body = binary.BigEndian.AppendUint16(body, uint16(1+s.chance.IntN(65535)))
	}
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = byte(s.chance.Uint32())
	}
	return frame(0x31|qos<<1, append(body, payload...)...)
}

// floodQoS2 never completes a publication that it began.
func (s *session) floodQoS2() {
	s.greet()
	for s.send(s.publication("banmesh/1/testnet/sshd/a/b/head", 2, 64<<10)) {
	}
}

// spray sends publications that the protocol of MQTT allows, of topics and
// payloads that nobody signed.
func (s *session) spray() {
	s.greet()
	topics := []string{"banmesh/1/testnet/sshd/a/b/head", "banmesh/1/testnet/operators/a/card", "x", "banmesh/1/testnet/sshd/\u202e/b/delta/0", "$SYS/x"}
	for s.send(s.publication(topics[s.chance.IntN(len(topics))], byte(s.chance.IntN(2)), s.chance.IntN(128<<10))) {
	}
}

func (s *session) noise() {
	b := make([]byte, 1<<10)
	for {
		for i := range b {
			b[i] = byte(s.chance.Uint32())
		}
		if !s.send(b) {
			return
		}
	}
}

// announce promises 256 MiB, and sends some of it.
func (s *session) announce() {
	s.greet()
	s.send([]byte{0x30, 0xff, 0xff, 0xff, 0x7f})
	for s.send(make([]byte, 64<<10)) {
	}
}

func (s *session) silence() { _, _ = io.Copy(io.Discard, s.in) }

// strangers sends packets that only a client sends, and acknowledges packets that were
// never sent.
func (s *session) strangers() {
	s.greet()
	kinds := []byte{0x00, 0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xa2, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0}
	for s.send(frame(kinds[s.chance.IntN(len(kinds))], byte(s.chance.Uint32()), byte(s.chance.Uint32()))) {
	}
}

func (s *session) refuse() { s.send(frame(0x20, 0, byte(s.chance.IntN(256)))) }

// drip sends a large publication byte by byte.
func (s *session) drip() {
	s.greet()
	for _, b := range s.publication("banmesh/1/testnet/sshd/a/b/head", 1, 100<<10) {
		if !s.send([]byte{b}) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
