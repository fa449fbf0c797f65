// Package journalfile reads the files of the systemd journal, without
// libsystemd: those that journald is writing to and archived ones, regular and
// compact, with zstd and LZ4 compressed fields. It trusts nothing in a file:
// offsets are checked, chains only go forward, so that damaged or hostile bytes
// cost at most one pass over the file.
//
// The format is systemd's "Journal File Format"
// (https://systemd.io/JOURNAL_FILE_FORMAT). Hash tables, and with them keyed
// hashes, are not used: entries are read in the order of the entry arrays.
package journalfile

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

var (
	// ErrCorrupt says that a file, or a part of it, is damaged.
	ErrCorrupt = errors.New("damaged journal file")
	// ErrUnsupported says that a file uses a feature that this package does
	// not know, so that another reader is needed.
	ErrUnsupported = errors.New("journal file with unknown features")
	// ErrEmpty says that a file has no header yet: journald is making it.
	ErrEmpty = errors.New("journal file without a header")
)

// Offsets of the header's fields.
const (
	headerIncompatible = 12
	headerState        = 16
	headerFileID       = 24
	headerMachineID    = 40
	headerSequenceID   = 72
	headerSize         = 88
	headerEntries      = 152
	headerTailSequence = 160
	headerHeadSequence = 168
	headerEntryArray   = 176
	headerHeadRealtime = 184
	headerTailRealtime = 192
	headerLeast        = 208 // the size of the first version's
)

// Features that a reader must know.
const (
	featureXZ      = 1
	featureLZ4     = 2
	featureKeyed   = 4
	featureZSTD    = 8
	featureCompact = 16
	featuresKnown  = featureXZ | featureLZ4 | featureKeyed | featureZSTD | featureCompact
)

// Object types and flags.
const (
	objectData       = 1
	objectEntry      = 3
	objectEntryArray = 6

	flagXZ   = 1
	flagLZ4  = 2
	flagZSTD = 4
)

// Sizes of the fixed parts of objects.
const (
	objectHeader     = 16
	entryFixed       = 64
	arrayFixed       = 24
	dataFixed        = 64
	dataFixedCompact = 72
	entryItem        = 16
	entryItemCompact = 4
	arrayItem        = 8
	arrayItemCompact = 4
	stateArchived    = 2
	maxMapped        = math.MaxInt / 2
	maxItemsPerEntry = 1024 // journald allows as many fields (ENTRY_FIELD_COUNT_MAX)
)

// What the compressed fields of a file may decompress to, all together: enough
// for any log, and a bound on the cost of a hostile file.
const (
	inflateFree  = 64 << 20
	inflateTimes = 256
)

// An ID is a 128-bit identifier.
type ID [16]byte

// String gives 32 hexadecimal digits, as journalctl does.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// A File is one open journal file, read forward. It is used by one goroutine,
// within [Guard] if the file may be truncated meanwhile.
type File struct {
	f       *os.File
	m       []byte   // the mapping
	stale   [][]byte // earlier mappings of a file that has grown
	compact bool
	start   uint64 // the header's size: no object lies before it

	// FileID, MachineID and SequenceID stand in the header and never change.
	FileID, MachineID, SequenceID ID

	limit    uint64 // entries that Refresh saw
	read     uint64 // entries gone past
	array    uint64 // offset of the current entry array, 0 at the beginning
	arrayLen uint64 // its items
	arrayPos uint64 // the next of its items
	entryAt  uint64 // offset of the last entry gone past
	peeked   uint64 // offset of the entry that Peek gave
	inflated uint64 // bytes that decompressing gave
	decoder  decompressor
}

// An Entry is one entry's fixed part and where its fields are.
type Entry struct {
	Sequence, Realtime, Monotonic, XorHash uint64
	Boot                                   ID
	// items are the bytes of the item array, still in the mapping.
	items []byte
}

// Open maps a journal file. It fails with [ErrCorrupt], [ErrUnsupported] or
// [ErrEmpty], wrapped, if that says why.
func Open(path string) (*File, error) {
	h, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := &File{f: h}
	if err := f.open(); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func (f *File) open() error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w: not a regular file", ErrCorrupt)
	case info.Size() < headerLeast:
		return ErrEmpty
	}
	// The header is read by a call first, so that a file that is cut off just
	// now gives an error and not a fault.
	var b [headerLeast]byte
	if _, err := f.f.ReadAt(b[:], 0); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if string(b[:8]) != "LPKSHHRH" {
		if b[0] == 0 {
			return ErrEmpty
		}
		return fmt.Errorf("%w: no journal file at all", ErrCorrupt)
	}
	features := binary.LittleEndian.Uint32(b[headerIncompatible:])
	if features&^featuresKnown != 0 {
		return fmt.Errorf("%w: %#x", ErrUnsupported, features&^featuresKnown)
	}
	if features&featureXZ != 0 {
		return fmt.Errorf("%w: XZ compression", ErrUnsupported)
	}
	f.compact = features&featureCompact != 0
	copy(f.FileID[:], b[headerFileID:])
	copy(f.MachineID[:], b[headerMachineID:])
	copy(f.SequenceID[:], b[headerSequenceID:])
	f.start = binary.LittleEndian.Uint64(b[headerSize:])
	if f.start < headerLeast || f.start > 1<<20 {
		return fmt.Errorf("%w: header of %d bytes", ErrCorrupt, f.start)
	}
	if f.SequenceID == (ID{}) {
		return ErrEmpty
	}
	return f.mapAll(info.Size())
}

