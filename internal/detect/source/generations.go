package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// siblings lists the regular files beside path whose names begin as its does:
// the generations that a rotation leaves.
func siblings(path string) []found {
	dir, base := filepath.Split(path)
	stem := stemOf(base)
	entries, err := os.ReadDir(filepath.Clean(dir))
	if err != nil {
		return nil
	}
	var list []found
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), stem) || e.Name() == base || compressed(e.Name()) || !e.Type().IsRegular() {
			continue
		}
		if info, err := e.Info(); err == nil && len(list) < maxSiblings {
			list = append(list, found{path: filepath.Join(dir, e.Name()), info: info})
		}
	}
	slices.SortStableFunc(list, func(a, b found) int { return a.info.ModTime().Compare(b.info.ModTime()) })
	return list
}

// stemOf gives the beginning that a log's name shares with those of its generations.
func stemOf(base string) string {
	stem := strings.TrimSuffix(base, filepath.Ext(base))
	if i := strings.IndexAny(stem, "0123456789"); i > 0 {
		stem = stem[:i]
	}
	if stem == "" {
		return base
	}
	return stem
}

// rotatedName reports whether name is a rotation's for an older
// generation of base: "app.log.1", "app.log-20261121", "app-2026-11-21.log",
// "app.log.old". Other logs of the same service have other names.
func rotatedName(base, name string) bool {
	ext := filepath.Ext(base)
	middle, ok := strings.CutPrefix(name, base)
	if !ok {
		if middle, ok = strings.CutPrefix(name, strings.TrimSuffix(base, ext)); !ok {
			return false
		}
		if middle, ok = strings.CutSuffix(middle, ext); !ok || ext == "" {
			return false
		}
	}
	switch middle {
	case ".old", ".prev", "~", ".bak":
		return true
	case "":
		return false
	}
	if strings.Trim(middle, "0123456789.-_:TZ") != "" {
		return false
	}
	return strings.ContainsAny(middle, "0123456789")
}

// shape is a name without its numbers: files that a link points to in turn
// differ in a date or a count.
func shape(name string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			b.WriteByte(c)
		} else if s := b.String(); !strings.HasSuffix(s, "#") {
			b.WriteByte('#')
		}
	}
	return b.String()
}

// between looks for generations that came and went since a name was last looked up
// although it names the same file: rotation by copying leaves that, however often
// it ran. They are read before the file goes on.
func (s *files) between(n found, f *file, before owner) {
	dir, err := os.Stat(filepath.Dir(n.path))
	if err == nil && dir.ModTime().Before(before.at.Add(-s.margin)) && f.target == "" {
		return // no name in it came or went
	}
	for _, g := range s.missed(n, before) {
		g.before, f.before = f.before, g
	}
}

// missed follows the generations of a log that came and went between two looks
// at its name, oldest first. Such a file was made after the first look.
func (s *files) missed(n found, before owner) []*file {
	since := before.at.Add(-s.margin)
	generation := func(sibling found) bool {
		return rotatedName(filepath.Base(n.path), filepath.Base(sibling.path))
	}
	candidates := siblings(n.path)
	if real, err := filepath.EvalSymlinks(n.path); err == nil && real != n.path {
		candidates = append(candidates, siblings(real)...)
		generation = func(sibling found) bool {
			born, ok := birth(sibling.path)
			return rotatedName(filepath.Base(n.path), filepath.Base(sibling.path)) ||
				ok && !born.Before(since) && shape(filepath.Base(sibling.path)) == shape(filepath.Base(real))
		}
	}
	var list []*file
	for _, sibling := range candidates {
		id := idOf(sibling.info)
		if id == idOf(n.info) || s.find(id) != nil || !generation(sibling) {
			continue
		}
		born, ok := birth(sibling.path)
		if old := sibling.info.ModTime().Before(since) || ok && born.Before(since); old && !s.awaits(id) {
			continue
		}
		h, info, err := openFile(sibling.path)
		if err != nil {
			s.raced = s.raced || errors.Is(err, fs.ErrNotExist)
			continue
		}
		if idOf(info) != id || s.equalsOther(h, info) {
			s.raced = s.raced || idOf(info) != id
			h.Close()
			continue
		}
		offset, cut := int64(0), false
		if p, ok := s.remembered(h, info); ok {
			offset, cut = p.Offset, p.Cut
		}
		f, err := s.follow(h, info, n.path, n.matched, offset, cut)
		if err != nil {
			s.failed(err)
			continue
		}
		s.left(f, sibling.path)
		if offset == 0 {
			f.fresh.Store(true) // an empty one may become a copy
			f.freshAt = s.now
		}
		list = append(list, f)
	}
	// After those, one of which may have been compressed meanwhile, and until
	// no rotation comes between.
	var older []*file
	for range maxPasses {
		more := s.missedCompressed(n, before)
		if older = append(older, more...); len(more) == 0 {
			break
		}
	}
	return append(older, list...)
}

// awaits says that a position is of a file that was not found yet, or holds other bytes
// now: then its age says nothing.
func (s *files) awaits(id fileID) bool {
	return s.emptied[id] || slices.ContainsFunc(s.lost, func(p FilePosition) bool { return id == fileID{p.Device, p.Inode} })
}

// maxPasses bounds how often older generations are looked for at a time.
const maxPasses = 4

// birth is when a file was made, if the file system knows.
func birth(path string) (time.Time, bool) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_BTIME, &st); err != nil || st.Mask&unix.STATX_BTIME == 0 {
		return time.Time{}, false
	}
	return time.Unix(st.Btime.Sec, int64(st.Btime.Nsec)), true
}
