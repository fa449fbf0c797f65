package source

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A rotation deletes generations while no agent runs. It is told of those alone of
// which something may be missing.
func TestADeletedGenerationIsToldWhereItsEndWasNotRead(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		tail string // of the generation that is deleted
		age  time.Duration
		told bool
	}{
		{name: "it was read to its end long ago", age: time.Hour},
		{name: "its service may have gone on writing to it", told: true},
		{name: "its last line was not whole", tail: "line 0001", age: time.Hour, told: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			log := filepath.Join(dir, "app.log")
			spec := Spec{Files: []string{log}}
			appendTo(t, log, numbered(0, 10)+c.tail)
			at := time.Now().Add(-c.age)
			if err := os.Chtimes(log, at, at); err != nil {
				t.Fatal(err)
			}
			got := newCollector()
			s := run(t, spec, Position{}, Options{Start: StartBeginning}, got.handle)
			got.wait(t, 10)
			rename(t, log, log+".1")
			appendTo(t, log, numbered(10, 20))
			got.wait(t, 20)
			p := s.stop()
			if len(p.Files) != 2 {
				t.Fatalf("%+v", p.Files)
			}
			if err := os.Remove(log + ".1"); err != nil {
				t.Fatal(err)
			}
			appendTo(t, log, numbered(20, 30))
			var told bytes.Buffer
			rest, again := readOnce(t, spec, p, Options{Log: slog.New(slog.NewTextHandler(&told, nil))})
			exactly(t, rest.texts, 20, 30)
			if warned := strings.Contains(told.String(), "is gone"); warned != c.told || again.Status().Errors > 0 != c.told {
				t.Errorf("told %v, %d errors: %s", warned, again.Status().Errors, told.String())
			}
		})
	}
}
