package source

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// headSize and tailSize are how much of a file's beginning, and of what
	// was read last, tells it from another file and from itself emptied and
	// written anew. Log lines begin with their time, so a line's worth each
	// is enough.
	headSize = 256
	tailSize = 64
	// chunkSize is how much is read at once. It bounds how long a checkpoint
	// waits for the gate: about a thousand lines.
	chunkSize = 128 << 10
	// turnSize is how much of one file is read before the next has its turn,
	// so that a file with a day of backlog does not hold up the others.
	turnSize = 4 << 20
)

// fileID tells files apart whatever their names.
type fileID struct{ device, inode uint64 }

func idOf(info os.FileInfo) fileID {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fileID{}
	}
	return fileID{device: uint64(st.Dev), inode: st.Ino}
}

// errTruncated says that a file no longer holds the bytes that were read from it.
var errTruncated = errors.New("the file was truncated")

// A file is one open log file. Only the goroutine of its part touches it,
// except the atomic fields and those that mark reads.
type file struct {
	id      fileID
	path    string   // the name it has, or had last
	target  string   // the file that it links to, or ""
	f       *os.File // open for reading
	format  format
	decoder decoder
	framed  bool // its records are told apart by their lengths
	matched []int

	head    []byte // its first bytes, up to headSize
	tail    []byte // the last bytes before readAt, up to tailSize
	partial []byte // the bytes before readAt that are not a whole line yet
	readAt  int64

	// committed is the offset after the last handled line; cut says that the
	// line there was handled already.
	committed atomic.Int64
	cut       atomic.Bool
	size      atomic.Int64
	marks     atomic.Pointer[marks]

	rotated  bool          // its name belongs to another file, or to none
	leftAt   time.Time     // when that was seen
	done     atomic.Bool   // it was read to its end then, and has long been quiet
	grewAt   time.Time     // when it last had something new
	before   *file         // the generation that must be read to its end first
	fresh    atomic.Bool   // it may turn out to be a copy of another
	freshAt  time.Time     // since when
	earlier  *FilePosition // where it was when it was last emptied
	atEnd    bool          // the last read found nothing more
	dirty    bool          // it should be looked at
	reported bool          // a failure to read it was logged
}

// marks are the fingerprints of a position; replaced whole, never changed.
type marks struct {
	head     string
	headSize int
	tail     string
	tailSize int
	tailEnd  int64
}

// position is where the file goes on after a restart.
func (f *file) position() FilePosition {
	p := FilePosition{
		Path: f.path, Target: f.target, Device: f.id.device, Inode: f.id.inode,
		Offset: f.committed.Load(), Cut: f.cut.Load(), New: f.fresh.Load(), Done: f.done.Load(),
	}
	if m := f.marks.Load(); m != nil {
		p.Head, p.HeadSize, p.Tail, p.TailSize, p.TailEnd = m.head, m.headSize, m.tail, m.tailSize, m.tailEnd
	}
	return p
}

// seek goes to an offset at which a line begins, or to the inside of one that
// was handled already.
func (f *file) seek(offset int64, cut bool) error {
	f.partial, f.readAt, f.atEnd, f.dirty = nil, offset, false, true
	f.committed.Store(offset)
	f.cut.Store(cut)
	f.decoder = f.format.decoder(f)
	_, f.framed = f.decoder.(*localDecoder)
	f.tail = f.tail[:0]
	if n := min(offset, tailSize); n > 0 {
		tail := make([]byte, n)
		if _, err := io.ReadFull(io.NewSectionReader(f.f, offset-n, n), tail); err != nil {
			return err
		}
		f.tail = tail
	}
	return f.remember()
}

// remember reads the file's head as far as it is not known yet and renews the
// fingerprints. A head that changed means that the file was written anew.
func (f *file) remember() error {
	if len(f.head) < headSize {
		head := make([]byte, headSize)
		n, err := f.f.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n < len(f.head) || !bytes.Equal(head[:len(f.head)], f.head) {
			return errTruncated
		}
		f.head = head[:n]
	}
	f.marks.Store(&marks{
		head: fingerprint(f.head), headSize: len(f.head),
		tail: fingerprint(f.tail), tailSize: len(f.tail), tailEnd: f.readAt,
	})
	return nil
}

// read reads one chunk into buf, which has room for tailSize more than that,
// and gives the new bytes. It fails with errTruncated if the file no longer
// holds the bytes read before, which also shows when it has grown beyond that
// again.
func (f *file) read(buf []byte) ([]byte, error) {
	kept := len(f.tail)
	n, err := f.f.ReadAt(buf[:kept+chunkSize], f.readAt-int64(kept))
	if n < kept || !bytes.Equal(buf[:kept], f.tail) {
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, errTruncated
	}
	if f.readAt == 0 && (n < len(f.head) || !bytes.Equal(buf[:len(f.head)], f.head)) {
		return nil, errTruncated
	}
	if n == kept && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf[kept:n], nil
}

