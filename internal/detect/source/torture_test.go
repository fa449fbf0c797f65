package source

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestEachLineIsReadOnceWhileTheLogRotates writes as fast as it can while another goroutine rotates and the
// reader stops and goes on with nothing but its position.
func TestEachLineIsReadOnceWhileTheLogRotates(t *testing.T) {
	t.Parallel()
	for _, poll := range []bool{false, true} {
		t.Run(fmt.Sprintf("poll %t", poll), func(t *testing.T) {
			t.Parallel()
			const lines, rotations = 100_000, 12
			dir := t.TempDir()
			log := filepath.Join(dir, "app.log")
			spec := Spec{Files: []string{log}}
			c := newCollector()
			appendTo(t, log, "")
			r := run(t, spec, Position{}, Options{Poll: poll}, c.handle)
			r.ready(t, 1)

			var mu sync.Mutex // the file that the writer has open
			f, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			defer group.Wait()
			var written atomic.Bool
			group.Go(func() {
				defer written.Store(true)
				for i := 0; i < lines; i += 10 {
					mu.Lock()
					_, err := f.WriteString(numbered(i, i+10))
					mu.Unlock()
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
			random := rand.New(rand.NewPCG(7, 8))
			for i := 1; i <= rotations && !written.Load(); i++ {
				<-time.After(time.Duration(5+random.IntN(30)) * time.Millisecond)
				old := fmt.Sprintf("%s.%d", log, i)
				rename(t, log, old) // the writer goes on with the old file for a while
				<-time.After(time.Duration(random.IntN(5)) * time.Millisecond)
				next, err := os.OpenFile(log, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
				if err != nil {
					t.Fatal(err)
				}
				<-time.After(time.Duration(random.IntN(5)) * time.Millisecond)
				mu.Lock()
				f.Close()
				f = next
				mu.Unlock()
				if i%2 == 0 {
					r.stop()
					b, err := json.Marshal(r.Position())
					if err != nil {
						t.Fatal(err)
					}
					var p Position
					if err := json.Unmarshal(b, &p); err != nil {
						t.Fatal(err)
					}
					<-time.After(time.Duration(random.IntN(40)) * time.Millisecond)
					r = run(t, spec, p, Options{Poll: poll}, c.handle)
				}
			}
			group.Wait()
			f.Close()
			texts := c.wait(t, lines)
			r.stop()
			exactly(t, texts, 0, lines)
		})
	}
}

// TestACheckpointAgreesWithWhatWasCounted takes positions while lines come. On a
// busy machine all of them may come before the first position is taken, so the
// log grows until there was one in between.
func TestACheckpointAgreesWithWhatWasCounted(t *testing.T) {
	t.Parallel()
	for lines := int64(50_000); checkpointsDuring(t, lines) < 2; lines *= 2 {
		if lines > 800_000 {
			t.Fatalf("no position was taken while %d lines came", lines)
		}
	}
}

// checkpointsDuring reads so many lines, and gives how many positions were taken
// and checked meanwhile, the one at the end among them.
func checkpointsDuring(t *testing.T, lines int64) (checks int) {
	log := filepath.Join(t.TempDir(), "app.log")
	appendTo(t, log, numbered(0, int(lines)))
	size := int64(len(numbered(0, 1)))
	count := int64(0)
	done := make(chan struct{})
	r := run(t, Spec{Files: []string{log}}, Position{}, Options{Start: StartBeginning}, func(Line) error {
		if count++; count == lines {
			close(done)
		}
		return nil
	})
	defer r.stop()
	r.ready(t, 1)
	for finished := false; !finished; checks++ {
		select {
		case <-done:
			finished = true
		case <-time.After(50 * time.Microsecond):
		}
		r.Checkpoint(func(p Position) {
			if len(p.Files) != 1 || p.Files[0].Offset != count*size {
				t.Fatalf("%d lines were counted, the position is %+v", count, p.Files)
			}
		})
	}
	return checks
}
