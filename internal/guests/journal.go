package guests

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"

	"banmesh/internal/ban"
)

// A journal keeps guests in a file: a magic line, then records, each one with a
// checksum. The newest record of an address counts; one with the end 0 removes
// it. A record is written at once and not synchronised: a killed agent loses
// nothing, a machine that loses its power a few seconds.
//
// A record is a byte for its kind and 4 bytes CRC-32 (IEEE) of the kind and the
// body, big endian, then the body:
//
//	guest  address (16), last (4), until (4), number of the topic (1), flags (1)
//	topic  number (1), length (1), name
type journal struct {
	file *os.File
	path string
	size int // of the file, in bytes
}

const (
	magic       = "banmesh guests 1\n"
	kindGuest   = 'g'
	kindTopic   = 't'
	guestLength = 26
	headLength  = 5
)

// ErrFile says that the file of guests is none.
var ErrFile = errors.New("not a file of guests")

// slack is how far the file grows beyond twice its content before it is
// compacted; maxFile bounds the file that is read.
const (
	slack   = 1 << 16
	maxFile = 2*MaxGuests*(headLength+guestLength) + 1<<20
)

// load reads the file at path; a file that is not there has nobody.
func (s *Set) load(path string) error {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return fmt.Errorf("reading guests: %w", err)
	default:
		err := s.read(io.LimitReader(f, maxFile))
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("reading guests from %s: %w", path, err)
		}
	}
	return nil
}

// read takes records over until the first that is not whole.
func (s *Set) read(r io.Reader) error {
	in := bufio.NewReader(r)
	head := make([]byte, len(magic))
	if n, err := io.ReadFull(in, head); string(head[:n]) != magic[:n] {
		return ErrFile
	} else if err != nil {
		return nil //nolint:nilerr // the crash came while the first bytes were written
	}
	names := map[uint8]ban.Topic{}
	latest := map[[16]byte]record{}
	for {
		kind, body, ok := next(in)
		if !ok {
			break
		}
		if kind == kindTopic {
			if topic, err := ban.ParseTopic(string(body[2:])); err == nil {
				names[body[0]] = topic
			}
			continue
		}
		rec := decode(body)
		topic, known := names[rec.topic]
		if !known {
			break
		}
		if rec.topic, known = s.topic(topic); !known {
			break
		}
		if rec.until == 0 {
			delete(latest, rec.addr)
		} else if len(latest) < 2*MaxGuests {
			latest[rec.addr] = rec
		}
	}
	for _, rec := range latest {
		s.list = append(s.list, rec)
	}
	// Too many only where the file is not ours: those that end last stay.
	if len(s.list) > s.most {
		slices.SortFunc(s.list, func(a, b record) int { return int(int64(b.until) - int64(a.until)) })
		s.list = slices.Clip(s.list[:s.most])
	}
	slices.SortFunc(s.list, func(a, b record) int { return slices.Compare(a.addr[:], b.addr[:]) })
	return nil
}

// next reads a record, false where none is left that is whole.
func next(in *bufio.Reader) (kind byte, body []byte, ok bool) {
	var head [headLength]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return 0, nil, false
	}
	switch kind = head[0]; kind {
	case kindGuest:
		body = make([]byte, guestLength)
	case kindTopic:
		two, err := in.Peek(2)
		if err != nil {
			return 0, nil, false
		}
		body = make([]byte, 2+int(two[1]))
	default:
		return 0, nil, false
	}
	if _, err := io.ReadFull(in, body); err != nil {
		return 0, nil, false
	}
	return kind, body, checksum(kind, body) == binary.BigEndian.Uint32(head[1:])
}

func checksum(kind byte, body []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE([]byte{kind}), crc32.IEEETable, body)
}

func appendRecord(b []byte, kind byte, body []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, checksum(kind, body))
	return append(b, body...)
}

func encode(r record) []byte {
	body := append(make([]byte, 0, guestLength), r.addr[:]...)
	body = binary.BigEndian.AppendUint32(body, r.last)
	body = binary.BigEndian.AppendUint32(body, r.until)
	return append(body, r.topic, r.flags)
}

func decode(body []byte) (r record) {
	copy(r.addr[:], body)
	r.last, r.until = binary.BigEndian.Uint32(body[16:]), binary.BigEndian.Uint32(body[20:])
	r.topic, r.flags = body[24], body[25]
	return r
}

// write adds a record to the file. Its topic's name goes before each, once a
// file: names are few.
func (s *Set) write(r record) error {
	if s.file == nil {
		return nil
	}
	b := appendRecord(appendTopic(nil, r.topic, s.topics[r.topic]), kindGuest, encode(r))
	if _, err := s.file.file.Write(b); err != nil {
		// A record that is half written would hide all that follow.
		return errors.Join(fmt.Errorf("writing guests: %w", err), s.rewrite())
	}
	s.file.size += len(b)
	return s.compact()
}

func appendTopic(b []byte, number uint8, name ban.Topic) []byte {
	return appendRecord(b, kindTopic, append([]byte{number, byte(len(name))}, name...))
}

// compact writes a new file where the old one has grown to twice its content.
func (s *Set) compact() error {
	if s.file == nil || s.file.size < 2*len(s.list)*(headLength+guestLength)+slack {
		return nil
	}
	return s.rewrite()
}

// rewrite replaces the file with one that has each guest once.
func (s *Set) rewrite() error {
	b := []byte(magic)
	for i, name := range s.topics {
		b = appendTopic(b, uint8(i), name)
	}
	for _, r := range s.list {
		b = appendRecord(b, kindGuest, encode(r))
	}
	f, err := os.CreateTemp(filepath.Dir(s.file.path), ".guests-*")
	if err != nil {
		return fmt.Errorf("writing guests: %w", err)
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync()); err == nil {
		err = os.Rename(f.Name(), s.file.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing guests: %w", err), f.Close(), os.Remove(f.Name()))
	}
	old := s.file.file
	s.file.file, s.file.size = f, len(b)
	if old != nil {
		return old.Close()
	}
	return nil
}

// Close closes the file, after everything in it reached the disk.
func (s *Set) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || s.file.file == nil {
		return nil
	}
	f := s.file.file
	s.file = nil
	return errors.Join(f.Sync(), f.Close())
}
