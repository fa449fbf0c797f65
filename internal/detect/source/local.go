package source

import (
	"encoding/binary"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"time"
)

// Docker's log driver "local" writes records one after the other: the length of
// a record as four bytes, big-endian, the record, and its length again. A
// record is protobuf: 1 the stream's name, 2 the time in nanoseconds, 3 the
// text without its newline, 4 whether it is a piece of a line, 5 of a piece
// whether it is the last one (field 1 therein).
const (
	localDriver = "local"
	localDir    = "local-logs"
	localFile   = "container.log"
	// lengthSize is that of each of the two lengths.
	lengthSize = 4
	// maxLocalRecord is Docker's own bound of a record.
	maxLocalRecord = 1_000_000
	// maxResync is how far before the end of a damaged log its records are looked for.
	maxResync = 64 << 20
)

// errDamaged says that no record stands where one must.
var errDamaged = errors.New("the log is damaged")

// isLocalLog says that a path is that of a log of the driver "local".
func isLocalLog(path string) bool {
	dir, base := filepath.Split(path)
	return strings.HasPrefix(base, localFile) && filepath.Base(dir) == localDir
}

// A localDecoder reads the records of one container.
type localDecoder struct{ dockerDecoder }

func (d *localDecoder) decode(raw []byte, line *Line) outcome {
	if len(d.matched) == 0 {
		return skipped
	}
	r, ok := parseLocal(raw)
	if !ok {
		return unusable
	}
	return d.add(r.text, r.stream, !r.piece || r.last, time.Unix(0, r.nanoseconds).UTC(), line)
}

// A localRecord is one record of the driver "local".
type localRecord struct {
	stream      string
	nanoseconds int64
	text        []byte // within the record
	piece, last bool
}

// parseLocal reads a record. Fields that are not known are passed over.
func parseLocal(raw []byte) (r localRecord, ok bool) {
	ok = eachField(raw, func(field uint64, number uint64, value []byte) {
		switch {
		case field == 1 && string(value) == "stderr":
			r.stream = "stderr"
		case field == 1:
			r.stream = "stdout"
		case field == 2:
			r.nanoseconds = int64(number)
		case field == 3:
			r.text = value
		case field == 4:
			r.piece = number != 0
		case field == 5:
			ok := eachField(value, func(field uint64, number uint64, _ []byte) {
				if field == 1 {
					r.last = number != 0
				}
			})
			r.last = r.last && ok
		}
	})
	return r, ok && r.stream != "" && r.nanoseconds > 0
}

// eachField tells the fields of a protobuf message: the number of one that is a
// number, the bytes of one that has them. It is false for bytes that are none.
func eachField(b []byte, tell func(field, number uint64, value []byte)) bool {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return false
		}
		b = b[n:]
		var number uint64
		var value []byte
		switch tag & 7 {
		case 0:
			if number, n = binary.Uvarint(b); n <= 0 {
				return false
			}
		case 1:
			n = 8
		case 2:
			size, m := binary.Uvarint(b)
			if m <= 0 || size > uint64(len(b)-m) {
				return false
			}
			n = m + int(size)
			value = b[m:n]
		case 5:
			n = 4
		default:
			return false
		}
		if n > len(b) {
			return false
		}
		tell(tag>>3, number, value)
		b = b[n:]
	}
	return true
}

// consumeRecords is consume for records that are told apart by their lengths.
// It gives the offset after the bytes that it took, and errDamaged where no
// record follows.
func (f *file) consumeRecords(data []byte, at int64, handle func(raw []byte) (bool, error), c *counters) (int64, error) {
	if len(f.partial) > 0 {
		at -= int64(len(f.partial))
		data = append(f.partial, data...)
	}
	f.partial = nil
	for {
		raw, whole := nextRecord(data)
		if !whole {
			f.partial = append([]byte(nil), data...)
			return at + int64(len(data)), nil
		}
		if raw == nil {
			c.dropped.Add(1)
			f.committed.Store(at)
			return at, errDamaged
		}
		complete, err := handle(raw)
		if err != nil {
			return f.committed.Load(), err
		}
		used := len(raw) + 2*lengthSize
		data, at = data[used:], at+int64(used)
		if complete {
			f.committed.Store(at)
		}
	}
}

// nextRecord gives the record that data begins with, nil where it begins with none;
// whole is false where that cannot be said before more of it is there.
func nextRecord(data []byte) (raw []byte, whole bool) {
	if len(data) < lengthSize {
		return nil, false
	}
	n := int64(binary.BigEndian.Uint32(data))
	if n == 0 || n > maxLocalRecord {
		return nil, true
	}
	if int64(len(data)) < n+2*lengthSize {
		return nil, false
	}
	if int64(binary.BigEndian.Uint32(data[lengthSize+n:])) != n {
		return nil, true
	}
	return data[lengthSize : lengthSize+n], true
}

// resync gives where reading goes on behind damage: the first of the unbroken
// records that a log ends with. They are found from its end, where Docker
// appends: a text that looks like a record stands within one, so that no walk
// from the end meets it, while a search forward would take it for one. Where the
// log does not end with a record, its end is given.
func resync(r io.ReaderAt, damage int64) int64 {
	size := sizeOf(r)
	if size <= damage {
		return damage
	}
	at := size
	for size-at < maxResync {
		before, ok := recordBefore(r, at)
		if !ok || before <= damage {
			break
		}
		at = before
	}
	return at
}

// sizeOf gives the size of the readable part.
func sizeOf(r io.ReaderAt) int64 {
	switch r := r.(type) {
	case interface{ Size() int64 }:
		return r.Size()
	case io.Seeker:
		size, err := r.Seek(0, io.SeekEnd)
		if err == nil {
			return size
		}
	}
	return 0
}

// recordBefore gives where the record begins that ends at an offset.
func recordBefore(r io.ReaderAt, end int64) (int64, bool) {
	var b [lengthSize]byte
	if end < 2*lengthSize {
		return 0, false
	}
	if _, err := r.ReadAt(b[:], end-lengthSize); err != nil {
		return 0, false
	}
	n := int64(binary.BigEndian.Uint32(b[:]))
	at := end - n - 2*lengthSize
	if n == 0 || n > maxLocalRecord || at < 0 {
		return 0, false
	}
	if _, err := r.ReadAt(b[:], at); err != nil || int64(binary.BigEndian.Uint32(b[:])) != n {
		return 0, false
	}
	return at, true
}

// recordsSince gives where the records begin that were written at a time or
// later.
func recordsSince(r io.ReaderAt, size int64, since time.Time) int64 {
	const head = 64 // holds the time, which stands behind the stream's name
	b := make([]byte, head)
	at := size
	for at > 0 {
		before, ok := recordBefore(r, at)
		if !ok {
			break
		}
		n, err := r.ReadAt(b[:min(head, at-before-2*lengthSize)], before+lengthSize)
		if err != nil && !errors.Is(err, io.EOF) {
			break
		}
		var nanoseconds int64
		eachField(b[:n], func(field, number uint64, _ []byte) {
			if field == 2 {
				nanoseconds = int64(number)
			}
		})
		if time.Unix(0, nanoseconds).Before(since) {
			break
		}
		at = before
	}
	return at
}
