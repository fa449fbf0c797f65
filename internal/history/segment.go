package history

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentSuffix = ".events"
	indexSuffix   = ".index"
)

// A segment is a file of records in the order of their cursors.
type segment struct {
	path  string
	first Cursor // that its name says; records have it or later ones
	summary
	list entries // of the segment that is written to; nil: in the index file
}

func segmentPath(dir string, first Cursor) string {
	return filepath.Join(dir, fmt.Sprintf("%016d%s", uint64(first), segmentSuffix))
}

func (g *segment) indexPath() string { return strings.TrimSuffix(g.path, segmentSuffix) + indexSuffix }

// segmentsIn lists the segments of a directory by their names, oldest first.
func segmentsIn(dir string) (list []*segment, err error) {
	names, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		digits, ok := strings.CutSuffix(n.Name(), segmentSuffix)
		if !ok {
			continue
		}
		first, err := strconv.ParseUint(digits, 10, 53)
		if err != nil || first == 0 || !n.Type().IsRegular() {
			continue
		}
		list = append(list, &segment{path: filepath.Join(dir, n.Name()), first: Cursor(first)})
	}
	slices.SortFunc(list, func(a, b *segment) int { return cmp.Compare(a.first, b.first) })
	return list, nil
}

// ReadRecords calls f for each record of a segment, with its place. Lines that
// are no records are passed over and counted; size is where the last whole line
// ends.
func ReadRecords(r io.Reader, f func(e Event, offset int64)) (size int64, damaged int, err error) {
	b := bufio.NewReaderSize(r, maxRecord+1)
	var offset int64
	for {
		line, err := b.ReadSlice('\n')
		switch {
		case err == nil:
			if e, err := parseRecord(line[:len(line)-1]); err == nil {
				f(e, offset)
			} else {
				damaged++
			}
			offset += int64(len(line))
			size = offset
		case errors.Is(err, bufio.ErrBufferFull):
			// No record is that long: go on behind the line's end.
			damaged++
			offset += int64(len(line))
			for errors.Is(err, bufio.ErrBufferFull) {
				line, err = b.ReadSlice('\n')
				offset += int64(len(line))
			}
			if err == nil {
				size = offset
				continue
			}
			fallthrough
		default:
			if errors.Is(err, io.EOF) {
				return size, damaged, nil // a line without an end was being written
			}
			return size, damaged, err
		}
	}
}

// scan reads a segment as a whole. Cursors that do not grow are damage.
func (g *segment) scan() (list entries, damaged int, err error) {
	f, err := os.Open(g.path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	g.summary = summary{}
	list = entries{}
	backward := 0
	size, damaged, err := ReadRecords(f, func(e Event, offset int64) {
		if e.Cursor < g.first || e.Cursor <= g.last || offset > maxSegment {
			backward++
			return
		}
		x := entryOf(&e, offset)
		list = list.add(&x)
		g.note(&x, e.Cursor)
	})
	g.size = size
	return list, damaged + backward, err
}

// open learns a finished segment's summary from its index, or makes the index anew.
func (g *segment) open(write bool) (damaged int, err error) {
	if g.header() {
		return 0, nil
	}
	list, damaged, err := g.scan()
	if err != nil {
		return damaged, err
	}
	if write {
		return damaged, g.writeIndex(list)
	}
	g.list = list
	return damaged, nil
}

// header reads the summary in the index file; false where it does not fit the
// segment.
func (g *segment) header() bool {
	f, err := os.Open(g.indexPath())
	if err != nil {
		return false
	}
	defer f.Close()
	b := make([]byte, indexHeader)
	if _, err := io.ReadFull(f, b); err != nil {
		return false
	}
	s, n, _, ok := decodeHeader(b)
	info, err := f.Stat()
	if !ok || err != nil || info.Size() != int64(indexHeader+n*entrySize) {
		return false
	}
	if info, err := os.Stat(g.path); err != nil || info.Size() != s.size {
		return false
	}
	g.summary = s
	return true
}

// writeIndex writes the index file as a whole.
func (g *segment) writeIndex(list entries) error {
	temporary := g.indexPath() + ".new"
	if err := os.WriteFile(temporary, encodeIndex(&g.summary, list), 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, g.indexPath())
}

// read gives the segment's entries. Where the index file was damaged since it was
// opened the segment is read. b is room to be used again.
func (g *segment) read(b *bytes.Buffer) (entries, error) {
	if g.list != nil {
		return g.list, nil
	}
	if f, err := os.Open(g.indexPath()); err == nil {
		b.Reset()
		_, err = b.ReadFrom(f)
		f.Close()
		if _, list, ok := decodeIndex(b.Bytes()); ok && err == nil {
			return list, nil
		}
	}
	again := segment{path: g.path, first: g.first}
	list, _, err := again.scan()
	return list, err
}

// A recordReader reads single records of a segment.
type recordReader struct {
	f *os.File
	b []byte
}

func (r *recordReader) at(offset int64) (Event, error) {
	if r.b == nil {
		r.b = make([]byte, 1024)
	}
	for {
		n, err := r.f.ReadAt(r.b, offset)
		if end := slices.Index(r.b[:n], '\n'); end >= 0 {
			return parseRecord(r.b[:end])
		}
		if err != nil || len(r.b) > maxRecord {
			return Event{}, ErrDamaged
		}
		r.b = make([]byte, 4*len(r.b))
	}
}
