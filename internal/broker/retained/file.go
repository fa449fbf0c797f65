package retained

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

var bucket = []byte("retained")

// A record is: version u8 | QoS u8 | received u64 (Unix seconds) | epoch u64 |
// number u64 | payload; integers are big-endian. Its key is the topic.
const (
	recordVersion = 1
	recordHeader  = 2 + 3*8
)

func encodeRecord(m *Message) []byte {
	b := make([]byte, 0, recordHeader+len(m.Payload))
	b = append(b, recordVersion, m.QoS)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Received.Unix()))
	b = binary.BigEndian.AppendUint64(b, m.Epoch)
	b = binary.BigEndian.AppendUint64(b, m.Number)
	return append(b, m.Payload...)
}

func decodeRecord(topic, b []byte) (*Message, error) {
	if len(b) < recordHeader || b[0] != recordVersion || b[1] > 2 {
		return nil, fmt.Errorf("%w: the record of %.200q", ErrCorrupt, topic)
	}
	return &Message{
		Topic:    string(topic),
		QoS:      b[1],
		Received: time.Unix(int64(binary.BigEndian.Uint64(b[2:])), 0),
		Epoch:    binary.BigEndian.Uint64(b[10:]),
		Number:   binary.BigEndian.Uint64(b[18:]),
		Payload:  append([]byte(nil), b[recordHeader:]...),
	}, nil
}

// open opens the file and reads it into memory. bbolt trusts the pages that
// it maps, so a panic of it is an error here.
func (s *Store) open(path string) (err error) {
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
	return s.db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			m, err := decodeRecord(k, v)
			if err != nil {
				return err
			}
			m.Owner = s.owner(m.Topic)
			s.replace(m.Topic, m)
			return nil
		})
	})
}

// plausible refuses what bbolt would overwrite or choke on: a file shorter
// than the two meta pages that bbolt writes first.
func plausible(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("opening the state: %w", err)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s: %w: it is not a regular file", path, ErrCorrupt)
	case info.Size() > 0 && info.Size() < 2*int64(os.Getpagesize()):
		return fmt.Errorf("%s: %w: it is cut off", path, ErrCorrupt)
	}
	return nil
}

// write makes one durable transaction of a group.
func (s *Store) write(group map[string]*Message) (err error) {
	if len(group) == 0 {
		return nil
	}
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
		for topic, m := range group {
			if m == nil {
				err = b.Delete([]byte(topic))
			} else {
				err = b.Put([]byte(topic), encodeRecord(m))
			}
			if err != nil {
				return err
			}
		}
		return nil
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
