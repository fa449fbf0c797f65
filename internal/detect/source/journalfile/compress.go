package journalfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// maxWindow bounds the memory that one compressed field can ask for. journald
// compresses each field by itself, so its window is its size; a larger field
// is no log line.
const maxWindow = 8 << 20

// A decompressor keeps its buffers from field to field.
type decompressor struct {
	zstd   *zstd.Decoder
	buffer []byte
}

func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
}

// decompress gives at most limit bytes of a compressed field.
func (d *decompressor) decompress(flags byte, payload []byte, limit int) ([]byte, error) {
	var err error
	switch flags {
	case flagZSTD:
		err = d.readZSTD(payload, limit)
	case flagLZ4:
		// The size of the whole comes first, then one block without a frame.
		if len(payload) < 8 {
			return nil, corrupt("LZ4 field of %d bytes", len(payload))
		}
		size := binary.LittleEndian.Uint64(payload)
		d.buffer, err = lz4Block(d.buffer[:0], payload[8:], int(min(size, uint64(limit))))
	default:
		return nil, fmt.Errorf("%w: compression %#x", ErrUnsupported, flags)
	}
	return d.buffer, err
}

func (d *decompressor) readZSTD(payload []byte, limit int) error {
	if d.zstd == nil {
		decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return fmt.Errorf("making a zstd decoder: %w", err)
		}
		d.zstd = decoder
	}
	if err := d.zstd.Reset(bytes.NewReader(payload)); err != nil {
		return corrupt("zstd field: %v", err)
	}
	if cap(d.buffer) < limit {
		d.buffer = make([]byte, limit)
	}
	n, err := io.ReadFull(d.zstd, d.buffer[:limit])
	d.buffer = d.buffer[:n]
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt("zstd field: %v", err)
	}
	return nil
}

// lz4Block decodes an LZ4 block (lz4_Block_format.md of the LZ4 project) until
// limit bytes have been made, appending to dst, which is empty.
func lz4Block(dst, src []byte, limit int) ([]byte, error) {
	length := func(n int) (int, bool) { // continues a length of 15
		for n < limit+len(src)+15 {
			if len(src) == 0 {
				return 0, false
			}
			b := src[0]
			src = src[1:]
			n += int(b)
			if b != 255 {
				return n, true
			}
		}
		return n, true // more than there can be: the caller's checks cut it
	}
	for len(src) > 0 && len(dst) < limit {
		token := src[0]
		src = src[1:]
		literals, ok := int(token>>4), true
		if literals == 15 {
			if literals, ok = length(literals); !ok {
				return dst, corrupt("LZ4 field is cut off")
			}
		}
		take := min(literals, limit-len(dst))
		if take > len(src) {
			return dst, corrupt("LZ4 field is cut off")
		}
		dst = append(dst, src[:take]...)
		if len(dst) >= limit {
			return dst, nil
		}
		src = src[literals:]
		if len(src) == 0 {
			return dst, nil // the last sequence has literals alone
		}
		if len(src) < 2 {
			return dst, corrupt("LZ4 field is cut off")
		}
		offset := int(binary.LittleEndian.Uint16(src))
		src = src[2:]
		if offset == 0 || offset > len(dst) {
			return dst, corrupt("LZ4 field refers to what is not there")
		}
		n := int(token & 15)
		if n == 15 {
			if n, ok = length(n); !ok {
				return dst, corrupt("LZ4 field is cut off")
			}
		}
		for range min(n+4, limit-len(dst)) {
			dst = append(dst, dst[len(dst)-offset])
		}
	}
	return dst, nil
}
