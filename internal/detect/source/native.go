package source

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"banmesh/internal/detect/source/journalfile"
)

const (
	// busyTick and idleTick are how often the number of entries is looked at:
	// journald tells those who wait only every 250 ms, but the mapped header
	// changes at once. A look is one load a file.
	busyTick = 5 * time.Millisecond
	idleTick = 25 * time.Millisecond
	// busyFor is how long after an entry the shorter tick is kept.
	busyFor = 30 * time.Second
	// batchSize is how many entries are handled before another part, or a
	// checkpoint, has its turn.
	batchSize = 256
	// gapWindow is how recent an entry must be for a gap before it to make
	// the reader look for a new file, and gapEvery how often it may.
	gapWindow = 10 * time.Second
	gapEvery  = 10 * time.Millisecond
	// messageLimit is how much of a field is looked at: one line, its name,
	// and one byte more that shows that it was cut.
	messageLimit = MaxLine + len("MESSAGE=") + 1
)

// A journalFile is one open file of the journal.
type journalFile struct {
	*journalfile.File
	born    time.Time
	key     uint64 // the extractor's
	path    string
	id      fileID
	root    string
	old     bool // it was there when reading began
	skip    bool // nothing in it is wanted (StartEnd)
	entry   journalfile.Entry
	ready   bool // entry is the next one
	named   bool // the current scan saw its name
	deleted bool // it has no name any more
}

// native reads journal files directly. All its work is done by the goroutine
// of run.
type native struct {
	j       *journal
	files   []*journalFile
	done    map[fileID]time.Time // read to the end, or unreadable, and when they were made: inodes are used again
	began   bool
	pending bool // a file has no header yet
	horizon uint64
	boots   map[journalfile.ID]*bootMark
	boot    journalfile.ID // whose mark was asked for last
	mark    *bootMark
	gapAt   time.Time
	extract *extractor
	watch   *watch
	size    int64 // entries seen in files that are done
}

// A bootMark is the last handled entry of a boot.
type bootMark struct {
	monotonic uint64
	root      string
}

func newNative(j *journal) *native {
	n := &native{j: j, done: map[fileID]time.Time{}, boots: map[journalfile.ID]*bootMark{}, extract: newExtractor(j.matches)}
	for _, c := range j.last {
		n.horizon = max(n.horizon, c.realtime)
		if mark := n.markOf(c.boot); c.monotonic > mark.monotonic {
			mark.monotonic, mark.root = c.monotonic, c.root
		}
	}
	return n
}

// markOf gives the mark of a boot, mostly that of the entry before.
func (n *native) markOf(boot journalfile.ID) *bootMark {
	if n.mark == nil || n.boot != boot {
		mark := n.boots[boot]
		if mark == nil {
			mark = &bootMark{}
			n.boots[boot] = mark
		}
		n.boot, n.mark = boot, mark
	}
	return n.mark
}

func (n *native) run(ctx context.Context) error {
	n.watch = newWatch(n.j.o)
	defer func() {
		n.watch.close()
		for _, f := range n.files {
			f.Close()
		}
	}()
	if err := n.scan(); err != nil {
		return err
	}
	tick := time.NewTimer(busyTick)
	defer tick.Stop()
	active, scanned := time.Now(), time.Now()
	for {
		count, err := n.round(ctx)
		if err != nil {
			return err
		}
		now := time.Now()
		if count > 0 {
			active = now
			n.report()
		}
		if ctx.Err() != nil || n.j.o.Once && count == 0 {
			return nil
		}
		rescan := n.pending || now.Sub(scanned) >= n.watch.rescan()
		wait := busyTick
		if now.Sub(active) > busyFor {
			wait = idleTick
		}
		tick.Reset(wait)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case e := <-n.watch.events():
			rescan = rescan || journalName(e.Name) || filepath.Ext(e.Name) == ""
		case err := <-n.watch.errors():
			n.j.failed(fmt.Errorf("file notifications: %w", err))
			rescan = true
		}
		if rescan {
			scanned = now
			if err := n.scan(); err != nil {
				return err
			}
		}
	}
}

