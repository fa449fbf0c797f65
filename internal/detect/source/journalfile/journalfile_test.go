package journalfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// A builder makes small journal files.
type builder struct {
	b       []byte
	compact bool
	entries []uint64
}

func newBuilder(compact bool) *builder {
	w := &builder{b: make([]byte, 264), compact: compact}
	copy(w.b, "LPKSHHRH")
	features := uint32(featureZSTD | featureLZ4 | featureKeyed)
	if compact {
		features |= featureCompact
	}
	binary.LittleEndian.PutUint32(w.b[headerIncompatible:], features)
	for i := range 16 {
		w.b[headerSequenceID+i], w.b[headerFileID+i] = byte(i+1), byte(i+2)
	}
	binary.LittleEndian.PutUint64(w.b[headerSize:], 264)
	return w
}

func (w *builder) object(kind, flags byte, rest []byte) uint64 {
	for len(w.b)%8 != 0 {
		w.b = append(w.b, 0)
	}
	at := uint64(len(w.b))
	w.b = append(w.b, kind, flags, 0, 0, 0, 0, 0, 0)
	w.b = binary.LittleEndian.AppendUint64(w.b, uint64(objectHeader+len(rest)))
	w.b = append(w.b, rest...)
	return at
}

func (w *builder) data(flags byte, payload []byte) uint64 {
	fixed := dataFixed
	if w.compact {
		fixed = dataFixedCompact
	}
	return w.object(objectData, flags, append(make([]byte, fixed-objectHeader), payload...))
}

func (w *builder) entry(items ...uint64) {
	rest := make([]byte, entryFixed-objectHeader)
	n := uint64(len(w.entries) + 1)
	binary.LittleEndian.PutUint64(rest, n)
	binary.LittleEndian.PutUint64(rest[8:], 1700000000000000+n)
	for _, item := range items {
		if w.compact {
			rest = binary.LittleEndian.AppendUint32(rest, uint32(item))
		} else {
			rest = binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(rest, item), 0)
		}
	}
	w.entries = append(w.entries, w.object(objectEntry, 0, rest))
}

// finish adds the entry arrays, of at most three entries each.
func (w *builder) finish() []byte {
	link := headerEntryArray
	for i := 0; i < len(w.entries); i += 3 {
		rest := make([]byte, arrayFixed-objectHeader)
		for k := i; k < i+3; k++ {
			at := uint64(0)
			if k < len(w.entries) {
				at = w.entries[k]
			}
			if w.compact {
				rest = binary.LittleEndian.AppendUint32(rest, uint32(at))
			} else {
				rest = binary.LittleEndian.AppendUint64(rest, at)
			}
		}
		at := w.object(objectEntryArray, 0, rest)
		binary.LittleEndian.PutUint64(w.b[link:], at)
		link = int(at) + objectHeader
	}
	binary.LittleEndian.PutUint64(w.b[headerEntries:], uint64(len(w.entries)))
	binary.LittleEndian.PutUint64(w.b[headerTailSequence:], uint64(len(w.entries)))
	return w.b
}

// sample is a file with all that the format has.
func sample(t testing.TB, compact bool) []byte {
	w := newBuilder(compact)
	tag := w.data(0, []byte("SYSLOG_IDENTIFIER=sshd"))
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	long := "MESSAGE=" + strings.Repeat("long ", 200)
	for i := range 7 {
		message := w.data(0, fmt.Appendf(nil, "MESSAGE=number %d", i))
		switch i {
		case 2:
			message = w.data(flagZSTD, encoder.EncodeAll([]byte(long), nil))
		case 4:
			message = w.data(flagLZ4, lz4Sample())
		}
		w.entry(message, tag)
	}
	return w.finish()
}

// lz4Sample is "MESSAGE=abababab...": literals, then a copy that overlaps itself.
func lz4Sample() []byte {
	b := binary.LittleEndian.AppendUint64(nil, 10+4+15+255+3+5)
	b = append(b, 0xaf)
	b = append(b, "MESSAGE=ab"...)
	b = append(b, 2, 0, 255, 3) // 4+15+255+3 bytes from 2 back
	return append(b, 0x50, 'e', 'n', 'd', '.', '.')
}

func open(t testing.TB, b []byte) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.journal")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

// messages reads everything, giving up where a reader does.
func messages(f *File) (texts []string, faults int) {
	f.Refresh()
	for {
		var e Entry
		ok, skip, err := f.Peek(&e)
		switch {
		case skip:
			faults++
			f.Skip()
			continue
		case err != nil:
			return texts, faults + 1
		case !ok:
			return texts, faults
		}
		for _, at := range f.Items(&e, nil) {
			f.Touch(at)
			b, _, err := f.Field(at, 1<<16)
			if err != nil {
				faults++
			} else if text, ok := bytes.CutPrefix(b, []byte("MESSAGE=")); ok {
				texts = append(texts, string(text))
			}
		}
		f.Skip()
	}
}

