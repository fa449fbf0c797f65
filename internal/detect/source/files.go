package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// renamedGrace is how long a renamed file is still read after it last
	// grew: a service goes on writing to it until it is told to reopen.
	// deletedGrace is shorter, because an open file keeps its disk space.
	renamedGrace = 5 * time.Minute
	deletedGrace = time.Minute
	// copyGrace is how long a new file that so far equals a file being read
	// may grow into a copy of it before it counts as a file of its own.
	copyGrace = 5 * time.Second
	// maxLost bounds the positions that are kept for files that are not there.
	maxLost = 1024
)

// files follows the files that globs name. All its work is done by the
// goroutine of run; other goroutines see the file list under mu.
type files struct {
	globs  []string
	format format
	docker bool // positions go to Position.Docker
	gate   *gate
	o      Options
	counters

	mu        sync.Mutex
	list      []*file        // the older generation of a name first
	lost      []FilePosition // of files that are not there now
	scanned   bool
	scannedAt time.Time // when names were last looked up

	virgin   bool // nothing was read before
	resumeAt time.Time
	watch    *watch
	again    bool                    // names changed during a scan
	owners   map[string]owner        // the file that a name belonged to at last
	byEvent  map[string]*file        // files by the names that notifications use
	retired  map[fileID]FilePosition // where files were given up
	blocked  map[string]bool         // names whose file could not be opened
	raced    bool                    // a generation was renamed while it was looked for
	emptied  map[fileID]bool         // files of positions that hold other bytes now
	margin   time.Duration           // clockMargin, but in tests
	buf      []byte
	current  Line      // that is being handed on
	now      time.Time // of the scan
}

func newFiles(globs []string, f format, resume []FilePosition, at time.Time, g *gate, o Options) (*files, error) {
	for _, glob := range globs {
		if _, err := filepath.Match(glob, ""); err != nil {
			return nil, fmt.Errorf("%w: file pattern %s: %w", ErrSpec, quoted(glob), err)
		}
		if !filepath.IsAbs(glob) && !o.Once {
			return nil, fmt.Errorf("%w: file pattern %s is not an absolute path", ErrSpec, quoted(glob))
		}
	}
	return &files{
		globs: globs, format: f, gate: g, o: o, virgin: len(resume) == 0 && at.IsZero(), resumeAt: at, lost: slices.Clone(resume),
		owners: map[string]owner{}, byEvent: map[string]*file{}, retired: map[fileID]FilePosition{}, blocked: map[string]bool{}, emptied: map[fileID]bool{}, margin: clockMargin,
	}, nil
}

func (s *files) run(ctx context.Context) error {
	s.watch = newWatch(s.o)
	s.buf = make([]byte, tailSize+chunkSize)
	defer func() {
		s.watch.close()
		for _, f := range s.list {
			f.f.Close()
		}
	}()
	s.scan()
	scanned, swept := time.Now(), time.Now()
	for {
		behind, err := s.drain(ctx)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if s.o.Once && !behind {
			return s.flushAll()
		}
		changed := false
		if !behind {
			wait := time.NewTimer(min(s.watch.sweep()-time.Since(swept), s.watch.rescan()-time.Since(scanned)))
			select {
			case <-ctx.Done():
				wait.Stop()
				return nil
			case <-wait.C:
			case e := <-s.watch.events():
				changed = s.note(e)
			case err := <-s.watch.errors():
				// Notifications were lost: look at everything.
				s.failed(fmt.Errorf("file notifications: %w", err))
				changed = true
			}
			wait.Stop()
		}
		changed = s.noteAll() || changed || s.again
		s.again = false
		if time.Since(swept) >= s.watch.sweep() || changed {
			swept = time.Now()
			for _, f := range s.list {
				f.dirty = true
			}
		}
		if changed || time.Since(scanned) >= s.watch.rescan() {
			s.scan()
			scanned = time.Now()
		}
	}
}

// noteAll takes the notifications that are waiting.
func (s *files) noteAll() (changed bool) {
	for range maxEvents {
		select {
		case e := <-s.watch.events():
			changed = s.note(e) || changed
		default:
			return changed
		}
	}
	return changed
}

// note takes one notification and reports whether names must be looked up.
func (s *files) note(e fsnotify.Event) bool {
	if f := s.byEvent[e.Name]; f != nil {
		f.dirty = true
		return e.Op&^(fsnotify.Write|fsnotify.Chmod) != 0
	}
	if e.Op == fsnotify.Write {
		// A renamed file that is still written to, or one of others.
		for _, f := range s.list {
			if f.rotated {
				f.dirty = true
			}
		}
		return false
	}
	return e.Op != fsnotify.Chmod
}

// drain reads every file that may have something new, each for one turn, and
// reports whether any has more.
func (s *files) drain(ctx context.Context) (behind bool, err error) {
	for _, f := range s.list {
		if f.before != nil && !f.before.atEnd {
			behind = true
			continue
		}
		f.before = nil
		if !f.dirty {
			continue
		}
		more, err := s.drainFile(ctx, f)
		if err != nil {
			return false, err
		}
		behind = behind || more
	}
	return behind, nil
}

