package source

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// compress makes a gzip file of a file, in place of it.
func compress(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(from); err != nil {
		t.Fatal(err)
	}
}

// TestGenerationsCompressedWhileNobodyReadAreRead rotates and compresses three
// times between two runs, and stops once more in the middle of a compressed file.
func TestGenerationsCompressedWhileNobodyReadAreRead(t *testing.T) {
	t.Parallel()
	for _, named := range []func(n int) string{
		func(n int) string { return []string{"", ".3.gz", ".2.gz", ".1.gz"}[n] },
		func(n int) string { return []string{"", "-20261119.gz", "-20261120.gz", "-20261121.gz"}[n] },
	} {
		dir := t.TempDir()
		log := filepath.Join(dir, "app.log")
		spec := Spec{Files: []string{filepath.Join(dir, "*.log")}}
		appendTo(t, log, numbered(0, 100))
		first, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
		exactly(t, first.texts, 0, 100)
		appendTo(t, log, numbered(100, 200))
		for i := 1; i <= 3; i++ {
			rename(t, log, log+".tmp")
			compress(t, log+".tmp", log+named(i))
			appendTo(t, log, numbered(100*i+100, 100*i+200))
			<-time.After(5 * time.Millisecond) // modification times tell the generations apart
		}
		// It ends within the second generation.
		stopped := newCollector()
		again, err := Open(spec, s.Position(), Options{Once: true})
		if err != nil {
			t.Fatal(err)
		}
		full := func(l Line) error {
			if len(stopped.texts) == 150 {
				return os.ErrClosed
			}
			return stopped.handle(l)
		}
		if err := again.Run(t.Context(), full); err == nil {
			t.Fatal("it did not stop")
		}
		exactly(t, stopped.texts, 100, 250)
		last, _ := readOnce(t, spec, again.Position(), Options{})
		exactly(t, last.texts, 250, 500)
	}
}

func TestACompressedCopyStandsForWhatWasTruncated(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	spec := Spec{Files: []string{log}}
	appendTo(t, log, numbered(0, 100))
	_, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	appendTo(t, log, numbered(100, 200))
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	put(t, log+".tmp", string(text), 0o600)
	compress(t, log+".tmp", log+".1.gz")
	if err := os.Truncate(log, 0); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, numbered(200, 210))
	got, _ := readOnce(t, spec, s.Position(), Options{})
	exactly(t, got.texts, 100, 210)
}

// TestWhatWasReadIsNotReadAgainWhenItIsCompressed follows a log over rotations whose
// generations are compressed at once, and looks at each name anew.
func TestWhatWasReadIsNotReadAgainWhenItIsCompressed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	c := newCollector()
	appendTo(t, log, "")
	s := run(t, Spec{Files: []string{log}}, Position{}, Options{Start: StartBeginning}, c.handle)
	s.ready(t, 1)
	for i := range 5 {
		appendTo(t, log, numbered(100*i, 100*i+100))
		c.wait(t, 100*i+100)
		if i > 0 {
			rename(t, log+".1.gz", log+".2.gz")
		}
		rename(t, log, log+".1")
		compress(t, log+".1", log+".1.gz")
	}
	appendTo(t, log, numbered(500, 501))
	c.wait(t, 501)
	exactly(t, c.all(), 0, 501)
}

func TestCompressedFilesThatAreNoneAndBombsArePassedOver(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	log := filepath.Join(dir, "app.log")
	spec := Spec{Files: []string{log}}
	appendTo(t, log, numbered(0, 10))
	_, s := readOnce(t, spec, Position{}, Options{Start: StartBeginning})
	rename(t, log, filepath.Join(dir, "elsewhere"))
	put(t, log+".4.gz", "no gzip", 0o600)
	put(t, log+".3.gz", "", 0o600)
	put(t, log+".2", strings.Repeat("x", 100), 0o600)
	compress(t, log+".2", log+".2.gz")
	if err := os.Truncate(log+".2.gz", 20); err != nil {
		t.Fatal(err)
	}
	appendTo(t, log, numbered(10, 20))
	got, _ := readOnce(t, spec, s.Position(), Options{})
	exactly(t, got.texts, 10, 20)
}
