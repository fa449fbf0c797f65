package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// truncated begins a file anew that was emptied. What it held and was not read
// yet is taken from the copy that rotation by "copytruncate" makes first, if
// one lies beside it.
func (s *files) truncated(f *file) {
	p := f.position()
	if f.before = s.findCopy(p); f.before == nil {
		f.before = s.findCompressed(p)
	}
	f.earlier = &p
	f.head = f.head[:0]
	if err := f.seek(0, false); err != nil {
		s.failed(err)
		f.dirty, f.atEnd = false, true
	}
}

// findCopy looks beside a file that no longer holds the bytes read from it, for
// another one that does, and follows that from where reading stopped.
func (s *files) findCopy(p FilePosition) *file {
	if p.HeadSize == 0 || p.TailSize == 0 && p.TailEnd > 0 {
		return nil
	}
	for range maxPasses {
		if f, raced := s.findCopyOnce(p); f != nil || !raced {
			return f
		}
	}
	return nil
}

// findCopyOnce is findCopy for one look at the names; raced says that one changed
// meanwhile.
func (s *files) findCopyOnce(p FilePosition) (f *file, raced bool) {
	list := siblings(p.realPath())
	slices.Reverse(list) // the newest copy first
	for _, n := range list {
		id := idOf(n.info)
		if id == (fileID{p.Device, p.Inode}) || n.info.Size() < p.Offset {
			continue
		}
		if i := slices.IndexFunc(s.list, func(f *file) bool { return f.id == id }); i >= 0 {
			if f := s.list[i]; f.fresh.Load() && p.matches(f.f, n.info.Size()) {
				// A glob found it first; now it is known to be a copy.
				f.fresh.Store(false)
				if err := f.seek(p.Offset, p.Cut); err != nil {
					s.failed(err)
				}
				return f, false
			}
			continue
		}
		h, info, err := openFile(n.path)
		if err != nil {
			raced = raced || errors.Is(err, fs.ErrNotExist)
			continue
		}
		if idOf(info) != id || !p.matches(h, info.Size()) {
			raced = raced || idOf(info) != id
			h.Close()
			continue
		}
		f, err := s.follow(h, info, p.Path, s.matching(p.Path), p.Offset, p.Cut)
		if err != nil {
			s.failed(err)
			continue
		}
		s.left(f, n.path)
		return f, false
	}
	return nil, raced
}

// settleFresh decides whether a file that appeared under a glob is a log of
// its own or a copy of one that is read already. As long as it equals the
// beginning of another one it is not read; it reports whether it may be.
func (s *files) settleFresh(f *file) (bool, error) {
	info, err := f.f.Stat()
	if err != nil {
		return false, err
	}
	if info.Size() == 0 {
		return false, nil // nothing to tell it by yet
	}
	other := s.equalTo(f.f, info, f.id)
	if other == nil {
		f.fresh.Store(false)
		return true, nil
	}
	if s.o.Now().Sub(f.freshAt) < copyGrace {
		return false, nil
	}
	f.fresh.Store(false)
	return true, f.seek(min(info.Size(), other.Offset), false)
}

// equalsOther reports whether a file equals the beginning of one that is read.
func (s *files) equalsOther(h *os.File, info os.FileInfo) bool {
	return info.Size() > 0 && s.equalTo(h, info, idOf(info)) != nil
}

// equalTo gives the position of the file beside h that h equals as far as both
// go, or nil.
func (s *files) equalTo(h *os.File, info os.FileInfo, id fileID) *FilePosition {
	dir := filepath.Dir(h.Name())
	for _, g := range s.list {
		if len(g.head) == 0 {
			_ = g.remember() // it may have been written to since it was opened
		}
		p := g.position()
		if g.id == id || g.fresh.Load() || filepath.Dir(p.realPath()) != dir {
			continue
		}
		if p.copiedTo(h, info.Size(), g.f) {
			return &p
		}
		if g.earlier != nil && g.earlier.copiedTo(h, info.Size(), nil) {
			return g.earlier
		}
	}
	return nil
}

// copiedTo reports whether h, of the given size, is a copy of the file of a
// position, perhaps one that is not finished. original is that file, if it
// still holds the same.
func (p FilePosition) copiedTo(h *os.File, size int64, original *os.File) bool {
	if p.HeadSize == 0 || size == 0 {
		return false
	}
	if size >= p.TailEnd {
		return p.matches(h, size)
	}
	head := FilePosition{Head: p.Head, HeadSize: p.HeadSize}
	if original == nil || !head.matches(original, size) {
		return size >= int64(p.HeadSize) && head.matches(h, size)
	}
	return samePrefix(h, original, size)
}

// samePrefix compares the first and the last of size bytes of two files.
func samePrefix(a, b *os.File, size int64) bool {
	same := func(offset, n int64) bool {
		x, y := make([]byte, n), make([]byte, n)
		_, errX := io.ReadFull(io.NewSectionReader(a, offset, n), x)
		_, errY := io.ReadFull(io.NewSectionReader(b, offset, n), y)
		return errX == nil && errY == nil && bytes.Equal(x, y)
	}
	tail := min(size, tailSize)
	return same(0, min(size, headSize)) && same(size-tail, tail)
}

// bisect finds where the lines of Options.Since begin in a file whose lines
// are in order of time. Lines without a time belong to the one before them.
func (s *files) bisect(h *os.File, size int64) (int64, error) {
	if s.o.LineTime == nil && !s.docker {
		return 0, nil
	}
	low, high := int64(0), size // lines that begin before low are too old
	for high-low > chunkSize {
		middle := low + (high-low)/2
		at, next, err := s.timeAfter(h, middle, high)
		if err != nil {
			return 0, err
		}
		if next >= high || at.IsZero() || !at.Before(s.o.Since) {
			high = middle
		} else {
			low = next
		}
	}
	for low < size {
		at, next, err := s.timeAfter(h, low, size)
		if err != nil {
			return 0, err
		}
		if at.IsZero() || !at.Before(s.o.Since) {
			break
		}
		low = next
	}
	return low, nil
}

// lineTime tells when a line of a file was written. Docker says it itself, and a date
// in the text may be of another zone.
func (s *files) lineTime(line []byte) (time.Time, bool) {
	if !s.docker {
		return s.o.LineTime(line)
	}
	var r struct {
		Time time.Time `json:"time"`
	}
	err := json.Unmarshal(line, &r)
	return r.Time, err == nil && !r.Time.IsZero()
}

// timeAfter gives the time of the first line with one that begins at or after
// offset and before limit, and where the line after it begins.
func (s *files) timeAfter(h *os.File, offset, limit int64) (time.Time, int64, error) {
	b := make([]byte, chunkSize)
	skip := false
	if offset > 0 {
		var before [1]byte
		if _, err := h.ReadAt(before[:], offset-1); err != nil {
			return time.Time{}, 0, err
		}
		skip = before[0] != '\n'
	}
	n, err := h.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return time.Time{}, 0, err
	}
	b = b[:n]
	for offset < limit {
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			break
		}
		offset += int64(i + 1)
		if !skip {
			if at, ok := s.lineTime(b[:i]); ok {
				return at, offset, nil
			}
		}
		skip, b = false, b[i+1:]
	}
	return time.Time{}, limit, nil
}

// idLinks is how many names a file has.
func idLinks(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(st.Nlink)
	}
	return 1
}
