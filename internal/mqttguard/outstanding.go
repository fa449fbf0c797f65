package mqttguard

// An outstanding is the answers that the client waits for.
type outstanding struct {
	greeted    bool                // a CONNACK came
	pings      int                 // PINGREQs without an answer
	publishes  map[uint16]struct{} // QoS 1
	subscribes map[uint16][]byte   // the QoS asked for each filter
	unsubs     map[uint16]struct{}
}

func newOutstanding() outstanding {
	return outstanding{publishes: map[uint16]struct{}{}, subscribes: map[uint16][]byte{}, unsubs: map[uint16]struct{}{}}
}

// lastCode is the highest return code of a CONNACK (section 3.2.2.3), refused
// the least code of a SUBACK that grants nothing.
const (
	lastCode = 5
	refused  = 0x80
)

// answer says whether a server may send a packet now, and takes the question
// that it answers off the list.
func (o *outstanding) answer(h header, body []byte) error {
	if (h.kind == connack) == o.greeted {
		return misbehaving("a packet of type %d %s", h.kind, map[bool]string{false: "before the answer to CONNECT", true: "again"}[o.greeted])
	}
	if h.kind == publish {
		return checkPublish(h, body)
	}
	if h.flags != 0 {
		return misbehaving("flags %#x in a packet of type %d", h.flags, h.kind)
	}
	if h.kind == goodbye && len(body) == 0 {
		return ErrGoodbye
	}
	if !fits(h.kind, len(body)) {
		return misbehaving("%d bytes in a packet of type %d", len(body), h.kind)
	}
	id := identifier(body)
	switch h.kind {
	case connack:
		if body[0] != 0 || body[1] > lastCode {
			return misbehaving("an answer %x to a CONNECT with a clean session", body)
		}
		o.greeted = true
		return nil
	case puback:
		if _, ok := o.publishes[id]; ok {
			delete(o.publishes, id)
			return nil
		}
	case suback:
		if asked, ok := o.subscribes[id]; ok {
			delete(o.subscribes, id)
			return granted(asked, body[2:])
		}
	case unsuback:
		if _, ok := o.unsubs[id]; ok {
			delete(o.unsubs, id)
			return nil
		}
	case pingresp:
		if o.pings > 0 {
			o.pings--
			return nil
		}
	}
	return misbehaving("a packet of type %d that answers nothing", h.kind)
}

// fits says whether the body of an answer has a length that the type allows.
func fits(kind byte, n int) bool {
	switch kind {
	case connack, puback, unsuback:
		return n == 2
	case suback:
		return n > 2
	}
	return n == 0
}

// granted checks the codes of a SUBACK: one for each filter, and none above the
// QoS that was asked for. From refused on they are refusals: brokers made for
// MQTT 5 give its codes to clients of 3.1.1 as well, mochi while an identifier
// is still in use.
func granted(asked, codes []byte) error {
	if len(codes) != len(asked) {
		return misbehaving("%d answers to a SUBSCRIBE of %d filters", len(codes), len(asked))
	}
	for i, code := range codes {
		if code < refused && code > asked[i] {
			return misbehaving("QoS %d granted where %d was asked for", code, asked[i])
		}
	}
	return nil
}

// A sender follows the packets that the client writes. It keeps the beginning
// of a publication, and the whole of the small packets whose content matters.
type sender struct {
	packet []byte // as far as it is kept
	skip   int    // bytes of the packet at hand that need not be kept
}

// note takes bytes that the client sends.
func (s *sender) note(p []byte, o *outstanding) {
	for len(p) > 0 {
		if s.skip > 0 {
			n := min(s.skip, len(p))
			s.skip, p = s.skip-n, p[n:]
			continue
		}
		h, ok, err := parseHeader(s.packet)
		if err != nil {
			s.packet = nil // our own client does not do that
			continue
		}
		want := len(s.packet) + 1
		if ok {
			want = s.kept(h)
		}
		n := min(want-len(s.packet), len(p))
		s.packet, p = append(s.packet, p[:n]...), p[n:]
		if !ok {
			if h, ok, _ = parseHeader(s.packet); !ok {
				continue
			}
		}
		if len(s.packet) < s.kept(h) {
			continue
		}
		s.asks(h, o)
		s.skip = h.size + h.remaining - len(s.packet)
		s.packet = s.packet[:0]
	}
}

// kept is how many bytes of a packet have to be seen: all of it, but a
// publication's only up to its identifier.
func (s *sender) kept(h header) int {
	whole := h.size + h.remaining
	if h.kind != publish {
		return whole
	}
	if len(s.packet) < h.size+2 {
		return min(h.size+2, whole)
	}
	return min(h.size+2+int(identifier(s.packet[h.size:]))+2, whole)
}

// asks notes the question that a packet puts.
func (s *sender) asks(h header, o *outstanding) {
	body := s.packet[h.size:]
	switch h.kind {
	case publish:
		if h.flags>>1&3 == 1 && len(body) >= 2 {
			o.publishes[identifier(body[min(len(body), 2+int(identifier(body))):])] = struct{}{}
		}
	case subscribe:
		id, asked := identifier(body), []byte(nil)
		for rest := body[min(2, len(body)):]; len(rest) > 0; {
			_, after, ok := text(rest)
			if !ok || len(after) == 0 {
				break
			}
			asked, rest = append(asked, after[0]), after[1:]
		}
		o.subscribes[id] = asked
	case unsub:
		o.unsubs[identifier(body)] = struct{}{}
	case pingreq:
		o.pings++
	}
}