// mapAll maps the file up to size.
func (f *File) mapAll(size int64) error {
	if size > maxMapped {
		return fmt.Errorf("%w: %d bytes do not fit this machine's addresses", ErrUnsupported, size)
	}
	m, err := unix.Mmap(int(f.f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping: %w", err)
	}
	if f.m != nil {
		f.stale = append(f.stale, f.m) // an entry may still refer to it
	}
	f.m = m
	return nil
}

// unmapStale gives back mappings that were replaced.
func (f *File) unmapStale() (err error) {
	for _, m := range f.stale {
		err = errors.Join(err, unix.Munmap(m))
	}
	f.stale = f.stale[:0]
	return err
}

// grown maps the part by which the file has grown, and reports whether it has.
func (f *File) grown() bool {
	info, err := f.f.Stat()
	return err == nil && info.Size() > int64(len(f.m)) && f.mapAll(info.Size()) == nil
}

// Close unmaps and closes the file.
func (f *File) Close() error {
	err := f.unmapStale()
	if f.m != nil {
		err = errors.Join(err, unix.Munmap(f.m))
		f.m = nil
	}
	f.decoder.close()
	return errors.Join(err, f.f.Close())
}

// Identity is the file's device and inode.
func (f *File) Identity() (device, inode uint64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.f.Fd()), &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", f.f.Name(), err)
	}
	return uint64(st.Dev), st.Ino, nil
}

// Count is how many entries the file has. journald writes it after everything
// else of an entry.
func (f *File) Count() uint64 {
	// The mapping begins at a page, so the field is aligned.
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&f.m[headerEntries])))
}

// Refresh looks how many entries there are now and reports whether that
// changed. Peek goes no further, so that several files can be looked at before
// any of them is read.
func (f *File) Refresh() bool {
	n := f.Count()
	changed := n != f.limit
	f.limit = n
	return changed
}

// Refreshed is the number of entries that Refresh saw.
func (f *File) Refreshed() uint64 { return f.limit }

// SkipAll goes past every entry that Refresh saw.
func (f *File) SkipAll() error {
	for f.read < f.limit {
		if _, err := f.nextOffset(); err != nil {
			return err
		}
		n := min(f.limit-f.read, f.arrayLen-f.arrayPos)
		f.read += n
		f.arrayPos += n
	}
	return nil
}

// Read is how many entries were gone past.
func (f *File) Read() uint64 { return f.read }

// Archived says that nothing is added any more.
func (f *File) Archived() bool { return f.m[headerState] == stateArchived }

// TailSequence and TailRealtime are of the last entry; they may lag behind
// [File.Count] for a moment.
func (f *File) TailSequence() uint64 { return f.header(headerTailSequence) }

// TailRealtime is the last entry's time, in microseconds since the Unix epoch.
func (f *File) TailRealtime() uint64 { return f.header(headerTailRealtime) }

// HeadSequence is the first entry's number.
func (f *File) HeadSequence() uint64 { return f.header(headerHeadSequence) }

func (f *File) header(at int) uint64 { return binary.LittleEndian.Uint64(f.m[at:]) }

