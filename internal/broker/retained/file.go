package retained

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked says that another process has the file open.
var ErrLocked = errors.New("another broker is running on this state")

// ErrCorrupt says that the file is not a store or is damaged.
var ErrCorrupt = errors.New("the state file is damaged")

// lockWait is how long Open waits for another process to let go: long enough
// for a restart that overlaps, short enough for a person.
const lockWait = 2 * time.Second

// Buckets of the file, and the key of the one record of the second.
var (
	bucket     = []byte("retained")
	state      = []byte("state")
	summaryKey = []byte("summary")
)

// A record is: version u8 | QoS u8 | received u64 (Unix seconds) | heard u64
// (seconds of the store's clock) | group since u64 (the same) | epoch u64 |
// number u64 | CRC-32C u32 | payload; integers are big-endian. Its key is the
// topic, which the checksum covers, too.
const (
	recordVersion = 2
	recordHeader  = 2 + 5*8 + 4
)

// A summary is: messages u64 | sum of their checksums u64 | uptime u64 in
// seconds. It is written with every group, so that a lost page shows.
const summarySize = 3 * 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (m *Message) header() (b [recordHeader]byte) {
	b[0], b[1] = recordVersion, m.QoS
	for i, v := range []uint64{uint64(m.Received.Unix()), uint64(m.Heard / time.Second), uint64(m.since / time.Second), m.Epoch, m.Number} {
		binary.BigEndian.PutUint64(b[2+8*i:], v)
	}
	return b
}

// checksum covers the topic and the record.
func (m *Message) checksum() uint32 {
	h := m.header()
	c := crc32.Update(0, castagnoli, []byte(m.Topic))
	c = crc32.Update(c, castagnoli, h[:recordHeader-4])
	return crc32.Update(c, castagnoli, m.Payload)
}

func encodeRecord(m *Message) []byte {
	h := m.header()
	binary.BigEndian.PutUint32(h[recordHeader-4:], m.sum)
	return append(h[:], m.Payload...)
}

func decodeRecord(topic, b []byte) (*Message, error) {
	broken := fmt.Errorf("%w: the record of %.200q", ErrCorrupt, topic)
	if len(b) < recordHeader || b[0] != recordVersion || b[1] > 2 {
		return nil, broken
	}
	m := &Message{
		Topic:    string(topic),
		QoS:      b[1],
		Received: time.Unix(int64(binary.BigEndian.Uint64(b[2:])), 0),
		Heard:    time.Duration(binary.BigEndian.Uint64(b[10:])) * time.Second,
		since:    time.Duration(binary.BigEndian.Uint64(b[18:])) * time.Second,
		Epoch:    binary.BigEndian.Uint64(b[26:]),
		Number:   binary.BigEndian.Uint64(b[34:]),
		Payload:  append([]byte(nil), b[recordHeader:]...),
	}
	if m.sum = binary.BigEndian.Uint32(b[42:]); m.sum != m.checksum() {
		return nil, broken
	}
	return m, nil
}

// open opens the file and reads it into memory. bbolt trusts the pages that
// it maps, so a panic of it, or a fault on a page that is not there, is an
// error here.
func (s *Store) open(path string) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %w: %v", path, ErrCorrupt, r)
		}
		if err != nil && s.db != nil {
			err = errors.Join(err, s.db.Close())
		}
	}()
	if err := plausible(path); err != nil {
		return err
	}
	s.db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return fmt.Errorf("%s: %w", path, ErrLocked)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	case err != nil:
		return fmt.Errorf("opening the state: %w", err)
	}
	if err := s.db.View(s.load); err != nil {
		return err
	}
	return s.db.View(checkPages)
}

