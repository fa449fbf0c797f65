// Package frame reads and writes MQTT 3.1.1 control packets as whole, checked
// frames, so that nothing malformed reaches the engine behind it. It never
// panics, allocates nothing that grows with an announced length, and its cost
// is linear in the bytes at hand. Sources: OASIS MQTT Version 3.1.1.
package frame

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Types of control packets (MQTT 3.1.1, table 2.1).
const (
	Connect     byte = 1
	Connack     byte = 2
	Publish     byte = 3
	Puback      byte = 4
	Pubrec      byte = 5
	Pubrel      byte = 6
	Pubcomp     byte = 7
	Subscribe   byte = 8
	Suback      byte = 9
	Unsubscribe byte = 10
	Unsuback    byte = 11
	Pingreq     byte = 12
	Pingresp    byte = 13
	Disconnect  byte = 14
)

// The faults of a frame, for those who count.
var (
	ErrMalformed = errors.New("malformed packet")
	ErrTooLarge  = errors.New("packet too large")
	ErrProtocol  = errors.New("protocol violation")
)

// MaxHeader is the longest fixed header: type, and a length of at most four
// bytes (section 2.2.3).
const MaxHeader = 5

// A Header is a fixed header.
type Header struct {
	Type      byte
	Flags     byte
	Remaining int // bytes that follow the header
	Size      int // of the header itself
}

// ParseHeader reads a fixed header from the beginning of b. ok is false as
// long as more bytes are needed. A frame, header included, of more than most
// bytes is refused with [ErrTooLarge] as soon as its length can be read.
func ParseHeader(b []byte, most int) (h Header, ok bool, err error) {
	if len(b) < 2 {
		return h, false, nil
	}
	h.Type, h.Flags = b[0]>>4, b[0]&0x0f
	shift := 0
	for i := 1; ; i++ {
		if i == MaxHeader {
			return h, false, fmt.Errorf("%w: its length has more than four bytes", ErrMalformed)
		}
		if i == len(b) {
			return h, false, nil
		}
		h.Remaining |= int(b[i]&0x7f) << shift
		shift += 7
		if b[i]&0x80 == 0 {
			h.Size = i + 1
			break
		}
	}
	if h.Size+h.Remaining > most {
		return h, false, fmt.Errorf("%w: %d bytes", ErrTooLarge, h.Size+h.Remaining)
	}
	return h, true, nil
}

// Check checks the body of a packet that a client may send after CONNECT: the
// flags, lengths, identifiers, and the spelling of topics and filters.
func Check(h Header, body []byte) error {
	want := byte(0)
	switch h.Type {
	case Publish:
		_, err := ParsePublish(h, body)
		return err
	case Pubrel, Subscribe, Unsubscribe:
		want = 2
	case Puback, Pubrec, Pubcomp, Pingreq, Disconnect:
	case Connect:
		return fmt.Errorf("%w: a second CONNECT", ErrProtocol)
	default:
		return fmt.Errorf("%w: type %d from a client", ErrProtocol, h.Type)
	}
	if h.Flags != want {
		return fmt.Errorf("%w: flags %#x in type %d", ErrMalformed, h.Flags, h.Type)
	}
	r := reader{b: body}
	switch h.Type {
	case Pingreq, Disconnect:
	case Subscribe:
		r.id()
		for first := true; first || (len(r.b) > 0 && r.err == nil); first = false {
			checkFilter(&r)
			if q := r.u8(); q > 2 {
				r.fail("a QoS above 2")
			}
		}
	case Unsubscribe:
		r.id()
		for first := true; first || (len(r.b) > 0 && r.err == nil); first = false {
			checkFilter(&r)
		}
	default:
		r.id()
	}
	return r.end()
}

func checkFilter(r *reader) {
	f := r.text()
	if r.err == nil {
		if err := CheckFilter(f); err != nil {
			r.err = err
		}
	}
}

// CheckFilter checks the spelling of a topic filter (section 4.7).
func CheckFilter(f []byte) error {
	if len(f) == 0 {
		return fmt.Errorf("%w: an empty filter", ErrMalformed)
	}
	for i, c := range f {
		starts := i == 0 || f[i-1] == '/'
		ends := i == len(f)-1 || f[i+1] == '/'
		if (c == '+' && (!starts || !ends)) || (c == '#' && (!starts || i != len(f)-1)) {
			return fmt.Errorf("%w: a wildcard inside a level", ErrMalformed)
		}
	}
	return nil
}

