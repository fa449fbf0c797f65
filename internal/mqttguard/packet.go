package mqttguard

import "unicode/utf8"

// Types of control packets (MQTT 3.1.1, table 2.1).
const (
	connack   = 2
	publish   = 3
	puback    = 4
	subscribe = 8
	suback    = 9
	unsub     = 10
	unsuback  = 11
	pingreq   = 12
	pingresp  = 13
	goodbye   = 14 // only a client sends one in 3.1.1, and yet servers do when they stop
)

// maxHeader is the longest fixed header: a type, and a length of at most four
// bytes (section 2.2.3).
const maxHeader = 5

// A header is a fixed header.
type header struct {
	kind, flags byte
	size        int // of the header
	remaining   int // bytes after it
}

// parseHeader reads a fixed header; ok is false while bytes of it are missing.
func parseHeader(b []byte) (h header, ok bool, err error) {
	for i := 1; i < len(b); i++ {
		if i == maxHeader {
			return h, false, misbehaving("a length of more than four bytes")
		}
		h.remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			h.kind, h.flags, h.size = b[0]>>4, b[0]&15, i+1
			return h, true, nil
		}
	}
	return h, false, nil
}

// text takes a UTF-8 string off b (section 1.5.3).
func text(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(b[0])<<8 | int(b[1])
	if len(b) < 2+n {
		return nil, nil, false
	}
	s, rest = b[2:2+n], b[2+n:]
	if !utf8.Valid(s) {
		return nil, nil, false
	}
	for _, c := range s {
		if c == 0 {
			return nil, nil, false
		}
	}
	return s, rest, true
}

// identifier reads a packet identifier at the beginning of b, or gives 0.
func identifier(b []byte) uint16 {
	if len(b) < 2 {
		return 0
	}
	return uint16(b[0])<<8 | uint16(b[1])
}

// checkPublish checks a publication to a client that was granted at most QoS 1.
func checkPublish(h header, body []byte) error {
	qos, dup := h.flags>>1&3, h.flags&8 != 0
	topic, rest, ok := text(body)
	switch {
	case qos > 1:
		return misbehaving("a publication with QoS %d", qos)
	case dup && qos == 0:
		return misbehaving("a repeated publication with QoS 0")
	case !ok || len(topic) == 0:
		return misbehaving("a publication without a topic that is text")
	case qos == 1 && identifier(rest) == 0:
		return misbehaving("a publication without an identifier")
	}
	for _, c := range topic {
		if c == '+' || c == '#' {
			return misbehaving("a publication with a wildcard in its topic")
		}
	}
	return nil
}
