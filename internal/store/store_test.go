package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestASecondOpenerIsToldWhoHasIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.db")
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	if _, err := Open(path); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
}

func TestADamagedFileIsRefusedAndLeftAlone(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"garbage":  func(b []byte) []byte { return bytes.Repeat([]byte("x"), len(b)) },
		"cut off":  func(b []byte) []byte { return b[:100] },
		"one page": func(b []byte) []byte { return b[:os.Getpagesize()] },
		"zeroed":   func(b []byte) []byte { return make([]byte, len(b)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.db")
			s, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Update(func(tx Tx) error { return tx.Put("b", "k", []byte("v")) }); err != nil {
				t.Fatal(err)
			}
			s.Close()
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			bad := damage(whole)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path); !errors.Is(err, ErrCorrupt) {
				t.Errorf("Open: %v, want ErrCorrupt", err)
			}
			if now, _ := os.ReadFile(path); !bytes.Equal(now, bad) {
				t.Error("Open changed a damaged file")
			}
		})
	}
}

func TestAFailedUpdateLeavesNoTrace(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	boom := errors.New("boom")
	if err := s.Update(func(tx Tx) error {
		if err := tx.Put("b", "k", []byte("v")); err != nil {
			return err
		}
		return boom
	}); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if err := s.View(func(tx Tx) error {
		if v := tx.Get("b", "k"); v != nil {
			t.Errorf("got %q", v)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestPrefixesAreWalkedAndDeleted(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "agent.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(func(tx Tx) error {
		for _, k := range []string{"a/1", "a/2", "b/1"} {
			if err := tx.Put("b", k, []byte(k)); err != nil {
				return err
			}
		}
		return tx.DeletePrefix("b", "a/")
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := s.View(func(tx Tx) error {
		return tx.Each("b", "", func(k string, v []byte) error { got = append(got, k+"="+string(v)); return nil })
	}); err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0] != "b/1=b/1" {
		t.Errorf("left %v", got)
	}
	backup := filepath.Join(t.TempDir(), "copy.db")
	if err := s.Backup(backup); err != nil {
		t.Fatal(err)
	}
	if err := s.Backup(backup); !errors.Is(err, fs.ErrExist) {
		t.Errorf("backup over a file: %v", err)
	}
}

func TestPutKeepsACopyOfTheCallersBuffer(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Update(func(tx Tx) error {
		buffer := []byte("first")
		if err := tx.Put("b", "1", buffer); err != nil {
			return err
		}
		copy(buffer, "other")
		return tx.Put("b", "2", buffer)
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(tx Tx) error {
		if got := string(tx.Get("b", "1")); got != "first" {
			t.Errorf("the first value became %q", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// A file that lost its end is refused, however much is left of it.
func TestATruncatedStoreIsAClearRefusal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	s, err := OpenAs("broker", path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := s.Update(func(tx Tx) error { return tx.Put("b", fmt.Sprint(i), bytes.Repeat([]byte{1}, 5000)) }); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.Check(), s.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size, err := UsedSize(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		if err := os.WriteFile(path, content[:1+int(size-1)*i/10], 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(path); !errors.Is(err, ErrCorrupt) {
			t.Errorf("with %d tenths: %v", i, err)
			if err == nil {
				s.Close()
			}
		}
	}
}
