// Package store keeps durable records in one bbolt file: verbatim signed messages
// and small records, never one key a ban. Nothing else need open bbolt.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// ErrLocked says that another process has the store open.
var ErrLocked = errors.New("the file is locked")

// ErrCorrupt says that the file is not a store or is damaged.
var ErrCorrupt = errors.New("the state file is damaged")

// lockWait is how long Open waits for another process to let go: long enough
// for a restart that overlaps, short enough for a person.
const lockWait = 2 * time.Second

// A Store is an open file of named buckets of keys and values. Its methods may
// be called from several goroutines; one Update runs at a time and is durable
// (fsync) when it returns nil.
type Store struct {
	db *bbolt.DB
}

// Open opens or creates the agent's store at path with mode 0600. It fails with
// [ErrLocked] or [ErrCorrupt], wrapped.
func Open(path string) (*Store, error) { return OpenAs("agent", path) }

// OpenAs is [Open] for a program of another name, which the error of a store in
// use says.
func OpenAs(program, path string) (*Store, error) {
	if err := plausible(path); err != nil {
		return nil, err
	}
	db, err := open(path)
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, fmt.Errorf("%s: another %s is running on this state: %w", path, program, ErrLocked)
	case errors.Is(err, bbolterrors.ErrInvalid), errors.Is(err, bbolterrors.ErrChecksum), errors.Is(err, bbolterrors.ErrVersionMismatch), errors.Is(err, ErrCorrupt):
		return nil, fmt.Errorf("%s: %w: %w", path, ErrCorrupt, err)
	case err != nil:
		return nil, fmt.Errorf("opening the state: %w", err)
	}
	return &Store{db: db}, nil
}

// open turns a panic of bbolt, which trusts the pages that it maps, into an
// error; so is a fault on a page that is not there.
func open(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			db, err = nil, fmt.Errorf("%w: %v", ErrCorrupt, r)
		}
	}()
	return bbolt.Open(path, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
}

// Close waits for running transactions and closes the file.
func (s *Store) Close() error { return s.db.Close() }

// Path is the file's path.
func (s *Store) Path() string { return s.db.Path() }

// Size is the file's size in bytes.
func (s *Store) Size() int64 {
	info, err := os.Stat(s.db.Path())
	if err != nil {
		return 0
	}
	return info.Size()
}

// Backup writes a consistent copy to path, which must not exist.
func (s *Store) Backup(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s: %w", path, fs.ErrExist)
	}
	temporary := filepath.Join(filepath.Dir(path), ".backup-"+filepath.Base(path))
	err := s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error { return tx.CopyFile(temporary, 0o600) })
	})
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("backing up the state: %w", err)
	}
	return nil
}

// WriteTo writes a consistent copy to w, while others read and write. The pages
// of the copied state are kept until it ends.
func (s *Store) WriteTo(w io.Writer) (n int64, err error) {
	err = s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) (err error) {
			n, err = tx.WriteTo(w)
			return err
		})
	})
	if err != nil {
		return n, fmt.Errorf("copying the state: %w", err)
	}
	return n, nil
}

// Check wants that no page is both free and in use: the next transaction would
// overwrite it. It reads the whole file.
func (s *Store) Check() error {
	return s.guard(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			if err := seekAll(tx); err != nil {
				return err
			}
			var first error
			for err := range tx.Check(bbolt.WithKVStringer(lengths{})) {
				if first == nil {
					first = fmt.Errorf("%w: %w", ErrCorrupt, err)
				}
			}
			return first
		})
	})
}

// lengths names keys and values in bbolt's findings by their lengths: their bytes
// may lie outside of the file.
type lengths struct{}

// KeyToString implements [bbolt.KVStringer].
func (lengths) KeyToString(b []byte) string { return fmt.Sprintf("%d bytes", len(b)) }

// ValueToString implements [bbolt.KVStringer].
func (lengths) ValueToString(b []byte) string { return fmt.Sprintf("%d bytes", len(b)) }

// seekAll looks every key up, and so reads every key of the pages on the way to
// it. bbolt checks in a goroutine of its own, where a key outside of the file
// would end the process; here it is an error.
func seekAll(tx *bbolt.Tx) error {
	root := tx.Cursor()
	return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
		root.Seek(name)
		c := b.Cursor()
		return b.ForEach(func(k, _ []byte) error {
			c.Seek(k)
			return nil
		})
	})
}

// View runs f on a consistent snapshot.
func (s *Store) View(f func(Tx) error) error {
	return s.guard(func() error { return s.db.View(func(tx *bbolt.Tx) error { return f(Tx{tx}) }) })
}

// Update runs f in a transaction that is durable when Update returns nil, and
// that leaves no trace when f or the disk fails.
func (s *Store) Update(f func(Tx) error) error {
	return s.guard(func() error { return s.db.Update(func(tx *bbolt.Tx) error { return f(Tx{tx}) }) })
}

// guard reports a damaged page, or one that is not there any more, as [ErrCorrupt]; bbolt panics on one.
func (s *Store) guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%s: %w: %v", s.db.Path(), ErrCorrupt, r)
		}
	}()
	return f()
}

// A Tx reads and, inside Update, writes. It is valid only during the call that
// it was handed to.
type Tx struct{ tx *bbolt.Tx }

// Has says whether there is a bucket of that name.
func (t Tx) Has(bucket string) bool { return t.tx.Bucket([]byte(bucket)) != nil }

// Get gives the value of a key, or nil. The bytes are valid only during the
// transaction and must not be changed.
func (t Tx) Get(bucket, key string) []byte {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.Get([]byte(key))
}

// Put stores a copy of value. The empty key is refused.
func (t Tx) Put(bucket, key string, value []byte) error {
	b, err := t.tx.CreateBucketIfNotExists([]byte(bucket))
	if err != nil {
		return fmt.Errorf("bucket %s: %w", bucket, err)
	}
	// bbolt reads the value when the transaction commits, so it must not be the
	// caller's buffer.
	return b.Put([]byte(key), bytes.Clone(value))
}

// Delete removes a key; one that is missing is no error.
func (t Tx) Delete(bucket, key string) error {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	return b.Delete([]byte(key))
}

// DeletePrefix removes every key that begins with prefix; "" empties the bucket.
func (t Tx) DeletePrefix(bucket, prefix string) error {
	var keys []string
	if err := t.Each(bucket, prefix, func(key string, _ []byte) error {
		keys = append(keys, key)
		return nil
	}); err != nil {
		return err
	}
	for _, key := range keys {
		if err := t.Delete(bucket, key); err != nil {
			return err
		}
	}
	return nil
}

// Each calls f for every key that begins with prefix, in order, until f gives
// an error. f must not write to the bucket.
func (t Tx) Each(bucket, prefix string, f func(key string, value []byte) error) error {
	b := t.tx.Bucket([]byte(bucket))
	if b == nil {
		return nil
	}
	c := b.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix; k, v = c.Next() {
		if v == nil {
			continue
		}
		if err := f(string(k), v); err != nil {
			return err
		}
	}
	return nil
}
