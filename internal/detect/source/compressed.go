package source

import (
	"cmp"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// maxExpanded bounds the contents of one compressed generation of a log: a
// thousandth of it would be as much when it is all the same.
const maxExpanded = 256 << 20

// gzipped is the ending of generations that a rotation compressed, as logrotate and
// Docker do.
const gzipped = ".gz"

var errExpanded = fmt.Errorf("more than %d bytes when expanded", maxExpanded)

// compressedGenerations lists the compressed older generations of a log, oldest
// first. One that lies beside its text is not finished and not listed.
func compressedGenerations(path string) []found {
	base := filepath.Base(path)
	list := compressedBeside(path, func(text string) bool { return rotatedName(base, text) })
	slices.SortStableFunc(list, func(a, b found) int {
		x, y := generationOf(base, a.path), generationOf(base, b.path)
		if x > 0 && y > 0 {
			return cmp.Compare(y, x)
		}
		return a.info.ModTime().Compare(b.info.ModTime())
	})
	return list
}

// compressedBeside lists the finished compressed files beside path of which the name
// without its ending is wanted.
func compressedBeside(path string, wanted func(text string) bool) (list []found) {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		text, ok := strings.CutSuffix(e.Name(), gzipped)
		if !ok || !wanted(text) || !e.Type().IsRegular() || len(list) >= maxSiblings {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, text)); err == nil {
			continue
		}
		if info, err := e.Info(); err == nil {
			list = append(list, found{path: filepath.Join(dir, e.Name()), info: info})
		}
	}
	return list
}

// generationOf gives N of "base.N.gz", 0 for other names.
func generationOf(base, path string) int {
	text, _ := strings.CutPrefix(strings.TrimSuffix(filepath.Base(path), gzipped), base+".")
	n, err := strconv.Atoi(text)
	if err != nil || len(text) > 6 {
		return 0
	}
	return n
}

// headOf gives the first bytes of a compressed file's text, up to headSize.
func headOf(path string) ([]byte, error) {
	f, _, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	head := make([]byte, headSize)
	n, err := io.ReadFull(z, head)
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		err = nil
	}
	return head[:n], err
}

// expand gives the text of a compressed file as an open file that has no name.
func expand(path string) (*os.File, os.FileInfo, error) {
	from, _, err := openFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer from.Close()
	z, err := gzip.NewReader(from)
	if err != nil {
		return nil, nil, err
	}
	to, err := os.CreateTemp("", "banmesh-log-")
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*os.File, os.FileInfo, error) {
		to.Close()
		return nil, nil, err
	}
	if err := os.Remove(to.Name()); err != nil {
		return fail(err)
	}
	n, err := io.Copy(to, io.LimitReader(z, maxExpanded+1))
	if err != nil {
		return fail(err)
	}
	if n > maxExpanded {
		return fail(errExpanded)
	}
	info, err := to.Stat()
	if err != nil {
		return fail(err)
	}
	return to, info, nil
}

// begins says that text begins as the file of a position does.
func (p FilePosition) begins(head []byte) bool {
	return p.HeadSize > 0 && len(head) >= p.HeadSize && fingerprint(head[:p.HeadSize]) == p.Head
}

// knows reports whether the text of a compressed file was read already, or is
// being read.
func (s *files) knows(head []byte) bool {
	for _, f := range s.list {
		if len(f.head) == 0 {
			_ = f.remember() // it may have been written to since it was opened
		}
		if f.position().begins(head) || f.earlier != nil && f.earlier.begins(head) {
			return true
		}
	}
	for _, p := range s.retired {
		if p.begins(head) {
			return true
		}
	}
	return slices.ContainsFunc(s.lost, func(p FilePosition) bool { return p.begins(head) })
}

// findCompressed looks for a file that was compressed while nobody read it, and
// follows its text from where reading stopped.
func (s *files) findCompressed(p FilePosition) *file {
	stem := stemOf(filepath.Base(p.Path))
	list := compressedBeside(p.Path, func(text string) bool { return strings.HasPrefix(text, stem) })
	for _, n := range list {
		head, err := headOf(n.path)
		if err != nil || !p.begins(head) {
			continue
		}
		h, info, err := expand(n.path)
		if err != nil {
			s.failed(fmt.Errorf("expanding %s: %w", n.path, err))
			continue
		}
		if !p.matches(h, info.Size()) {
			h.Close()
			continue
		}
		f, err := s.follow(h, info, p.Path, s.matching(p.Path), p.Offset, p.Cut)
		if err != nil {
			s.failed(err)
			continue
		}
		s.left(f, n.path)
		return f
	}
	return nil
}

// left notes that a file that is followed has the name of an older generation.
func (s *files) left(f *file, target string) {
	s.mu.Lock()
	f.target, f.rotated, f.leftAt = target, true, s.now
	s.mu.Unlock()
}

// missedCompressed follows the compressed generations of a log that came since a
// name was last looked up, oldest first.
func (s *files) missedCompressed(n found, before owner) (list []*file) {
	since := before.at.Add(-s.margin)
	for _, c := range compressedGenerations(n.path) {
		if born, ok := birth(c.path); c.info.ModTime().Before(since) || ok && born.Before(since) {
			continue
		}
		head, err := headOf(c.path)
		if err != nil || len(head) == 0 || s.knows(head) {
			s.raced = s.raced || errors.Is(err, fs.ErrNotExist)
			continue
		}
		h, info, err := expand(c.path)
		if errors.Is(err, fs.ErrNotExist) {
			s.raced = true
			continue
		}
		if err != nil {
			s.failed(fmt.Errorf("expanding %s: %w", c.path, err))
			continue
		}
		f, err := s.follow(h, info, n.path, n.matched, 0, false)
		if err != nil {
			s.failed(err)
			continue
		}
		s.left(f, c.path)
		list = append(list, f)
	}
	return list
}
