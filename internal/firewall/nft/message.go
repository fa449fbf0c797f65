package nft

import (
	"bytes"
	"encoding/binary"
	"syscall"

	"golang.org/x/sys/unix"
)

// message is one netlink message that was read.
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte // after the netlink header
}

const (
	headerSize = 16 // struct nlmsghdr
	generic    = 4  // struct nfgenmsg
)

// nextMessage cuts the first message off b. ok is false at the end, or where
// the lengths make no sense.
func nextMessage(b []byte) (m message, rest []byte, ok bool) {
	if len(b) < headerSize {
		return m, nil, false
	}
	n := int(binary.NativeEndian.Uint32(b))
	if n < headerSize || n > len(b) {
		return m, nil, false
	}
	m = message{
		kind:  binary.NativeEndian.Uint16(b[4:]),
		flags: binary.NativeEndian.Uint16(b[6:]),
		seq:   binary.NativeEndian.Uint32(b[8:]),
		body:  b[headerSize:n],
	}
	return m, b[min(align(n), len(b)):], true
}

// asError reads an NLMSG_ERROR: nil for an acknowledgement.
func (m message) asError() error {
	if len(m.body) < 4 {
		return errLost
	}
	n := int32(binary.NativeEndian.Uint32(m.body))
	if n == 0 {
		return nil
	}
	e := &kernelError{errno: syscall.Errno(-n), seq: m.seq}
	const (
		capped  = 0x100 // NLM_F_CAPPED
		ackTLVs = 0x200 // NLM_F_ACK_TLVS
		text    = 1     // NLMSGERR_ATTR_MSG
	)
	if m.flags&ackTLVs != 0 && len(m.body) >= 4+headerSize {
		tail := m.body[4+headerSize:]
		if m.flags&capped == 0 {
			skip := align(int(binary.NativeEndian.Uint32(m.body[4:]))) - headerSize
			tail = tail[min(max(skip, 0), len(tail)):]
		}
		for a, rest, ok := nextAttr(tail); ok; a, rest, ok = nextAttr(rest) {
			if a.kind == text {
				e.text = a.str()
			}
		}
	}
	return e
}

// attrs gives the attributes of a netfilter message.
func (m message) attrs() []byte {
	if len(m.body) < generic {
		return nil
	}
	return m.body[generic:]
}

// attr is one netlink attribute that was read.
type attr struct {
	kind uint16
	data []byte
}

func (a attr) str() string { return string(bytes.TrimRight(a.data, "\x00")) }

func (a attr) u32() uint32 {
	if len(a.data) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(a.data)
}

func (a attr) u64() uint64 {
	if len(a.data) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(a.data)
}

// nextAttr cuts the first attribute off b.
func nextAttr(b []byte) (a attr, rest []byte, ok bool) {
	if len(b) < 4 {
		return a, nil, false
	}
	n := int(binary.NativeEndian.Uint16(b))
	if n < 4 || n > len(b) {
		return a, nil, false
	}
	a = attr{kind: binary.NativeEndian.Uint16(b[2:]) & ^uint16(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), data: b[4:n]}
	return a, b[min(align(n), len(b)):], true
}