// journalName reports whether a file is one of the journal's; those that end
// in "~" were not closed properly and never change.
func journalName(name string) bool {
	return strings.HasSuffix(name, ".journal") || strings.HasSuffix(name, ".journal~")
}

// directories lists the directories of journal files, each with the root that
// it belongs to.
func (n *native) directories() (dirs, roots []string) {
	add := func(root string, all bool, names ...string) {
		if all {
			entries, _ := os.ReadDir(root)
			for _, e := range entries {
				if e.IsDir() && (len(n.j.dirs) > 0 && n.j.spec.JournalNamespace == "" || n.j.spec.directoryWanted(e.Name())) {
					names = append(names, e.Name())
				}
			}
		}
		for _, name := range names {
			dirs, roots = append(dirs, filepath.Join(root, name)), append(roots, root)
		}
	}
	if len(n.j.dirs) > 0 {
		for _, dir := range n.j.dirs {
			if dir = filepath.Clean(dir); n.j.spec.JournalNamespace == "" {
				add(dir, true, "")
			} else {
				add(dir, true)
			}
		}
		return dirs, roots
	}
	system := []string{"/run/log/journal", "/var/log/journal"}
	machine, _ := os.ReadFile("/etc/machine-id")
	id := strings.TrimSpace(string(machine))
	own := slices.ContainsFunc(system, func(root string) bool {
		info, err := os.Stat(filepath.Join(root, id))
		return id != "" && err == nil && info.IsDir()
	})
	for _, root := range system {
		if own && n.j.spec.JournalNamespace == "" {
			add(root, false, id)
		} else {
			// In a container that is shown its host's journal.
			add(root, true)
		}
	}
	return dirs, roots
}

func isMachineID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// scan looks for files that are new and closes those that are done.
func (n *native) scan() error {
	n.pending = false
	dirs, roots := n.directories()
	for _, f := range n.files {
		f.named = false
	}
	watched := map[string]bool{}
	for i, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				n.j.failed(fmt.Errorf("journal directory: %w", err))
			}
			continue
		}
		watched[dir], watched[roots[i]] = true, true
		for _, e := range entries {
			if !journalName(e.Name()) || !n.j.spec.fileWanted(roots[i], e.Name()) {
				continue
			}
			if err := n.add(filepath.Join(dir, e.Name()), roots[i]); err != nil {
				return err
			}
		}
	}
	n.watch.set(watched)
	for _, f := range n.files {
		f.deleted = !f.named
	}
	if !n.began {
		n.began = true
		if err := n.begin(); err != nil {
			return err
		}
	}
	n.report()
	return nil
}

// add opens a file unless it is known.
func (n *native) add(path, root string) error {
	info, err := os.Stat(path)
	if err != nil {
		return nil // it went between two looks
	}
	id := idOf(info)
	if born, ok := n.done[id]; ok {
		if at, _ := birth(path); at.Equal(born) {
			return nil
		}
		delete(n.done, id)
	}
	for _, f := range n.files {
		if f.id == id {
			f.path, f.named = path, true
			return nil
		}
	}
	f, err := journalfile.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, journalfile.ErrEmpty):
		// journald writes the header within a moment; a file that has none
		// for long is left to the slower scan.
		n.pending = n.pending || time.Since(info.ModTime()) < time.Second
		return nil
	case errors.Is(err, journalfile.ErrUnsupported):
		return fmt.Errorf("%w: %w", errNoNative, err)
	case err != nil:
		n.j.failed(err)
		if errors.Is(err, journalfile.ErrCorrupt) {
			n.j.o.Log.Warn("journal file left out", "error", err)
			n.done[id], _ = birth(path)
		}
		return nil
	}
	device, inode, err := f.Identity()
	if err != nil || (fileID{device, inode}) != id {
		n.pending = true // replaced meanwhile
		return f.Close()
	}
	born, _ := birth(path)
	n.files = append(n.files, &journalFile{born: born, key: n.extract.newKey(), File: f, path: path, id: id, root: root, old: !n.began, named: true})
	return nil
}

