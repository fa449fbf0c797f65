package source

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// clockMargin is how far a file's modification time may lag behind the clock:
// the kernel stamps files with the time of its last tick.
const clockMargin = 50 * time.Millisecond

// settleTime is more than it takes from a file's appearance until it is in
// positions.
const settleTime = 3 * rescanEvery

// maxSiblings bounds how many files of one directory are looked at for older
// generations of a log.
const maxSiblings = 4096

// A found file is one that a glob names.
type found struct {
	path    string
	info    os.FileInfo
	matched []int
}

// An owner is the file that had a name when the name was last looked up; f is
// nil if that file is gone.
type owner struct {
	f  *file
	at time.Time
}

// scan looks up every name again: it opens new files, notices those that were
// renamed, and closes those that are done.
func (s *files) scan() {
	s.now = s.o.Now()
	first := !s.scanned
	names, dirs := s.lookUp()
	if first {
		s.restore(names)
	}
	for _, f := range slices.Clone(s.list) {
		if !f.intact() {
			s.truncated(f)
		}
	}
	claimed := map[*file]bool{}
	for _, n := range names {
		f := s.find(idOf(n.info))
		before := s.owners[n.path]
		lookedAt := before.at
		s.raced = false
		switch {
		case f == nil:
			if f = s.add(n, first); f == nil {
				continue
			}
		case !before.at.IsZero():
			s.between(n, f, before)
		}
		if !claimed[f] {
			claimed[f] = true
			s.mu.Lock()
			f.path, f.matched, f.rotated = n.path, n.matched, false
			s.mu.Unlock()
		}
		// A stat between two names of one rotation can show a file under both.
		s.owners[n.path] = owner{f: f, at: s.now}
		if s.raced {
			// Generations that came meanwhile are still to be found.
			s.owners[n.path] = owner{f: f, at: lookedAt}
			s.again = true
		}
	}
	for _, f := range s.list {
		if !claimed[f] && !f.rotated {
			s.mu.Lock()
			f.rotated, f.leftAt = true, s.now
			s.mu.Unlock()
			f.atEnd, f.dirty = false, true
		}
	}
	s.retire()
	maps.DeleteFunc(s.owners, func(path string, o owner) bool {
		return s.now.Sub(o.at) > renamedGrace && !slices.ContainsFunc(names, func(n found) bool { return n.path == path })
	})
	// A name that is missing, in the middle of a rotation, was last looked up
	// with success before: what comes after that is still to be found.
	at := s.now
	for _, o := range s.owners {
		at = earlier(at, o.at)
	}
	s.mu.Lock()
	s.scanned, s.scannedAt = true, at
	s.mu.Unlock()
	s.byEvent = map[string]*file{}
	for _, n := range names {
		if f := s.find(idOf(n.info)); f != nil {
			s.byEvent[n.path] = f
			target := ""
			if real, err := filepath.EvalSymlinks(n.path); err == nil && real != n.path {
				target = real
				s.byEvent[real] = f
				dirs[filepath.Dir(real)] = true
			}
			if f.path == n.path && f.target != target {
				s.mu.Lock()
				f.target = target
				s.mu.Unlock()
			}
		}
	}
	s.watch.set(dirs)
}

// find gives the file of an id that is being read, or nil.
func (s *files) find(id fileID) *file {
	for _, f := range s.list {
		if f.id == id {
			return f
		}
	}
	return nil
}

