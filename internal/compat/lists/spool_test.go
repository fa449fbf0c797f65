package lists

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
)

func TestACopyIsReadBackAndADamagedOneIsNot(t *testing.T) {
	c := &Copy{From: "file /lists/drop", Taken: time.Unix(1_790_000_000, 0).UTC(), Confirmed: time.Unix(1_790_000_001, 0).UTC(), Edition: Edition{
		Format: Lines, Lines: 3, Tally: Tally{Wide: 1}, Refused: []Refusal{{"0.0.0.0/0", wide}},
		Targets: []ban.Target{ban.MustTarget("203.0.113.0/24"), ban.MustTarget("198.51.100.7"), ban.MustTarget("2001:db8::/48")},
	}}
	b, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := DecodeCopy(b)
	if err != nil || !reflect.DeepEqual(c, again) {
		t.Fatalf("%+v, %v", again, err)
	}
	for name, x := range map[string][]byte{
		"cut":          b[:len(b)-20],
		"longer":       append(bytes.Clone(b), "198.51.100.9\n"...),
		"another file": []byte("{}\n"),
		"changed":      bytes.Replace(b, []byte(`"198.51.100.7"`), []byte(`"198.51.100.8"`), 1),
		"empty":        nil,
		"a wallet":     bytes.Replace(b, []byte(`"198.51.100.7"`), []byte(`"0x`+strings.Repeat("1", 40)+`"`), 1),
	} {
		if _, err := DecodeCopy(x); err == nil {
			t.Errorf("%s: it is read", name)
		}
	}
}

func TestFilesOfAnotherUserAreReadAsForeign(t *testing.T) {
	dir := t.TempDir()
	if _, err := ReadFetched(dir, "drop"); !errors.Is(err, ErrNotFetched) {
		t.Errorf("nothing there: %v", err)
	}
	for name, make := range map[string]func(path string) error{
		"a link":      func(path string) error { return os.Symlink("/etc/passwd", path) },
		"a directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"a pipe":      func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"too long": func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte(" "), maxRecord+1), 0o644)
		},
		"damaged": func(path string) error { return os.WriteFile(path, []byte(`{"url":`), 0o644) },
	} {
		path := filepath.Join(dir, "drop.json")
		if err := make(path); err != nil {
			t.Fatal(err)
		}
		if f, err := ReadFetched(dir, "drop"); err == nil || errors.Is(err, ErrNotFetched) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzDecodeCopy(f *testing.F) {
	c := &Copy{Edition: Edition{Targets: []ban.Target{ban.MustTarget("203.0.113.0/24")}}}
	b, err := c.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := DecodeCopy(b)
		if err != nil {
			return
		}
		again, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := DecodeCopy(again); err != nil || !reflect.DeepEqual(c, d) {
			t.Fatalf("%+v and %+v: %v", c, d, err)
		}
	})
}