// begin decides where the files that are there at the beginning are begun.
func (n *native) begin() error {
	return n.guard(func() error {
		for _, f := range n.files {
			f.Refresh()
			if n.j.resumed {
				continue
			}
			switch n.j.o.Start {
			case StartSince:
				f.skip = f.TailRealtime() < uint64(n.j.o.Since.UnixMicro()) && f.Count() > 0
			case StartEnd:
				f.skip = !n.j.o.Once
			}
			if f.skip && f.Count() > 0 {
				c := cursor{sequence: f.SequenceID, number: f.TailSequence(), realtime: f.TailRealtime(), root: f.root}
				if last, ok := n.j.known(c.sequence); !ok || last.number < c.number {
					n.j.advance(c)
				}
			}
		}
		return nil
	})
}

// guard runs f with faults in the mapped files caught; the file at fault is
// given up.
func (n *native) guard(f func() error) error {
	err := journalfile.Guard(func() []*journalfile.File {
		files := make([]*journalfile.File, len(n.files))
		for i, file := range n.files {
			files[i] = file.File
		}
		return files
	}, f)
	var fault *journalfile.FaultError
	if !errors.As(err, &fault) {
		return err
	}
	for _, file := range n.files {
		if file.File == fault.File {
			n.giveUp(file, err)
			break
		}
	}
	return nil
}

// giveUp leaves a file that cannot be read on.
func (n *native) giveUp(f *journalFile, err error) {
	n.j.failed(err)
	n.j.o.Log.Warn("the rest of a journal file is left out", "file", f.path, "read", f.Read(), "error", err)
	n.remove(f)
}

// remove closes a file for good.
func (n *native) remove(f *journalFile) {
	n.done[f.id] = f.born
	n.size += int64(f.Read())
	f.Close()
	n.files = slices.DeleteFunc(n.files, func(g *journalFile) bool { return g == f })
}

// round handles everything that is there now, in the order in which it was
// written, and gives the number of entries gone past.
func (n *native) round(ctx context.Context) (count int, err error) {
	for ctx.Err() == nil {
		before := count
		if err := n.guard(func() error { return n.merge(ctx, &count) }); err != nil {
			return count, err
		}
		if count == before {
			break
		}
	}
	return count, nil
}

// merge handles entries of all files, up to the counts that it sees at first.
func (n *native) merge(ctx context.Context, count *int) error {
	if err := n.refresh(); err != nil {
		return err
	}
	for ctx.Err() == nil {
		least, bound, err := n.next()
		if err != nil || least == nil {
			return err
		}
		if n.gap(least) {
			return nil // with a new file, everything is looked at again
		}
		if err := n.batch(ctx, least, bound, count); err != nil {
			return err
		}
	}
	return nil
}

// refresh looks at the counts of all files until none changes: then whatever
// was written before an entry that is seen is seen too. It closes files that
// are read to their end and will not grow.
func (n *native) refresh() error {
	changed := true
	for tries := 0; changed && tries < 100; tries++ {
		changed = false
		for _, f := range n.files {
			changed = f.Refresh() || changed
		}
	}
	for _, f := range slices.Clone(n.files) {
		if f.skip {
			f.skip = false
			if err := f.SkipAll(); err != nil {
				n.giveUp(f, err)
			}
			continue
		}
		if f.ready || f.Read() < f.Count() {
			continue
		}
		if f.Archived() || strings.HasSuffix(f.path, "~") || f.deleted {
			n.remove(f)
		}
	}
	return nil
}

// next gives the file whose next entry was written first, and the file whose
// next entry is the first after those.
func (n *native) next() (least, bound *journalFile, err error) {
	for _, f := range slices.Clone(n.files) {
		if ok, err := n.peek(f); err != nil {
			return nil, nil, err
		} else if !ok {
			continue
		}
		switch {
		case least == nil || earlierEntry(f, least):
			least, bound = f, least
		case bound == nil || earlierEntry(f, bound):
			bound = f
		}
	}
	return least, bound, nil
}