// find gives the data of the first attribute of a kind, nil when there is none.
func find(b []byte, kind uint16) []byte {
	for a, rest, ok := nextAttr(b); ok; a, rest, ok = nextAttr(rest) {
		if a.kind == kind {
			return a.data
		}
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// A writer encodes netlink messages one after the other into one buffer, which
// it keeps, so that a million bans cost no garbage.
type writer struct {
	b     []byte
	start int // of the message being written
	seq   *uint32
}

// message begins a message and gives its sequence number.
func (w *writer) message(kind, flags uint16) uint32 {
	w.start = len(w.b)
	*w.seq++
	w.b = binary.NativeEndian.AppendUint32(w.b, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	w.b = binary.NativeEndian.AppendUint16(w.b, flags|unix.NLM_F_REQUEST)
	w.b = binary.NativeEndian.AppendUint32(w.b, *w.seq)
	w.b = binary.NativeEndian.AppendUint32(w.b, 0)
	return *w.seq
}

// netfilter begins a message of nf_tables and gives its sequence number.
func (w *writer) netfilter(kind, flags uint16, family byte) uint32 {
	seq := w.message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, flags)
	w.b = append(w.b, family, unix.NFNETLINK_V0, 0, 0)
	return seq
}

// end fills in the length of the message being written.
func (w *writer) end() {
	binary.NativeEndian.PutUint32(w.b[w.start:], uint32(len(w.b)-w.start))
}

func (w *writer) attr(kind uint16, data []byte) {
	w.b = binary.NativeEndian.AppendUint16(w.b, uint16(4+len(data)))
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	w.b = append(w.b, data...)
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) text(kind uint16, s string) {
	w.b = binary.NativeEndian.AppendUint16(w.b, uint16(5+len(s)))
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	w.b = append(append(w.b, s...), 0)
	for len(w.b)%4 != 0 {
		w.b = append(w.b, 0)
	}
}

func (w *writer) u32(kind uint16, v uint32) {
	w.b = binary.NativeEndian.AppendUint16(w.b, 8)
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	w.b = binary.BigEndian.AppendUint32(w.b, v)
}

func (w *writer) u64(kind uint16, v uint64) {
	w.b = binary.NativeEndian.AppendUint16(w.b, 12)
	w.b = binary.NativeEndian.AppendUint16(w.b, kind)
	w.b = binary.BigEndian.AppendUint64(w.b, v)
}

// nest begins a nested attribute; close it with unnest and its result.
func (w *writer) nest(kind uint16) int {
	at := len(w.b)
	w.b = binary.NativeEndian.AppendUint16(w.b, 0)
	w.b = binary.NativeEndian.AppendUint16(w.b, kind|unix.NLA_F_NESTED)
	return at
}

func (w *writer) unnest(at int) {
	binary.NativeEndian.PutUint16(w.b[at:], uint16(len(w.b)-at))
}

// value writes NFTA_DATA_VALUE inside an attribute of the given kind.
func (w *writer) value(kind uint16, data []byte) {
	at := w.nest(kind)
	w.attr(unix.NFTA_DATA_VALUE, data)
	w.unnest(at)
}

// A transaction is a batch of nf_tables changes that the kernel makes together
// or not at all.
type transaction struct {
	writer
	last int // where the last inner message begins, 0 when there is none
}

// begin empties the transaction and starts it over.
func (t *transaction) begin() {
	t.b = t.b[:0]
	t.last = 0
	t.edge(unix.NFNL_MSG_BATCH_BEGIN)
}

func (t *transaction) edge(kind uint16) {
	t.message(kind, 0)
	t.b = append(t.b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0)
	binary.BigEndian.PutUint16(t.b[len(t.b)-2:], unix.NFNL_SUBSYS_NFTABLES)
	t.end()
}

// change begins an inner message of family inet about a table.
func (t *transaction) change(kind, flags uint16, tableAttr uint16, table string) {
	t.netfilter(kind, flags, unix.NFPROTO_INET)
	t.last = t.start
	t.text(tableAttr, table)
}

// A list writes elements of one set into a transaction, in as many messages as
// they take.
type list struct {
	t           *transaction
	msg, flags  uint16
	table, name string
	at          int // where the list of the message at hand begins
	count       int
}

func (t *transaction) list(msg, flags uint16, table, name string) list {
	return list{t: t, msg: msg, flags: flags, table: table, name: name}
}

// next makes ready for one more element.
func (l *list) next() {
	if l.count%perMessage == 0 {
		l.end()
		l.at = l.t.elements(l.msg, l.flags, l.table, l.name)
	}
	l.count++
}

// end closes the message at hand, if there is one.
func (l *list) end() {
	if l.count > 0 {
		l.t.unnest(l.at)
		l.t.end()
	}
}

// key writes an element that is only a key.
func (t *transaction) key(key []byte) {
	one := t.nest(unix.NFTA_LIST_ELEM)
	t.value(unix.NFTA_SET_ELEM_KEY, key)
	t.unnest(one)
}

// element writes an element of a map to a mark, with the milliseconds that it
// has left if it is timed. It is key and the rest in one go: a million of them
// come in a row.
func (t *transaction) element(key []byte, timed bool, left uint64, mark uint32) {
	head := func(b []byte, length int, kind uint16) {
		binary.NativeEndian.PutUint16(b, uint16(length))
		binary.NativeEndian.PutUint16(b[2:], kind)
	}
	const attr, most = 4, 52
	k := len(key)
	size := 3*attr + k + 3*attr
	if timed {
		size += attr + 8
	}
	at := len(t.b)
	t.b = append(t.b, make([]byte, most)...)[:at+size]
	b := t.b[at : at+size]
	head(b, size, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED)
	head(b[4:], 2*attr+k, unix.NFTA_SET_ELEM_KEY|unix.NLA_F_NESTED)
	head(b[8:], attr+k, unix.NFTA_DATA_VALUE)
	copy(b[12:], key)
	b = b[12+k:]
	if timed {
		head(b, attr+8, unix.NFTA_SET_ELEM_TIMEOUT)
		binary.BigEndian.PutUint64(b[4:], left)
		b = b[attr+8:]
	}
	head(b, 3*attr, unix.NFTA_SET_ELEM_DATA|unix.NLA_F_NESTED)
	head(b[4:], 2*attr, unix.NFTA_DATA_VALUE)
	binary.NativeEndian.PutUint32(b[8:], mark)
}

func (t *transaction) empty() bool { return t.last == 0 }

// finish asks for the acknowledgement of the last message and closes the batch.
func (t *transaction) finish() (batch []byte, lastSeq uint32) {
	flags := binary.NativeEndian.Uint16(t.b[t.last+6:])
	binary.NativeEndian.PutUint16(t.b[t.last+6:], flags|unix.NLM_F_ACK)
	lastSeq = binary.NativeEndian.Uint32(t.b[t.last+8:])
	t.edge(unix.NFNL_MSG_BATCH_END)
	return t.b, lastSeq
}