// checkPages wants that no page is both free and in use: the next group would
// overwrite it. It comes after load, because bbolt checks in a goroutine of its
// own, where a page that cannot be read would end the process.
func checkPages(tx *bbolt.Tx) error {
	var first error
	for err := range tx.Check() {
		if first == nil {
			first = fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
	}
	return first
}

// load reads all messages, and wants that they are those of the summary.
func (s *Store) load(tx *bbolt.Tx) error {
	b, st := tx.Bucket(bucket), tx.Bucket(state)
	if b == nil && st == nil {
		return nil
	}
	if b == nil || st == nil || len(st.Get(summaryKey)) != summarySize {
		return fmt.Errorf("%w: it has no summary", ErrCorrupt)
	}
	var all []*Message
	err := b.ForEach(func(k, v []byte) error {
		m, err := decodeRecord(k, v)
		if err != nil {
			return err
		}
		m.Owner = s.owner(m.Topic)
		all = append(all, m)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, func(a, b *Message) int { return cmp.Compare(a.since, b.since) })
	for _, m := range all {
		s.replace(m.Topic, m)
	}
	sum := st.Get(summaryKey)
	if uint64(s.total.Messages) != binary.BigEndian.Uint64(sum) || s.sum != binary.BigEndian.Uint64(sum[8:]) {
		return fmt.Errorf("%w: messages are missing from it", ErrCorrupt)
	}
	s.base = time.Duration(binary.BigEndian.Uint64(sum[16:])) * time.Second
	return nil
}

// plausible refuses files that bbolt would overwrite or choke on: those
// shorter than the two meta pages that it writes first, and those shorter than
// the pages that the newer meta page counts.
func plausible(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("opening the state: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: %w: it is not a regular file", path, ErrCorrupt)
	case info.Size() == 0:
		return nil
	}
	size, err := metaSize(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if info.Size() < size {
		return fmt.Errorf("%s: %w: it is cut off", path, ErrCorrupt)
	}
	return nil
}

// Of bbolt's meta pages, in the byte order of the machine: a page header of 16
// bytes, then magic u32 | version u32 | page size u32 | flags u32 | root u64 |
// sequence u64 | freelist u64 | pages u64 | transaction u64 | FNV-1a u64 of
// the bytes before it.
const (
	metaMagic  = 0xED0CDAED
	metaAt     = 16
	metaLength = 64
)

// metaSize gives the size that a file must have by the newer of its two valid
// meta pages, in bytes.
func metaSize(path string) (size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, fmt.Errorf("opening the state: %w", err)
	}
	defer f.Close()
	var newest uint64
	page := int64(os.Getpagesize())
	for i := range int64(2) {
		b := make([]byte, metaAt+metaLength)
		if _, err := f.ReadAt(b, i*page); err != nil {
			return 0, fmt.Errorf("%w: it is cut off", ErrCorrupt)
		}
		m := b[metaAt:]
		h := fnv.New64a()
		h.Write(m[:metaLength-8])
		if binary.NativeEndian.Uint32(m) != metaMagic || h.Sum64() != binary.NativeEndian.Uint64(m[metaLength-8:]) {
			continue
		}
		pages, tx := binary.NativeEndian.Uint64(m[40:]), binary.NativeEndian.Uint64(m[48:])
		if size == 0 || tx > newest {
			newest, size = tx, int64(min(pages, 1<<40))*int64(binary.NativeEndian.Uint32(m[8:]))
		}
	}
	if size == 0 {
		return 0, fmt.Errorf("%w: neither meta page is valid", ErrCorrupt)
	}
	return size, nil
}

// A written is a group for one transaction, and the summary after it.
type written struct {
	messages map[string]*Message
	count    int
	sum      uint64
	uptime   time.Duration
}

// write makes one durable transaction of a group.
func (s *Store) write(g written) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	return s.db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		for topic, m := range g.messages {
			if m == nil {
				err = b.Delete([]byte(topic))
			} else {
				err = b.Put([]byte(topic), encodeRecord(m))
			}
			if err != nil {
				return err
			}
		}
		st, err := tx.CreateBucketIfNotExists(state)
		if err != nil {
			return err
		}
		summary := binary.BigEndian.AppendUint64(nil, uint64(g.count))
		summary = binary.BigEndian.AppendUint64(summary, g.sum)
		return st.Put(summaryKey, binary.BigEndian.AppendUint64(summary, uint64(g.uptime/time.Second)))
	})
}

// Backup writes a consistent copy of what is durable to path, which must not
// exist, while the store is in use.
func (s *Store) Backup(path string) error {
	if s.db == nil {
		return errors.New("this broker keeps its retained messages in memory alone")
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	temporary := filepath.Join(filepath.Dir(path), ".backup-"+filepath.Base(path))
	err := s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(temporary, 0o600) })
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("backing up: %w", err)
	}
	return nil
}