func TestEveryPartOfTheFormatIsRead(t *testing.T) {
	for _, compact := range []bool{false, true} {
		f, _ := open(t, sample(t, compact))
		texts, faults := messages(f)
		want := []string{
			"number 0", "number 1", strings.Repeat("long ", 200), "number 3",
			strings.Repeat("ab", 1+(4+15+255+3)/2) + "aend..", "number 5", "number 6",
		}
		if faults != 0 || strings.Join(texts, "|") != strings.Join(want, "|") {
			t.Errorf("compact %t: %d faults, %q", compact, faults, texts)
		}
		g, _ := open(t, sample(t, compact))
		g.Refresh()
		if err := g.SkipAll(); err != nil || g.Read() != 7 {
			t.Errorf("skipping all: %v after %d", err, g.Read())
		}
	}
}

func TestAFieldIsReadUpToItsLimit(t *testing.T) {
	f, _ := open(t, sample(t, false))
	f.Refresh()
	for range 7 {
		var e Entry
		if ok, _, err := f.Peek(&e); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if b, _, err := f.Field(f.Items(&e, nil)[0], 12); err != nil || len(b) != 12 || !bytes.HasPrefix(b, []byte("MESSAGE=")) {
			t.Errorf("%q, %v", b, err)
		}
		f.Skip()
	}
}

func TestAFileTruncatedWhileItIsReadIsAnError(t *testing.T) {
	w := newBuilder(false)
	for i := range 2000 {
		w.entry(w.data(0, fmt.Appendf(nil, "MESSAGE=number %d", i)))
	}
	f, path := open(t, w.finish())
	if err := os.Truncate(path, 4096); err != nil {
		t.Fatal(err)
	}
	err := Guard(func() []*File { return []*File{f} }, func() error {
		messages(f)
		return nil
	})
	var fault *FaultError
	if !errors.As(err, &fault) || fault.File != f || !errors.Is(err, ErrCorrupt) {
		t.Errorf("the error is %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("another panic was kept")
		}
	}()
	_ = Guard(func() []*File { return []*File{f} }, func() error { panic("another") })
}

func TestHostileFilesAreRefused(t *testing.T) {
	entryArray := func(b []byte) uint64 { return binary.LittleEndian.Uint64(b[headerEntryArray:]) }
	for name, tt := range map[string]struct {
		change func(b []byte)
		texts  int
	}{
		"more entries than there are": {func(b []byte) { binary.LittleEndian.PutUint64(b[headerEntries:], 1<<63) }, 7},
		"an array that is its own next": {func(b []byte) {
			binary.LittleEndian.PutUint64(b[entryArray(b)+16:], entryArray(b))
		}, 3},
		"an entry named again": {func(b []byte) {
			at := entryArray(b) + arrayFixed
			copy(b[at+8:at+16], b[at:at+8])
		}, 6},
		"an entry beyond the end": {func(b []byte) { binary.LittleEndian.PutUint64(b[entryArray(b)+arrayFixed:], 1<<40) }, 6},
		"an entry with the largest offset": {func(b []byte) {
			binary.LittleEndian.PutUint64(b[entryArray(b)+arrayFixed:], 0xfffffffffffffff8)
		}, 6},
		"an object larger than the file": {func(b []byte) {
			at := binary.LittleEndian.Uint64(b[entryArray(b)+arrayFixed:])
			binary.LittleEndian.PutUint64(b[at+8:], 0xffffffffffffffff)
		}, 6},
	} {
		b := sample(t, false)
		tt.change(b)
		f, _ := open(t, b)
		if texts, faults := messages(f); len(texts) != tt.texts || faults == 0 {
			t.Errorf("%s: %d texts, %d faults", name, len(texts), faults)
		}
	}
	for name, tt := range map[string]struct {
		change func(b []byte) []byte
		want   error
	}{
		"another file":        {func(b []byte) []byte { return bytes.Repeat([]byte("x"), 300) }, ErrCorrupt},
		"an empty file":       {func(b []byte) []byte { return nil }, ErrEmpty},
		"zeros":               {func(b []byte) []byte { return make([]byte, 4096) }, ErrEmpty},
		"an unknown feature":  {func(b []byte) []byte { b[headerIncompatible+1] = 1; return b }, ErrUnsupported},
		"XZ":                  {func(b []byte) []byte { b[headerIncompatible] |= featureXZ; return b }, ErrUnsupported},
		"a header of nothing": {func(b []byte) []byte { b[headerSize], b[headerSize+1] = 0, 0; return b }, ErrCorrupt},
	} {
		path := filepath.Join(t.TempDir(), "x.journal")
		if err := os.WriteFile(path, tt.change(sample(t, false)), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := Open(path); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
			if err == nil {
				f.Close()
			}
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add(sample(f, false))
	f.Add(sample(f, true))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(dir, "x.journal")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := Open(path)
		if err != nil {
			return
		}
		defer file.Close()
		err = Guard(func() []*File { return []*File{file} }, func() error {
			texts, _ := messages(file)
			if len(texts) > len(b) {
				t.Errorf("%d texts of %d bytes", len(texts), len(b))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func FuzzLZ4(f *testing.F) {
	f.Add(lz4Sample()[8:], 100)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		limit = max(0, min(limit, 1<<16))
		if out, _ := lz4Block(nil, b, limit); len(out) > limit {
			t.Fatalf("%d bytes, limit %d", len(out), limit)
		}
	})
}