// drainFile reads one file for one turn.
func (s *files) drainFile(ctx context.Context, f *file) (more bool, err error) {
	if f.fresh.Load() {
		if may, err := s.settleFresh(f); err != nil {
			s.failed(err)
		} else if !may {
			f.dirty, f.atEnd = false, true
			return false, nil
		}
	}
	for turn := 0; turn < turnSize && ctx.Err() == nil; {
		data, err := f.read(s.buf)
		if err == nil && len(f.head) < headSize {
			err = f.remember()
		}
		switch {
		case errors.Is(err, errTruncated):
			s.truncated(f)
			s.again = true // there may have been more than one rotation
			return true, nil
		case err != nil:
			// It is tried again at the next sweep; a source does not stop.
			f.dirty, f.atEnd = false, true
			s.failed(err)
			if !f.reported {
				f.reported = true
				s.o.Log.Warn("log file cannot be read, trying again", "file", f.path, "error", err)
			}
			return false, nil
		case len(data) == 0:
			f.dirty, f.atEnd, f.reported = false, true, false
			return false, nil
		}
		f.atEnd = false
		f.grewAt = s.o.Now()
		turn += len(data)
		if err := s.hand(f, data); errors.Is(err, errDamaged) {
			if err := f.seek(resync(f.f, f.committed.Load()), false); err != nil {
				s.failed(err)
				f.dirty, f.atEnd = false, true
				return false, nil
			}
			continue
		} else if err != nil {
			return false, err
		}
		f.keepTail(data)
		if len(f.partial) == 0 && len(data) == chunkSize && len(bytes.TrimLeft(data, "\x00")) == 0 {
			if err := f.skipHole(); err != nil {
				s.failed(err)
			}
		}
		if err := f.remember(); err != nil && !errors.Is(err, errTruncated) {
			s.failed(err)
		}
		if len(data) < chunkSize {
			// Most likely the end. If more was written meanwhile, that was
			// announced; asking again would cost a call for every line.
			f.dirty, f.atEnd = s.o.Once, true
			if !s.o.Once && !f.rotated {
				return false, nil
			}
		}
	}
	f.size.Store(max(f.size.Load(), f.readAt))
	return f.dirty, nil
}

// hand gives the lines to the handler.
func (s *files) hand(f *file, data []byte) error {
	s.gate.Lock()
	defer s.gate.Unlock()
	err := f.consume(data, func(raw []byte) (bool, error) { return s.line(f, raw) }, &s.counters)
	s.lastLine.Store(s.o.Now().UnixNano())
	return err
}

// line hands on one line of a file. The caller holds the gate.
func (s *files) line(f *file, raw []byte) (whole bool, err error) {
	s.current = Line{Stream: f.path, Matched: f.matched}
	switch f.decoder.decode(raw, &s.current) {
	case more:
		return false, nil
	case skipped:
		return true, nil
	case unusable:
		s.dropped.Add(1)
		return true, nil
	}
	if s.current.cut {
		s.cut.Add(1)
	}
	if err := s.gate.handle(s.current); err != nil {
		return false, err
	}
	s.read.Add(1)
	return true, nil
}

// flush hands on a last line that has no end, of a file that is given up.
func (s *files) flush(f *file) error {
	if len(f.partial) == 0 || f.cut.Load() || f.framed {
		return nil // a part of a record is no line
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if _, err := s.line(f, f.partial); err != nil {
		return err
	}
	f.partial = nil
	f.committed.Store(f.readAt)
	return nil
}

func (s *files) flushAll() error {
	for _, f := range s.list {
		if err := s.flush(f); err != nil {
			return err
		}
	}
	return nil
}

func (s *files) position(p *Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := &p.Files
	if s.docker {
		to = &p.Docker
	}
	// Changes of names since they were last looked up are found out by
	// that time after a restart.
	switch {
	case s.scanned:
		p.Time = earlier(p.Time, s.scannedAt)
	default:
		p.Time = earlier(p.Time, s.resumeAt)
	}
	for _, rotated := range []bool{true, false} { // in the order of reading
		for _, f := range s.list {
			if f.rotated == rotated {
				*to = append(*to, f.position())
			}
		}
	}
	*to = append(*to, s.lost...)
}

// earlier gives the earlier of two times; the zero time is the earliest.
func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func (s *files) status(st *Status) {
	s.addTo(st)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.list {
		offset := f.committed.Load()
		size := max(f.size.Load(), offset)
		if info, err := f.f.Stat(); err == nil {
			size = info.Size()
		}
		st.Streams = append(st.Streams, Stream{Name: f.path, Size: size, Offset: offset, Backlog: max(0, size-offset), Rotated: f.rotated, Reader: "native"})
	}
}

// compressed reports whether a name says that the file is not text.
func compressed(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".gz", ".bz2", ".xz", ".zst", ".lz4", ".zip", ".lzma":
		return true
	}
	return false
}

// openFile opens a regular file for following.
func openFile(path string) (*os.File, os.FileInfo, error) {
	before, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: %w", path, errNotRegular)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, errNotRegular)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

var errNotRegular = errors.New("not a regular file")