// earlierEntry orders the next entries of two files.
func earlierEntry(a, b *journalFile) bool {
	switch {
	case a.SequenceID == b.SequenceID:
		return a.entry.Sequence < b.entry.Sequence
	case a.entry.Boot == b.entry.Boot && a.entry.Monotonic != b.entry.Monotonic:
		return a.entry.Monotonic < b.entry.Monotonic
	}
	return a.entry.Realtime < b.entry.Realtime
}

// peek makes the file's entry its next one that was not handled before.
func (n *native) peek(f *journalFile) (bool, error) {
	for !f.ready {
		ok, skip, err := f.Peek(&f.entry)
		switch {
		case skip:
			n.j.dropped.Add(1)
			f.Skip()
		case err != nil:
			if active := !f.Archived() && !strings.HasSuffix(f.path, "~"); active && !n.j.o.Once {
				return false, fmt.Errorf("%w: %s: %w", errNoNative, f.path, err)
			}
			n.giveUp(f, err)
			return false, nil
		case !ok:
			return false, nil
		case n.seen(f):
			f.Skip()
		default:
			f.ready = true
		}
	}
	return true, nil
}

// seen reports whether the file's entry was handled before: in this file, in
// another of the same sequence, or, by time, in one of a sequence that has
// ended. When the journal moves from /run to /var, its entries are copied
// there under new numbers.
func (n *native) seen(f *journalFile) bool {
	e := &f.entry
	last, known := n.j.known(f.SequenceID)
	switch {
	case known && e.Sequence <= last.number:
		return true
	case !known && f.old && n.j.resumed && e.Realtime <= n.horizon:
		return true
	case f.old && !n.j.resumed && n.j.o.Start == StartSince && e.Realtime < uint64(n.j.o.Since.UnixMicro()):
		return true
	}
	mark := n.markOf(e.Boot)
	return mark.root != f.root && strings.HasPrefix(mark.root, "/run/") && e.Monotonic <= mark.monotonic
}

// gap reports whether entries before the file's next one are missing and a new
// file was found that may hold them.
func (n *native) gap(f *journalFile) bool {
	last, known := n.j.known(f.SequenceID)
	if !known || f.entry.Sequence == last.number+1 {
		return false
	}
	now := time.Now()
	if now.Sub(microseconds(f.entry.Realtime)) > gapWindow || now.Sub(n.gapAt) < gapEvery {
		return false
	}
	n.gapAt = now
	before := len(n.files)
	if err := n.scan(); err != nil {
		return false // the next scan says so again
	}
	return len(n.files) > before
}

// batch handles entries of one file while they come before the bound's.
func (n *native) batch(ctx context.Context, f, bound *journalFile, count *int) error {
	n.j.gate.Lock()
	defer n.j.gate.Unlock()
	read := uint64(0)
	defer func() {
		if read > 0 {
			n.j.read.Add(read)
			n.j.lastLine.Store(n.j.o.Now().UnixNano())
		}
	}()
	var line Line
	for range batchSize {
		e := &f.entry
		ok, err := n.extract.line(f, e, &line)
		if err != nil {
			n.j.dropped.Add(1)
		}
		if ok {
			line.Text = n.j.cutText(line.Text)
			if err := n.j.gate.handle(line); err != nil {
				return err
			}
			read++
		}
		n.j.advance(cursor{
			sequence: f.SequenceID, number: e.Sequence, realtime: e.Realtime, monotonic: e.Monotonic, boot: e.Boot, root: f.root,
		})
		if mark := n.markOf(e.Boot); mark.root != f.root || e.Monotonic > mark.monotonic {
			mark.monotonic, mark.root = e.Monotonic, f.root
		}
		f.ready = false
		f.Skip()
		*count++
		if ok, err := n.peek(f); err != nil || !ok {
			return err
		}
		if bound != nil && !earlierEntry(f, bound) || ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// report renews the status.
func (n *native) report() {
	n.j.mu.Lock()
	defer n.j.mu.Unlock()
	clear(n.j.streams)
	for _, f := range n.files {
		read := int64(f.Read())
		count := int64(f.Refreshed())
		n.j.streams[f.path] = Stream{Name: f.path, Size: count, Offset: read, Backlog: max(0, count-read), Reader: "native"}
	}
}
