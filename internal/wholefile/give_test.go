package wholefile

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

func TestWhatRootWritesForAServiceBelongsToIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root gives files away")
	}
	const service, other = 65534, 1
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	for _, d := range []string{state, state + "/history"} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	write := func(path string) string {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	outside, mine := write(dir+"/outside"), write(state+"/mine")
	if err := os.Chown(state, service, service); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(mine, other, other); err != nil {
		t.Fatal(err)
	}
	if err := Write(state+"/card", []byte("x"), 0o644); err != nil || owner(t, state+"/card") != service {
		t.Errorf("a file that is written: %v, owner %d", err, owner(t, state+"/card"))
	}
	// A tree that a service may have filled does not lead root elsewhere.
	left, below := write(state+"/agent.db"), write(state+"/history/day")
	if err := os.Symlink(outside, state+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside, state+"/hard"); err != nil {
		t.Fatal(err)
	}
	if err := GiveTree(state); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{left: service, below: service, state + "/history": service, outside: 0, mine: other} {
		if got := owner(t, path); got != want {
			t.Errorf("%s belongs to %d, want %d", path, got, want)
		}
	}
	// Root's own directory stays root's.
	if err := GiveTree(dir); err != nil || owner(t, outside) != 0 {
		t.Errorf("root's own: %v", err)
	}
}

func TestARootThatMayGiveNothingAwayWritesAllTheSame(t *testing.T) {
	for _, err := range []error{&fs.PathError{Op: "chown", Err: unix.EPERM}, &fs.PathError{Op: "open", Err: unix.EACCES}, nil} {
		if unlessForbidden(err) != nil {
			t.Errorf("%v stops it", err)
		}
	}
	if unlessForbidden(&fs.PathError{Op: "open", Err: unix.EIO}) == nil {
		t.Error("a broken disk is dropped")
	}
}