// intact reports whether the file still holds the bytes that were read from it.
// A file that cannot be read says nothing of that.
func (f *file) intact() bool {
	if len(f.head) < headSize {
		if err := f.remember(); err != nil {
			return !errors.Is(err, errTruncated)
		}
	}
	var buf [headSize]byte
	want, at := f.tail, f.readAt-int64(len(f.tail))
	if f.readAt == 0 {
		want = f.head
	}
	n, err := f.f.ReadAt(buf[:len(want)], at)
	if err != nil && !errors.Is(err, io.EOF) {
		return true
	}
	return bytes.Equal(buf[:n], want)
}

// consume hands on the lines of data, which follows the bytes read before. The
// caller holds the gate. An error is the handler's.
func (f *file) consume(data []byte, handle func(raw []byte) (bool, error), c *counters) error {
	read := f.readAt // the offset of data[0]
	defer func() { f.readAt = read }()
	if f.framed {
		used, err := f.consumeRecords(data, read, handle, c)
		read = used
		return err
	}
	limit := f.format.limit()
	for len(data) > 0 {
		if f.cut.Load() {
			i := bytes.IndexByte(data, '\n')
			if i < 0 {
				read += int64(len(data))
				f.committed.Store(read)
				return nil
			}
			data = data[i+1:]
			read += int64(i + 1)
			f.committed.Store(read)
			f.cut.Store(false)
			continue
		}
		if len(f.partial) == 0 && data[0] == 0 {
			// A writer that does not append leaves a hole where the file was
			// truncated under it.
			i := 0
			for i < len(data) && data[i] == 0 {
				i++
			}
			data = data[i:]
			read += int64(i)
			f.committed.Store(read)
			continue
		}
		i := bytes.IndexByte(data, '\n')
		if i < 0 && len(f.partial)+len(data) <= limit {
			f.partial = append(f.partial, data...)
			read += int64(len(data))
			return nil
		}
		raw, used, cut := data, len(data), i < 0
		if i >= 0 {
			raw, used = data[:i], i+1
		}
		if len(f.partial) > 0 {
			raw = append(f.partial, raw...)
		}
		raw = bytes.TrimSuffix(raw, []byte{'\r'})
		if len(raw) > limit {
			raw = raw[:limit]
			c.cut.Add(1)
		}
		whole, err := handle(raw)
		if err != nil {
			// The line stays unread: the position is before it.
			f.partial = nil
			read = f.committed.Load()
			return err
		}
		if cap(f.partial) > 2*MaxLine {
			f.partial = nil
		}
		f.partial = f.partial[:0]
		data = data[used:]
		read += int64(used)
		if whole {
			f.committed.Store(read)
			f.cut.Store(cut)
		} else if cut {
			f.committed.Store(read)
			f.cut.Store(true)
		}
	}
	return nil
}

// keepTail keeps the last bytes read, for the next read to check.
func (f *file) keepTail(data []byte) {
	if len(data) >= tailSize {
		f.tail = append(f.tail[:0], data[len(data)-tailSize:]...)
		return
	}
	keep := min(tailSize-len(data), len(f.tail))
	f.tail = append(f.tail[:0], f.tail[len(f.tail)-keep:]...)
	f.tail = append(f.tail, data...)
}

// skipHole goes on at the next byte of a sparse file that is stored, or at its
// end: what lies before was never written and reads as zeros, a terabyte of it
// as easily as a page.
func (f *file) skipHole() error {
	next, err := f.f.Seek(f.readAt, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		next, err = f.f.Seek(0, io.SeekEnd)
	}
	if err != nil || next < f.readAt+tailSize {
		return err // near enough to be read, or a file system that does not say
	}
	f.readAt = next
	f.committed.Store(next)
	f.tail = append(f.tail[:0], make([]byte, tailSize)...)
	return nil
}

// realPath is where the file itself lies, or lay.
func (p FilePosition) realPath() string {
	if p.Target != "" {
		return p.Target
	}
	return p.Path
}

// matches reports whether g is the file of a position, unchanged up to there.
func (p FilePosition) matches(f *os.File, size int64) bool {
	if size < p.Offset || size < p.TailEnd {
		return false
	}
	check := func(end int64, n int, want string) bool {
		if n == 0 {
			return true
		}
		if n < 0 || n > headSize || end < int64(n) {
			return false
		}
		b := make([]byte, n)
		if _, err := f.ReadAt(b, end-int64(n)); err != nil && !errors.Is(err, io.EOF) {
			return false
		}
		return fingerprint(b) == want
	}
	return check(int64(p.HeadSize), p.HeadSize, p.Head) && check(p.TailEnd, p.TailSize, p.Tail)
}