// lookUp expands the globs, and gives the directories to watch for changes of
// the result. Files come in order of their last change, so that of several
// that are read from the beginning the oldest comes first.
func (s *files) lookUp() ([]found, map[string]bool) {
	var names []found
	index := map[string]int{}
	dirs := map[string]bool{}
	for i, glob := range s.globs {
		paths, _ := filepath.Glob(glob) // the pattern was checked
		for dir := filepath.Dir(glob); ; dir = filepath.Dir(dir) {
			matches, _ := filepath.Glob(dir)
			for _, m := range matches {
				if info, err := os.Stat(m); err == nil && info.IsDir() {
					dirs[m] = true
				}
			}
			// The parents too while something is missing or may be added.
			if len(matches) > 0 && !strings.ContainsAny(dir, `*?[\`) || dir == filepath.Dir(dir) {
				break
			}
		}
		for _, path := range paths {
			if j, ok := index[path]; ok {
				names[j].matched = append(names[j].matched, i)
				continue
			}
			if compressed(path) && path != glob {
				continue
			}
			info, err := os.Stat(path)
			if err != nil || !info.Mode().IsRegular() {
				if err == nil && path == glob && !info.IsDir() && !s.blocked[path] {
					s.blocked[path] = true
					s.failed(fmt.Errorf("%s: %w", path, errNotRegular))
				}
				continue
			}
			index[path] = len(names)
			names = append(names, found{path: path, info: info, matched: []int{i}})
		}
	}
	slices.SortStableFunc(names, func(a, b found) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	return names, dirs
}

// follow puts an open file on the list, to be read from the given place.
func (s *files) follow(h *os.File, info os.FileInfo, path string, matched []int, offset int64, cut bool) (*file, error) {
	f := &file{id: idOf(info), path: path, f: h, format: s.format, matched: matched, grewAt: s.now}
	f.size.Store(info.Size())
	if err := f.seek(offset, cut); err != nil {
		h.Close()
		return nil, err
	}
	s.mu.Lock()
	s.list = append(s.list, f)
	s.mu.Unlock()
	return f, nil
}

// add follows a file that a glob names and that is not followed yet.
func (s *files) add(n found, first bool) *file {
	fail := func(err error) *file {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went between two looks
		}
		s.failed(fmt.Errorf("opening %s: %w", n.path, err))
		if !s.blocked[n.path] {
			s.blocked[n.path] = true
			s.o.Log.Warn("log file cannot be opened, trying again", "file", n.path, "error", err)
		}
		return nil
	}
	h, info, err := openFile(n.path)
	if err != nil {
		return fail(err)
	}
	if idOf(info) != idOf(n.info) {
		h.Close() // replaced meanwhile; the next scan sees what is there then
		s.again = true
		return nil
	}
	offset, cut, fresh := int64(0), false, false
	before := s.owners[n.path]
	switch p, ok := s.remembered(h, info); {
	case ok:
		offset, cut = p.Offset, p.Cut
	case before.at.IsZero() && (first || s.blocked[n.path]) && (s.virgin || s.unasked(n.path)):
		offset, err = s.startOffset(h, info, isLocalLog(n.path))
		if err != nil {
			h.Close()
			return fail(err)
		}
	default:
		fresh = !s.virgin || !first
	}
	delete(s.blocked, n.path)
	last := before.f
	if !before.at.IsZero() {
		for _, g := range s.missed(n, before) {
			g.before, last = last, g
		}
	}
	f, err := s.follow(h, info, n.path, n.matched, offset, cut)
	if err != nil {
		return fail(err)
	}
	f.before = last
	if last != nil {
		last.atEnd, last.dirty = false, true
	}
	if fresh {
		f.fresh.Store(true)
		f.freshAt = s.now
	}
	return f
}

// unasked reports whether a file was there when the position was taken, and is
// yet not in it: nobody asked for it then.
func (s *files) unasked(path string) bool {
	born, ok := birth(path)
	return ok && born.Before(s.resumeAt.Add(-settleTime))
}

// startOffset is where a file is begun that was never read before.
func (s *files) startOffset(h *os.File, info os.FileInfo, framed bool) (int64, error) {
	switch {
	case s.o.Start == StartBeginning:
		return 0, nil
	case framed && s.o.Start == StartSince:
		return recordsSince(h, info.Size(), s.o.Since), nil
	case framed:
		return info.Size(), nil // where it is the inside of a record, that one is lost
	case s.o.Start == StartSince:
		if !info.ModTime().Before(s.o.Since) {
			return s.bisect(h, info.Size())
		}
	}
	return lineStart(h, info.Size())
}

// lineStart is the beginning of the line that offset is in: a line that is
// being written is read whole.
func lineStart(h *os.File, offset int64) (int64, error) {
	n := min(offset, MaxLine)
	b := make([]byte, n)
	if _, err := h.ReadAt(b, offset-n); err != nil {
		return 0, err
	}
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] == '\n' {
			return offset - n + int64(i) + 1, nil
		}
	}
	if n == offset {
		return 0, nil
	}
	return offset, nil
}

// remembered finds the position of a file that was followed before: one that
// was given up, or one that was missing when Run began.
func (s *files) remembered(h *os.File, info os.FileInfo) (FilePosition, bool) {
	id := idOf(info)
	if p, ok := s.retired[id]; ok {
		delete(s.retired, id)
		return p, p.matches(h, info.Size())
	}
	for i, p := range s.lost {
		if p.Device == id.device && p.Inode == id.inode && p.matches(h, info.Size()) {
			s.mu.Lock()
			s.lost = slices.Delete(s.lost, i, i+1)
			s.mu.Unlock()
			return p, true
		}
	}
	return FilePosition{}, false
}

// restore finds the files of the positions that Run began with, by inode
// whatever their names are now.
func (s *files) restore(names []found) {
	var lost []FilePosition
	for _, p := range s.lost {
		if !s.restoreOne(p, names) && len(lost) < maxLost {
			lost = append(lost, p)
		}
	}
	s.mu.Lock()
	s.lost = lost
	s.mu.Unlock()
}

// restoreOne reports whether a position is dealt with.
func (s *files) restoreOne(p FilePosition, names []found) bool {
	if len(s.matching(p.Path)) == 0 {
		return true // of globs that are not asked for any more
	}
	older := s.owners[p.Path].f
	s.owners[p.Path] = owner{f: older, at: s.resumeAt}
	f, seen := s.reopen(p, names)
	for range maxPasses {
		if f != nil || !seen {
			break
		}
		// A rotation that renames all generations is going on.
		f, seen = s.reopen(p, nil)
	}
	if f != nil {
		f.before = older
		if p.New {
			f.fresh.Store(true)
			f.freshAt = s.now
		}
		s.owners[p.Path] = owner{f: f, at: s.resumeAt}
		return true
	}
	if seen {
		return false // it is there: the next scan finds it
	}
	if f = s.findCopy(p); f == nil {
		f = s.findCompressed(p)
	}
	if f != nil {
		f.before = older
		s.owners[p.Path] = owner{f: f, at: s.resumeAt}
		return true
	}
	if _, err := os.Stat(p.Path); err == nil {
		if p.Done {
			return true
		}
		s.o.Log.Warn("the log file that was being read is gone; what it got since then is not read", "file", p.Path)
		s.failed(fmt.Errorf("%s: the rotated file is gone", p.Path))
		return true
	}
	delete(s.owners, p.Path)
	return false
}

// reopen follows the file of a position under whatever name it has. seen says that it
// is there, and was renamed while it was looked for.
func (s *files) reopen(p FilePosition, names []found) (f *file, seen bool) {
	want := fileID{p.Device, p.Inode}
	paths := []string{p.Path, p.realPath()}
	for _, n := range slices.Concat(names, siblings(p.realPath()), siblings(p.Path)) {
		if idOf(n.info) == want {
			paths, seen = append(paths, n.path), true
		}
	}
	for _, path := range paths {
		h, info, err := openFile(path)
		if err != nil {
			continue
		}
		if idOf(info) != want {
			h.Close()
			continue
		}
		if !p.matches(h, info.Size()) {
			s.emptied[want] = true
			h.Close()
			return nil, false
		}
		f, err := s.follow(h, info, p.Path, s.matching(p.Path), p.Offset, p.Cut)
		if err != nil {
			s.failed(err)
			continue
		}
		if path != p.Path {
			s.mu.Lock()
			f.target = path
			s.mu.Unlock()
		}
		return f, true
	}
	return nil, seen
}

// matching lists the globs that name a path.
func (s *files) matching(path string) []int {
	var matched []int
	for i, glob := range s.globs {
		if ok, _ := filepath.Match(glob, path); ok {
			matched = append(matched, i)
		}
	}
	return matched
}

// retire closes files that have lost their name and grow no more.
func (s *files) retire() {
	for i := 0; i < len(s.list); i++ {
		f := s.list[i]
		if !f.rotated {
			f.done.Store(false)
			continue
		}
		info, err := f.f.Stat()
		f.done.Store(err == nil && info.Size() == f.committed.Load() && s.now.Sub(info.ModTime()) >= deletedGrace)
		if !f.atEnd || f.dirty {
			continue
		}
		grace := renamedGrace
		if err == nil && idLinks(info) == 0 {
			grace = deletedGrace
		}
		quiet := f.grewAt
		if f.leftAt.After(quiet) {
			quiet = f.leftAt
		}
		if s.now.Sub(quiet) < grace {
			continue
		}
		if err := s.flush(f); err != nil {
			return // the handler's error comes again at the next line
		}
		f.f.Close()
		if len(s.retired) >= maxLost {
			clear(s.retired)
		}
		s.retired[f.id] = f.position()
		s.mu.Lock()
		s.list = slices.Delete(s.list, i, i+1)
		s.mu.Unlock()
		i--
		for _, g := range s.list {
			if g.before == f {
				g.before = nil
			}
		}
		for path, o := range s.owners {
			if o.f == f {
				s.owners[path] = owner{at: o.at}
			}
		}
	}
}