// object gives the bytes of an object of a type, of at least the given size.
func (f *File) object(at uint64, kind byte, least uint64) ([]byte, error) {
	for range 2 {
		if n := uint64(len(f.m)); at >= f.start && at&7 == 0 && at < n && n-at >= least {
			b := f.m[at:]
			size := binary.LittleEndian.Uint64(b[8:])
			if b[0] != kind || size < least {
				return nil, corrupt("object of type %d and %d bytes at %d", b[0], size, at)
			}
			if size <= uint64(len(b)) {
				return b[:size:size], nil
			}
		}
		if !f.grown() {
			break
		}
	}
	return nil, corrupt("object at %d lies outside", at)
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// nextOffset gives the next entry's offset without going past it.
func (f *File) nextOffset() (uint64, error) {
	size := uint64(arrayItem)
	if f.compact {
		size = arrayItemCompact
	}
	for f.array == 0 || f.arrayPos >= f.arrayLen {
		next := f.header(headerEntryArray)
		if f.array != 0 {
			b, err := f.object(f.array, objectEntryArray, arrayFixed)
			if err != nil {
				return 0, err
			}
			next = binary.LittleEndian.Uint64(b[objectHeader:])
		}
		// Arrays are allocated at the end of the file, so a chain that goes
		// back is a loop.
		if next <= f.array {
			return 0, corrupt("entry array at %d follows one at %d", next, f.array)
		}
		b, err := f.object(next, objectEntryArray, arrayFixed)
		if err != nil {
			return 0, err
		}
		f.array, f.arrayPos, f.arrayLen = next, 0, (uint64(len(b))-arrayFixed)/size
	}
	at := f.array + arrayFixed + f.arrayPos*size
	if at+size > uint64(len(f.m)) {
		return 0, corrupt("entry array at %d lies outside", f.array)
	}
	if f.compact {
		return uint64(binary.LittleEndian.Uint32(f.m[at:])), nil
	}
	return binary.LittleEndian.Uint64(f.m[at:]), nil
}

// Peek fills e with the next entry without going past it, and reports whether
// there is one. An error is [ErrCorrupt]: with skip the entry can be gone past
// by [File.Skip], without it nothing more can be read of the file.
func (f *File) Peek(e *Entry) (ok, skip bool, err error) {
	if f.read >= f.limit {
		return false, false, nil
	}
	if len(f.stale) > 0 {
		if err := f.unmapStale(); err != nil {
			return false, false, fmt.Errorf("unmapping: %w", err)
		}
	}
	at, err := f.nextOffset()
	if err != nil {
		return false, false, err
	}
	// Entries are written one after the other; an array that refers to one
	// twice could make a small file cost as much as a large one.
	if at <= f.entryAt {
		return false, true, corrupt("entry at %d follows one at %d", at, f.entryAt)
	}
	b, err := f.object(at, objectEntry, entryFixed)
	if err != nil {
		return false, true, err
	}
	f.peeked = at
	e.Sequence = binary.LittleEndian.Uint64(b[16:])
	e.Realtime = binary.LittleEndian.Uint64(b[24:])
	e.Monotonic = binary.LittleEndian.Uint64(b[32:])
	copy(e.Boot[:], b[40:56])
	e.XorHash = binary.LittleEndian.Uint64(b[56:])
	e.items = b[entryFixed:]
	size := entryItem
	if f.compact {
		size = entryItemCompact
	}
	if e.Sequence == 0 || len(e.items)/size > maxItemsPerEntry {
		return false, true, corrupt("entry %d with %d fields", e.Sequence, len(e.items)/size)
	}
	return true, false, nil
}

// Skip goes past the entry that Peek gave.
func (f *File) Skip() {
	f.entryAt = max(f.entryAt, f.peeked)
	f.read++
	f.arrayPos++
}

// Items appends to a list where the fields of an entry of f lie: each at the
// same place for all entries that have it.
func (f *File) Items(e *Entry, to []uint64) []uint64 {
	if f.compact {
		for b := e.items; len(b) >= entryItemCompact; b = b[entryItemCompact:] {
			to = append(to, uint64(binary.LittleEndian.Uint32(b)))
		}
		return to
	}
	for b := e.items; len(b) >= entryItem; b = b[entryItem:] {
		to = append(to, binary.LittleEndian.Uint64(b))
	}
	return to
}

// Touch reads a byte or two of the field that lies at a place, if any does, so
// that they are near when [File.Field] asks for them.
func (f *File) Touch(at uint64) byte {
	const value = dataFixed
	if n := uint64(len(f.m)); at < n && n-at > value {
		return f.m[at] + f.m[at+value]
	}
	return 0
}

// Field gives the field that lies at an item's offset, "NAME=value": at most
// limit bytes of it. The bytes lie in the mapping and are valid until the next
// Peek; those of a field that was compressed, which is reported, until the
// next Field.
func (f *File) Field(at uint64, limit int) (value []byte, compressed bool, err error) {
	fixed := uint64(dataFixed)
	if f.compact {
		fixed = dataFixedCompact
	}
	b, err := f.object(at, objectData, fixed)
	if err != nil {
		return nil, false, err
	}
	payload := b[fixed:]
	if flags := b[1] & (flagXZ | flagLZ4 | flagZSTD); flags != 0 {
		if f.inflated > inflateFree+inflateTimes*uint64(len(f.m)) {
			return nil, true, corrupt("its fields decompress to more than %d bytes", f.inflated)
		}
		value, err := f.decoder.decompress(flags, payload, limit)
		f.inflated += uint64(len(value))
		return value, true, err
	}
	return payload[:min(len(payload), limit)], false, nil
}
