package wire

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

// Decoder reads the protocol's primitives from b: big-endian integers, minimal
// LEB128 uvarints and byte strings with a length. The first fault sticks and
// everything after it reads as zero, so that callers check once.
type Decoder struct {
	B   []byte
	err error
}

func (d *Decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.B = nil
}

// Take gives the next n bytes, aliasing the payload.
func (d *Decoder) Take(n int) []byte {
	if n < 0 || n > len(d.B) {
		d.fail(errShort)
		return nil
	}
	out := d.B[:n:n]
	d.B = d.B[n:]
	return out
}

// U8 reads a byte; 0 after a fault, like the other reading methods.
func (d *Decoder) U8() uint8 {
	if b := d.Take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *Decoder) u16() uint16 {
	if b := d.Take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

// U32 reads four bytes, the highest first.
func (d *Decoder) U32() uint32 {
	if b := d.Take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// U64 reads eight bytes, the highest first.
func (d *Decoder) U64() uint64 {
	if b := d.Take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// Uvarint reads a minimal uvarint of at most most.
func (d *Decoder) Uvarint(most uint64) uint64 {
	v, n := binary.Uvarint(d.B)
	switch {
	case n <= 0:
		d.fail(errShort)
		return 0
	case n > 1 && d.B[n-1] == 0:
		d.fail(errors.New("a number is not in its shortest form"))
		return 0
	case v > most:
		d.fail(fmt.Errorf("%d is above the limit of %d", v, most))
		return 0
	}
	d.B = d.B[n:]
	return v
}

// text reads a length of one or two bytes and that many bytes.
func (d *Decoder) text(most int) string {
	n := d.Uvarint(uint64(most))
	return string(d.Take(int(n)))
}

// End gives the first fault of the payload, or nil.
func (d *Decoder) End() error {
	if d.err == nil && len(d.B) > 0 {
		d.err = errTrailing
	}
	return d.err
}

func appendText(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}
