package detect

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A disk that is full for a day is told now and then, and once that it is over.
func TestAStateThatCannotBeSavedIsToldWithAGrowingPause(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, nil))
	var f saveFault
	start := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	for second := range 24 * 60 * 60 {
		f.note(t.Context(), log, start.Add(time.Duration(second)*time.Second), "/var/lib/banmesh/detect.json", os.ErrPermission)
		if lines := strings.Count(out.String(), "\n"); second == 0 && lines != 1 || second == 59 && lines != 1 || second == 60 && lines != 2 {
			t.Errorf("after %d seconds: %d lines", second+1, lines)
		}
	}
	if lines := strings.Count(out.String(), "path=/var/lib/banmesh/detect.json"); lines < 24 || lines > 31 {
		t.Errorf("a day gave %d lines", lines)
	}
	out.Reset()
	for range 3 {
		f.note(t.Context(), log, start.Add(48*time.Hour), "/var/lib/banmesh/detect.json", nil)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 1 || !strings.Contains(out.String(), "saved again") {
		t.Errorf("%s", out.String())
	}
	if saved, err := f.last(); err != nil || !saved.Equal(start.Add(48*time.Hour)) {
		t.Errorf("%v, %v", saved, err)
	}
}

// The status names the directory, also while a save waits for the disk.
func TestTheStatusOfAStateThatCannotBeSavedDoesNotWaitForTheDisk(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "gone", "detect.json")
	d, err := New(Options{StatePath: path, Ban: nil})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Save(); err == nil {
		t.Fatal("saved into a directory that is not there")
	}
	d.saveMu.Lock() // as a save that waits
	defer d.saveMu.Unlock()
	if s := d.Status(); s.SaveError == "" || s.StatePath != path {
		t.Errorf("%+v", s)
	}
}
