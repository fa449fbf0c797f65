package detect

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxState bounds the file that is read back, in bytes: a full detector writes
// 70 MB, and twice that before the file is written anew.
const maxState = 256 << 20

// slackState is how many bytes of changes a state file may have at least before
// it is written anew.
const slackState = 1 << 20

// A stateFile is a text of records, one a line behind the CRC-32 (IEEE) of it
// in eight hexadecimal digits.
type stateFile struct {
	path  string
	size  int64 // of the file as written, 0 where it must be written anew
	whole int64 // of its first batch
}

// wantsWhole says that the next batch has to lead from nothing: the file is
// not known to be sound, or most of it is changes.
func (f *stateFile) wantsWhole() bool {
	return f.size == 0 || f.size > 2*f.whole+slackState
}

// write makes a batch durable, as the whole file or at its end. After an
// error the next batch has to be whole.
func (f *stateFile) write(batch []record, whole bool) (err error) {
	size := f.size
	f.size = 0
	if whole {
		size, err = f.replace(batch)
		f.whole = size
	} else {
		size, err = f.add(batch, size)
	}
	if err != nil {
		return fmt.Errorf("saving the detection state: %w", err)
	}
	f.size = size
	return nil
}

// replace writes a file of one batch in the place of the old one.
func (f *stateFile) replace(batch []record) (int64, error) {
	temporary, err := os.CreateTemp(filepath.Dir(f.path), "."+filepath.Base(f.path)+"-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(temporary.Name())
	n, err := encode(temporary, append([]record{{Version: stateVersion}}, batch...))
	if err == nil {
		err = temporary.Sync()
	}
	if closing := temporary.Close(); err == nil {
		err = closing
	}
	if err == nil {
		err = os.Rename(temporary.Name(), f.path)
	}
	if err == nil {
		err = syncDirectory(filepath.Dir(f.path))
	}
	return n, err
}

// add appends a batch to the file, which has to be of the size that it had
// after the last one.
func (f *stateFile) add(batch []record, size int64) (int64, error) {
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() != size {
		return 0, fmt.Errorf("%s has %d bytes, not the %d that were written", f.path, info.Size(), size)
	}
	n, err := encode(file, batch)
	if err == nil {
		err = file.Sync()
	}
	return size + n, err
}

// encode writes records and gives their size in bytes.
func encode(w io.Writer, batch []record) (size int64, err error) {
	out := bufio.NewWriterSize(w, 64<<10)
	for _, r := range batch {
		b, err := json.Marshal(r)
		if err != nil {
			return size, err
		}
		n, err := fmt.Fprintf(out, "%08x %s\n", crc32.ChecksumIEEE(b), b)
		size += int64(n)
		if err != nil {
			return size, err
		}
	}
	return size, out.Flush()
}

func syncDirectory(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// loadState calls each with every batch of the state file, in order. A file
// that does not exist has none. A batch that was not written to its end, as a
// power failure leaves it, is left out; a file that is damaged anywhere else is
// an error, because starting over would count lines twice or lose them.
func loadState(path string, each func([]record)) error {
	if path == "" {
		return nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the detection state: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("reading the detection state: %w", err)
	}
	if info.Size() > maxState {
		return fmt.Errorf("%s: %w: it has %d bytes", path, ErrState, info.Size())
	}
	if err := decodeState(bufio.NewReader(file), each); err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrState, err)
	}
	return nil
}

func decodeState(in *bufio.Reader, each func([]record)) error {
	var batch []record
	whole := false
	var torn error // of a line; an error unless it is in the last batch
	for line := 1; ; line++ {
		text, reading := in.ReadBytes('\n')
		if reading != nil && !errors.Is(reading, io.EOF) {
			return reading
		}
		if len(text) > 0 {
			r, err := decodeRecord(text)
			switch {
			case err != nil && torn == nil:
				torn = fmt.Errorf("line %d: %w", line, err)
			case err == nil && torn != nil:
				return torn
			case err != nil:
			case line == 1 && r.Version != stateVersion:
				return fmt.Errorf("its version is %d, not %d", r.Version, stateVersion)
			default:
				batch = append(batch, r)
				if r.Position != nil {
					each(batch)
					batch, whole = nil, true
				}
			}
		}
		if reading == nil {
			continue
		}
		if !whole {
			return errors.Join(errNoState, torn)
		}
		return nil
	}
}

func decodeRecord(text []byte) (r record, err error) {
	body, ended := bytes.CutSuffix(text, []byte("\n"))
	if !ended {
		return r, errors.New("it does not end")
	}
	sum, body, _ := bytes.Cut(body, []byte(" "))
	if want := fmt.Appendf(nil, "%08x", crc32.ChecksumIEEE(body)); !bytes.Equal(sum, want) {
		return r, errors.New("its checksum differs")
	}
	err = json.Unmarshal(body, &r)
	return r, err
}
