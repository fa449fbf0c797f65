package source

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/detect/source/journalfile"
)

// errNoNative says that a journal needs journalctl.
var errNoNative = errors.New("the journal cannot be read directly")

// journal reads the systemd journal: every set of directories by its own
// reader.
type journal struct {
	matches []match
	dirs    []string // empty is the journal of this system
	spec    Spec
	gate    *gate
	o       Options
	counters

	mu      sync.Mutex
	last    []cursor // one for each sequence
	resumed bool
	streams map[string]Stream
}

// A cursor is a [JournalPosition] in the form that is quick to compare.
type cursor struct {
	sequence                    journalfile.ID
	number, realtime, monotonic uint64
	boot                        journalfile.ID
	root                        string
}

func cursorOf(p JournalPosition) (cursor, bool) {
	c := cursor{number: p.Sequence, realtime: p.Realtime, monotonic: p.Monotonic, root: p.Root}
	if n, err := hex.Decode(c.sequence[:], []byte(p.SequenceID)); len(p.SequenceID) != 32 || err != nil || n != len(c.sequence) {
		return cursor{}, false
	}
	if len(p.BootID) == 32 {
		if _, err := hex.Decode(c.boot[:], []byte(p.BootID)); err != nil {
			return cursor{}, false
		}
	}
	return c, true
}

func (c cursor) position() JournalPosition {
	p := JournalPosition{SequenceID: c.sequence.String(), Sequence: c.number, Realtime: c.realtime, Monotonic: c.monotonic, Root: c.root}
	if c.boot != (journalfile.ID{}) {
		p.BootID = c.boot.String()
	}
	return p
}

func newJournal(spec Spec, resume []JournalPosition, g *gate, o Options) (part, error) {
	if n := spec.JournalNamespace; n != "" && n != "*" && !namespaceName(n) {
		return nil, fmt.Errorf("%w: %s is no name of a journal namespace", ErrSpec, quoted(n))
	}
	for _, f := range spec.JournalFiles {
		if f != "system" && f != "runtime" {
			return nil, fmt.Errorf("%w: journal files are \"system\" or \"runtime\", not %s", ErrSpec, quoted(f))
		}
	}
	j := &journal{dirs: spec.JournalDirs, spec: spec, gate: g, o: o, streams: map[string]Stream{}}
	for _, p := range resume {
		if c, ok := cursorOf(p); ok {
			j.last, j.resumed = append(j.last, c), true
		}
	}
	for _, text := range spec.Journal {
		m, err := parseMatch(text)
		if err != nil {
			return nil, err
		}
		j.matches = append(j.matches, m)
	}
	return j, nil
}

func (j *journal) run(ctx context.Context) error {
	if !j.o.ForceJournalctl {
		err := newNative(j).run(ctx)
		if !errors.Is(err, errNoNative) {
			return err
		}
		name := j.o.Journalctl
		if name == "" {
			name = "journalctl"
		}
		if _, missing := exec.LookPath(name); missing != nil {
			return errors.Join(err, missing)
		}
		j.failed(err)
		j.o.Log.Warn("reading the journal by journalctl, which is slower", "error", err)
	}
	dirs := j.dirs
	if len(dirs) == 0 {
		dirs = []string{""}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, dir := range dirs {
		j.stream("journal "+dir, Stream{Name: "journal", Reader: "journalctl"})
		group.Go(func() error { return j.runJournalctl(ctx, dir) })
	}
	return group.Wait()
}

// stream notes the state of one stream for Status.
func (j *journal) stream(key string, s Stream) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.streams[key] = s
}

// matched lists the matches that hold for an entry.
func (j *journal) matched(to []int, has func(term) bool) []int {
	for i, m := range j.matches {
		if m.holds(has) {
			to = append(to, i)
		}
	}
	return to
}

// advance notes that an entry was handled.
func (j *journal) advance(c cursor) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.last {
		if j.last[i].sequence == c.sequence {
			j.last[i] = c
			return
		}
	}
	j.last = append(j.last, c)
}

// lastOf gives the last handled entry of a sequence.
func (j *journal) lastOf(sequence journalfile.ID) (cursor, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.known(sequence)
}

// known is lastOf for the one goroutine that calls advance.
func (j *journal) known(sequence journalfile.ID) (cursor, bool) {
	for i := range j.last {
		if j.last[i].sequence == sequence {
			return j.last[i], true
		}
	}
	return cursor{}, false
}

// handled reports whether an entry was handled before.
func (j *journal) handled(c cursor) bool {
	last, ok := j.lastOf(c.sequence)
	return ok && c.number <= last.number
}

func (j *journal) position(p *Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range j.last {
		at := c.position()
		at.Of = j.spec.JournalKey()
		p.Journal = append(p.Journal, at)
	}
}

func (j *journal) status(st *Status) {
	j.addTo(st)
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.streams {
		st.Streams = append(st.Streams, s)
	}
}

// cutText cuts a message at MaxLine.
func (j *journal) cutText(text []byte) []byte {
	if len(text) > MaxLine {
		j.cut.Add(1)
		return text[:MaxLine]
	}
	return text
}

// microseconds makes a time of the journal's count since the Unix epoch.
func microseconds(us uint64) time.Time {
	if us > 1<<62 {
		return time.Time{}
	}
	return time.UnixMicro(int64(us))
}

// namespaceName says that systemd takes s for the name of a namespace: it is a part
// of a directory's name.
func namespaceName(s string) bool {
	return len(s) <= 200 && !strings.HasPrefix(s, ".") && strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.:", r)
	}) < 0
}

// directoryWanted says that a machine's directory of journal files is of the
// namespace: MACHINE is of none, MACHINE.NAME of that name.
func (s Spec) directoryWanted(name string) bool {
	machine, namespace, _ := strings.Cut(name, ".")
	return isMachineID(machine) && (s.JournalNamespace == "*" || namespace == s.JournalNamespace)
}

// fileWanted says that the spec reads the file of that path below root.
func (s Spec) fileWanted(root, path string) bool {
	if slices.Contains(s.JournalFiles, "system") && strings.HasPrefix(filepath.Base(path), "user-") {
		return false
	}
	return !slices.Contains(s.JournalFiles, "runtime") || strings.HasPrefix(root, "/run/")
}
