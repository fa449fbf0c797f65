package lists

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultSpool is the directory into which lists are fetched.
const DefaultSpool = "/var/lib/banmesh-fetch"

// Fetched is the record beside a list that was fetched: NAME.json and NAME.list in a
// directory that another user writes. The record is written after the list and has its
// checksum, so a reader between the two finds that they do not agree.
type Fetched struct {
	URL string `json:"url"`
	// Sum is the SHA-256 of the list in hex digits; "" while none was fetched.
	Sum string `json:"sha256,omitempty"`
	// Changed is when the list came, and Confirmed when its server last said that it is
	// still the newest.
	Changed      time.Time `json:"changed,omitzero"`
	Confirmed    time.Time `json:"confirmed,omitzero"`
	ETag         string    `json:"etag,omitempty"`
	LastModified string    `json:"last_modified,omitempty"`
	// Tried is when it was last asked for, and Error why that failed, "" where it did not.
	Tried time.Time `json:"tried,omitzero"`
	Error string    `json:"error,omitempty"`
	// Next is when the server wants to be asked again, zero where it says nothing.
	Next time.Time `json:"next,omitzero"`
}

// maxRecord bounds a record.
const maxRecord = 16 << 10

// BodyFile names the file of a list in a spool.
func BodyFile(dir, name string) string { return filepath.Join(dir, name+".list") }

// RecordFile names the file of a list's [Fetched] in a spool.
func RecordFile(dir, name string) string { return filepath.Join(dir, name+".json") }

// Errors of [ReadFetched] and [ReadSpooled].
var (
	// ErrNotFetched says that a list was never fetched from its address.
	ErrNotFetched = errors.New("it was not fetched yet")
	// ErrBetween says that a list and its record do not agree: one of them is about to
	// be written, or was when the machine stopped.
	ErrBetween = errors.New("the fetched list and its record do not agree: it is fetched again")
)

// ReadFetched reads the record of a list in a spool. Its texts are foreign.
func ReadFetched(dir, name string) (f Fetched, err error) {
	file, _, err := Open(RecordFile(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return f, ErrNotFetched
	}
	if err != nil {
		return f, err
	}
	defer file.Close()
	b, err := io.ReadAll(io.LimitReader(file, maxRecord+1))
	if err != nil {
		return f, err
	}
	if len(b) > maxRecord {
		return f, fmt.Errorf("%s is longer than a record", RecordFile(dir, name))
	}
	if err := json.Unmarshal(b, &f); err != nil {
		return Fetched{}, fmt.Errorf("%s is damaged: %w", RecordFile(dir, name), err)
	}
	return f, nil
}

// ReadSpooled reads the list that a record is of.
func ReadSpooled(dir, name string, f Fetched, o Options) (*Edition, error) {
	if f.Sum == "" {
		return nil, ErrNotFetched
	}
	file, _, err := Open(BodyFile(dir, name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	sum := sha256.New()
	whole := io.TeeReader(file, sum)
	e, err := Read(whole, o)
	if err == nil || errors.Is(err, ErrNoList) {
		_, rest := io.Copy(io.Discard, io.LimitReader(whole, MaxBytes))
		err = errors.Join(err, rest)
		if hex.EncodeToString(sum.Sum(nil)) != f.Sum {
			return nil, ErrBetween
		}
	}
	return e, err
}

// Open opens a file that another user may have made: a regular one, and no link.
func Open(path string) (*os.File, fs.FileInfo, error) { return open(path, unix.O_NOFOLLOW) }

// OpenNamed opens a regular file that the operator named, which may be a link.
func OpenNamed(path string) (*os.File, fs.FileInfo, error) { return open(path, 0) }

func open(path string, more int) (*os.File, fs.FileInfo, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|more, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return file, info, nil
}
