package federation

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errShort and errTrailing say that a payload ends early or late.
var (
	errShort    = errors.New("it is cut off")
	errTrailing = errors.New("bytes are left over")
)

// decoder reads the protocol's primitives from b: big-endian integers, minimal
// LEB128 uvarints and byte strings with a length. The first fault sticks and
// everything after it reads as zero, so that callers check once.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

// take gives the next n bytes, aliasing the payload.
func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail(errShort)
		return nil
	}
	out := d.b[:n:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) u8() uint8 {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if b := d.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if b := d.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if b := d.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a minimal uvarint of at most most.
func (d *decoder) uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(d.b)
	switch {
	case n <= 0:
		d.fail(errShort)
		return 0
	case n > 1 && d.b[n-1] == 0:
		d.fail(errors.New("a number is not in its shortest form"))
		return 0
	case v > most:
		d.fail(fmt.Errorf("%d is above the limit of %d", v, most))
		return 0
	}
	d.b = d.b[n:]
	return v
}

// text reads a length of one or two bytes and that many bytes.
func (d *decoder) text(most int) string {
	n := d.uvarint(uint64(most))
	return string(d.take(int(n)))
}

// end says what is wrong with the payload, if anything.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		d.err = errTrailing
	}
	return d.err
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
