package source

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A sequence is a log, its writer, its rotation and its reader, one step at a time
// and all of it within an instant. The reader looks only when it is told to.
type sequence struct {
	dir, log string
	pattern  string
	files    *files
	got      []string
	next     int // number of the next line
	save     saved
	steps    []string
}

// A saved state is written by a checkpoint: the position, and how much had been
// handled by then.
type saved struct {
	position []byte
	got      int
}

const (
	generations = 40
	// tickOfClock is more than the kernel's clock of files lags, a step of time more
	// than that.
	tickOfClock = 11 * time.Millisecond
	stepOfTime  = 25 * time.Millisecond
)

func newSequence(t *rapid.T, dir, pattern string) *sequence {
	q := &sequence{dir: dir, log: filepath.Join(dir, "app.log"), pattern: filepath.Join(dir, pattern)}
	if err := os.WriteFile(q.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	q.start(t)
	q.tick(t)
	q.checkpoint(t)
	return q
}

func (q *sequence) note(format string, a ...any) {
	q.steps = append(q.steps, fmt.Sprintf(format, a...))
}

// start begins a reader at the saved state, which is all that is left of the one before.
func (q *sequence) start(t *rapid.T) {
	var p Position
	if q.save.position != nil {
		if err := json.Unmarshal(q.save.position, &p); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(Spec{Files: []string{q.pattern}}, p, Options{Poll: true})
	if err != nil {
		t.Fatal(err)
	}
	q.files = s.(*source).parts[0].(*files)
	q.files.gate.handle = func(l Line) error {
		q.got = append(q.got, string(l.Text))
		return nil
	}
	q.files.margin = tickOfClock
	q.files.watch = newWatch(q.files.o)
	q.files.buf = make([]byte, tailSize+chunkSize)
}

// kill ends the reader; all that it handled since the checkpoint is forgotten with it.
func (q *sequence) kill() {
	for _, f := range q.files.list {
		f.f.Close()
	}
	q.got = q.got[:q.save.got]
}

func (q *sequence) checkpoint(t *rapid.T) {
	p := Position{Time: time.Now()}
	q.files.position(&p)
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	q.save = saved{b, len(q.got)}
}

// tick looks up the names and reads the new lines.
func (q *sequence) tick(t *rapid.T) {
	for _, f := range q.files.list {
		f.dirty = true
	}
	q.files.scan()
	q.read(t)
}

// read reads the new lines of the open files.
func (q *sequence) read(t *rapid.T) {
	for _, f := range q.files.list {
		f.dirty = true
	}
	for range 1000 {
		behind, err := q.files.drain(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !behind {
			return
		}
	}
	t.Fatalf("reading does not end after %s", strings.Join(q.steps, ", "))
}

func (q *sequence) write(t *rapid.T, n int) {
	f, err := os.OpenFile(q.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(numbered(q.next, q.next+n))
	q.next += n
	if f.Close() != nil || err != nil {
		t.Fatal(err)
	}
}

// shift makes room for a new first generation, as logrotate does.
func (q *sequence) shift(t *rapid.T) {
	for n := generations; n > 0; n-- {
		for _, end := range []string{"", ".gz"} {
			from, to := fmt.Sprintf("%s.%d%s", q.log, n, end), fmt.Sprintf("%s.%d%s", q.log, n+1, end)
			if err := os.Rename(from, to); err != nil && !os.IsNotExist(err) {
				t.Fatal(err)
			}
		}
	}
}

func (q *sequence) rename(t *rapid.T) {
	q.shift(t)
	if err := os.Rename(q.log, q.log+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(q.log, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (q *sequence) copytruncate(t *rapid.T) {
	q.shift(t)
	b, err := os.ReadFile(q.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(q.log+".1", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(q.log, 0); err != nil {
		t.Fatal(err)
	}
}

// compress compresses the youngest generation but the first, as "delaycompress" does.
func (q *sequence) compress(t *rapid.T) {
	for n := 2; n < generations; n++ {
		text := fmt.Sprintf("%s.%d", q.log, n)
		b, err := os.ReadFile(text)
		if err != nil {
			continue
		}
		info, err := os.Stat(text)
		if err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(text + ".gz")
		if err != nil {
			t.Fatal(err)
		}
		z := gzip.NewWriter(f)
		_, err = z.Write(b)
		if z.Close() != nil || f.Close() != nil || err != nil || os.Chtimes(text+".gz", time.Time{}, info.ModTime()) != nil || os.Remove(text) != nil {
			t.Fatal("compressing")
		}
		return
	}
}

func (q *sequence) agree(t *rapid.T) {
	want := strings.Split(strings.TrimSuffix(numbered(0, q.next), "\n"), "\n")
	if q.next == 0 {
		want = nil
	}
	got := slices.Clone(q.got)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		count := map[string]int{}
		for _, text := range got {
			count[text]++
		}
		lost, twice := 0, 0
		for _, text := range want {
			if count[text] == 0 {
				lost++
			}
		}
		for _, n := range count {
			twice += n - 1
		}
		t.Fatalf("of %d lines %d are lost, %d were read again, after %s", q.next, lost, twice, strings.Join(q.steps, ", "))
	}
}

// TestEverySequenceOfRotationsAndKillsReadsEachLineOnce lets rotations of every kind, writes, kills and looks
// at the log follow one another in any order within an instant.
func TestEverySequenceOfRotationsAndKillsReadsEachLineOnce(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		round++
		dir := filepath.Join(root, fmt.Sprint(round))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		q := newSequence(t, dir, rapid.SampledFrom([]string{"app.log", "app.log*"}).Draw(t, "pattern"))
		defer func() { q.kill() }()
		for range rapid.IntRange(1, 14).Draw(t, "steps") {
			switch step := rapid.SampledFrom([]string{"write", "write", "write", "rename", "copytruncate", "compress", "read", "tick", "tick", "checkpoint", "kill", "later"}).Draw(t, "step"); step {
			case "write":
				n := rapid.SampledFrom([]int{1, 3, 20, 50}).Draw(t, "lines")
				q.note("write %d", n)
				q.write(t, n)
			case "rename":
				q.note("rename")
				q.rename(t)
			case "copytruncate":
				q.note("copytruncate")
				q.copytruncate(t)
			case "compress":
				q.note("compress")
				q.compress(t)
			case "read":
				q.note("read")
				q.read(t)
			case "tick":
				q.note("tick")
				q.tick(t)
			case "checkpoint":
				q.note("checkpoint")
				q.checkpoint(t)
			case "later":
				q.note("later")
				<-time.After(stepOfTime)
			case "kill":
				q.note("kill")
				q.kill()
				q.start(t)
				q.tick(t)
			}
		}
		q.write(t, 1)
		for range 4 {
			q.tick(t)
		}
		q.agree(t)
	})
}

// TestALogThatWasCopiedAndThenRenamedIsReadWhole has all of it between a kill and the next start: the
// file that was emptied is older than the last look at its name.
func TestALogThatWasCopiedAndThenRenamedIsReadWhole(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "sequence")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		q := newSequence(t, dir, "app.log")
		defer func() { q.kill() }()
		q.write(t, 50)
		<-time.After(stepOfTime)
		q.tick(t)
		q.checkpoint(t)
		for range rapid.IntRange(1, 2).Draw(t, "copies") {
			q.write(t, rapid.IntRange(0, 60).Draw(t, "before"))
			q.copytruncate(t)
		}
		q.write(t, rapid.IntRange(0, 60).Draw(t, "between"))
		q.rename(t)
		q.write(t, 50)
		q.kill()
		q.start(t)
		for range 3 {
			q.tick(t)
		}
		q.agree(t)
	})
}
