package client

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// maxFrame bounds a frame: the agent's are some 20 kB.
const maxFrame = 1 << 20

// Kinds of frames.
const (
	frameSnapshot  = 'S'
	frameChange    = 'C'
	frameResumed   = 'R'
	frameHeartbeat = 'H'
)

// Kinds of targets in a frame.
const (
	targetAddr4  = 4
	targetNet4   = 5
	targetAddr6  = 6
	targetNet6   = 7
	targetWallet = 8
)

// frame is one frame of the agent's binary stream; docs/client.md describes it.
type frame struct {
	kind   byte
	serial uint64
	more   bool   // a snapshot goes on
	run    string // of a snapshot or a resumption
	set    []update
	lift   []update
}

var errFrame = errors.New("the agent's stream makes no sense")

// readFrame reads a frame; buf is used again and again.
func readFrame(r *bufio.Reader, buf *[]byte) (frame, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxFrame {
		return frame{}, fmt.Errorf("%w: a frame of %d bytes", errFrame, size)
	}
	if cap(*buf) < int(size) {
		*buf = make([]byte, size)
	}
	b := (*buf)[:size]
	if _, err := io.ReadFull(r, b); err != nil {
		return frame{}, err
	}
	return parseFrame(head[0], b)
}

// parseFrame reads a frame's content strictly. A kind that is not known is a
// later version's, and its content is passed over.
func parseFrame(kind byte, b []byte) (f frame, err error) {
	f.kind = kind
	switch kind {
	case frameSnapshot, frameChange, frameResumed, frameHeartbeat:
	default:
		return f, nil
	}
	d := decoder{b: b}
	f.serial = d.uint(8)
	f.more = d.uint(1) == 1
	f.run = string(d.take(int(d.uint(1))))
	labels := make([]label, d.count(4))
	for i := range labels {
		labels[i].topic, labels[i].class = string(d.take(int(d.uint(1)))), string(d.take(int(d.uint(1))))
		if labels[i].origin = "network"; d.uint(1) == 1 {
			labels[i].origin = "here"
		}
	}
	if f.set, err = d.updates(labels, true); err != nil {
		return frame{}, err
	}
	if f.lift, err = d.updates(labels, false); err != nil {
		return frame{}, err
	}
	if d.bad || len(d.b) > 0 {
		return frame{}, errFrame
	}
	return f, nil
}

// decoder takes values off a frame's content; bad says that it was too short.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.b) {
		d.bad, d.b = true, nil
		return nil
	}
	b := d.b[:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) uint(size int) (n uint64) {
	for _, c := range d.take(size) {
		n = n<<8 | uint64(c)
	}
	return n
}

// count takes the number of things that have at least as many bytes each, so that
// no number costs more memory than its frame has.
func (d *decoder) count(least int) int {
	n := int(d.uint(4))
	if n > len(d.b)/least {
		d.bad, d.b = true, nil
		return 0
	}
	return n
}

// updates takes a list of targets, with their ends where those are to be set.
func (d *decoder) updates(labels []label, set bool) ([]update, error) {
	list := make([]update, d.count(1+4+2))
	for i := range list {
		k, ok := d.key()
		if !ok {
			return nil, errFrame
		}
		u := update{key: k}
		if set {
			u.until = uint32(d.uint(4))
		}
		n := int(d.uint(2))
		if d.bad || n >= len(labels) {
			return nil, errFrame
		}
		u.label = labels[n]
		list[i] = u
	}
	return list, nil
}

// key takes a target; ok is false for one that is not in its one spelling.
func (d *decoder) key() (k key, ok bool) {
	kind, size := d.uint(1), 0
	switch kind {
	case targetAddr4, targetNet4:
		size, k.bits = 4, 32
	case targetAddr6, targetNet6:
		size, k.bits = 16, 128
	case targetWallet:
		size = 20
	default:
		return k, false
	}
	if kind == targetNet4 || kind == targetNet6 {
		most := k.bits
		if k.bits = uint8(d.uint(1)); k.bits >= most {
			return k, false
		}
	}
	k.n = copy(k.b[:], d.take(size))
	if k.n != size {
		return k, false
	}
	switch size {
	case 4:
		return k, keyOfPrefix(netip.PrefixFrom(netip.AddrFrom4([4]byte(k.b[:4])), int(k.bits))) == k
	case 16:
		return k, key6([16]byte(k.b[:16]), int(k.bits)) == k
	}
	return k, true
}
