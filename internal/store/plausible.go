package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
)

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
	size, err := UsedSize(path)
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

// UsedSize gives the size that a file must have by the newer of its two valid
// meta pages, in bytes.
func UsedSize(path string) (size int64, err error) {
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