// A Publication is a PUBLISH. Its slices alias the frame.
type Publication struct {
	Topic   []byte
	Payload []byte
	ID      uint16 // 0 with QoS 0
	QoS     byte
	Retain  bool
	Dup     bool
}

// ParsePublish reads the body of a PUBLISH.
func ParsePublish(h Header, body []byte) (Publication, error) {
	p := Publication{QoS: h.Flags >> 1 & 3, Retain: h.Flags&1 != 0, Dup: h.Flags&8 != 0}
	r := reader{b: body}
	p.Topic = r.text()
	if p.QoS > 0 {
		p.ID = r.id()
	}
	switch {
	case r.err != nil:
	case p.QoS == 3, p.QoS == 0 && p.Dup:
		r.fail("wrong QoS flags")
	case len(p.Topic) == 0:
		r.fail("an empty topic")
	default:
		for _, c := range p.Topic {
			if c == '+' || c == '#' {
				r.fail("a wildcard in a topic")
				break
			}
		}
	}
	p.Payload = r.b
	return p, r.err
}

// AckID gives the packet identifier of a PUBACK's body that [Check] passed.
func AckID(body []byte) uint16 { return uint16(body[0])<<8 | uint16(body[1]) }

// AppendPuback appends a PUBACK.
func AppendPuback(b []byte, id uint16) []byte {
	return append(b, Puback<<4, 2, byte(id>>8), byte(id))
}

// AppendConnack appends a CONNACK that refuses.
func AppendConnack(b []byte, code byte) []byte { return append(b, Connack<<4, 2, 0, code) }

// AppendPublish appends a PUBLISH with the identifier 0 where QoS is above 0,
// and gives the offset of that identifier in the bytes that it appended, or -1. One
// encoding then serves every receiver: copy it and set the identifier.
func AppendPublish(b []byte, topic string, payload []byte, qos byte, retain bool) (out []byte, id int) {
	first := Publish<<4 | qos<<1
	if retain {
		first |= 1
	}
	remaining := 2 + len(topic) + len(payload)
	if qos > 0 {
		remaining += 2
	}
	begin := len(b)
	b = append(b, first)
	b = appendLength(b, remaining)
	b = append(b, byte(len(topic)>>8), byte(len(topic)))
	b = append(b, topic...)
	id = -1
	if qos > 0 {
		id = len(b) - begin
		b = append(b, 0, 0)
	}
	return append(b, payload...), id
}

func appendLength(b []byte, n int) []byte {
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n > 0 {
			c |= 0x80
		}
		b = append(b, c)
		if n == 0 {
			return b
		}
	}
}

// A reader takes fields off a body and remembers the first fault.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(what string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, what)
	}
}

func (r *reader) u8() byte {
	if r.err != nil || len(r.b) < 1 {
		r.fail("it is cut off")
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) u16() uint16 {
	if r.err != nil || len(r.b) < 2 {
		r.fail("it is cut off")
		return 0
	}
	v := uint16(r.b[0])<<8 | uint16(r.b[1])
	r.b = r.b[2:]
	return v
}

// id reads a packet identifier, which is never 0 (section 2.3.1).
func (r *reader) id() uint16 {
	v := r.u16()
	if r.err == nil && v == 0 {
		r.fail("packet identifier 0")
	}
	return v
}

func (r *reader) bytes() []byte {
	n := int(r.u16())
	if r.err != nil || len(r.b) < n {
		r.fail("it is cut off")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

// text reads a UTF-8 string without U+0000 (section 1.5.3).
func (r *reader) text() []byte {
	b := r.bytes()
	if r.err != nil {
		return nil
	}
	for i := 0; i < len(b); {
		if b[i] < utf8.RuneSelf {
			if b[i] == 0 {
				r.fail("U+0000 in a string")
				return nil
			}
			i++
			continue
		}
		c, n := utf8.DecodeRune(b[i:])
		if c == utf8.RuneError && n == 1 {
			r.fail("a string that is not UTF-8")
			return nil
		}
		i += n
	}
	return b
}

// end fails where bytes are left over.
func (r *reader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.fail("bytes after its end")
	}
	return r.err
}
