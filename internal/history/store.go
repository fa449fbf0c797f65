package history

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// Limits of a store.
const (
	// KeepFor is how long an event is kept, where there is room.
	KeepFor = 90 * 24 * time.Hour
	// maxBytes bounds all segments and their indexes: more than a million events
	// of usual size. The oldest segment makes room.
	maxBytes = 384 << 20
	// maxSegment bounds a segment, so that one is read in a few milliseconds and
	// removing one removes little.
	maxSegment = 16 << 20
)

// Options are the inputs of [Open].
type Options struct {
	Now func() time.Time // nil: [time.Now]

	keep                 time.Duration // 0: [KeepFor]
	maxBytes, maxSegment int64         // 0: the limits of the package
}

// A Store keeps events. It is safe for use from several goroutines.
type Store struct {
	dir   string
	o     Options
	write bool

	mu       sync.Mutex
	segments []*segment // oldest first; the last one is written to
	file     *os.File   // of the last segment; nil: none is written to
	day      int64      // of the last segment's first write
	unsynced bool
	next     Cursor
	removed  Cursor // the last cursor that is gone, 0: none
	damaged  int
	changed  chan struct{} // closed by the next Append
	broken   error         // of the last write
}

// Open opens a store in a directory of its own, and makes it.
func Open(dir string, o Options) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the history: %w", err)
	}
	s, err := load(dir, o, true)
	if err != nil {
		return nil, fmt.Errorf("opening the history: %w", err)
	}
	s.expire(s.o.Now())
	return s, nil
}

// Read opens a store to read it only, also while an agent writes to it: it has
// the events of this moment. A directory that is not there is an empty store.
func Read(dir string) (*Store, error) {
	s, err := load(dir, Options{}, false)
	if err != nil {
		return nil, fmt.Errorf("reading the history: %w", err)
	}
	return s, nil
}

func load(dir string, o Options, write bool) (s *Store, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.keep == 0 {
		o.keep = KeepFor
	}
	if o.maxBytes == 0 {
		o.maxBytes, o.maxSegment = maxBytes, maxSegment
	}
	s = &Store{dir: dir, o: o, write: write, changed: make(chan struct{})}
	list, err := segmentsIn(dir)
	if err != nil {
		return nil, err
	}
	// A store that is begun anew goes on behind every one before it, as long as a
	// million events a second were not kept.
	s.next = Cursor(max(o.Now().Unix(), 1)) << 20
	for i, g := range list {
		last := i == len(list)-1
		damaged := 0
		if last {
			g.list, damaged, err = g.scan()
		} else {
			damaged, err = g.open(write)
		}
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		s.damaged += damaged
		s.segments = append(s.segments, g)
		s.next = max(s.next, g.first, g.last+1)
	}
	if !write || len(s.segments) == 0 {
		return s, nil
	}
	return s, s.resume()
}

// resume goes on in the last segment, behind its last whole line.
func (s *Store) resume() error {
	g := s.segments[len(s.segments)-1]
	f, err := os.OpenFile(g.path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := f.Truncate(g.size); err != nil {
		return errors.Join(err, f.Close())
	}
	s.file, s.day = f, dayOf(seconds(g.to))
	return nil
}

func dayOf(t time.Time) int64 { return t.Unix() / (24 * 60 * 60) }

// Append writes events and gives them their cursors. When it returns they are
// the kernel's to write: a kill loses none of them, a power cut those of the
// last seconds, see [Store.Sync]. With an error none of them is kept.
func (s *Store) Append(events []Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.write {
		return errors.New("the history is open for reading only")
	}
	if len(events) == 0 {
		return nil
	}
	now := s.o.Now()
	if err := s.room(now); err != nil {
		s.broken = err
		return fmt.Errorf("writing the history: %w", err)
	}
	g := s.segments[len(s.segments)-1]
	var text []byte
	after, list, next := g.summary, g.list, s.next
	for i := range events {
		e := &events[i]
		e.bound()
		e.Cursor = next
		next++
		x := entryOf(e, g.size+int64(len(text)))
		var err error
		if text, err = appendRecord(text, e); err != nil {
			return err
		}
		after.note(&x, e.Cursor)
		list = list.add(&x)
	}
	if _, err := s.file.WriteAt(text, g.size); err != nil {
		// A part may be there; the next record is written over it.
		err = errors.Join(err, s.file.Truncate(g.size))
		s.broken = err
		return fmt.Errorf("writing the history: %w", err)
	}
	after.size = g.size + int64(len(text))
	g.summary, g.list, s.next, s.unsynced, s.broken = after, list, next, true, nil
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}

// room sees to it that there is a segment to write to.
func (s *Store) room(now time.Time) error {
	if s.file != nil {
		g := s.segments[len(s.segments)-1]
		if g.size < s.o.maxSegment && dayOf(now) == s.day {
			return nil
		}
		if err := s.finish(g); err != nil {
			return err
		}
	}
	g := &segment{path: segmentPath(s.dir, s.next), first: s.next, list: entries{}}
	f, err := os.OpenFile(g.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	s.file, s.day = f, dayOf(now)
	s.segments = append(s.segments, g)
	s.expire(now)
	return nil
}

// finish ends the segment that was written to.
func (s *Store) finish(g *segment) error {
	if err := errors.Join(s.file.Sync(), g.writeIndex(g.list)); err != nil {
		return err
	}
	err := s.file.Close()
	s.file, g.list = nil, nil
	return err
}

// Expire removes segments all of whose events are too old, and the oldest ones
// where there are too many bytes. The one that is written to stays.
func (s *Store) Expire(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expire(now)
}

func (s *Store) expire(now time.Time) {
	if !s.write {
		return
	}
	var sum int64
	for _, g := range s.segments {
		sum += g.bytes()
	}
	for len(s.segments) > 1 {
		g := s.segments[0]
		if sum <= s.o.maxBytes && (g.last == 0 || !seconds(g.to).Before(now.Add(-s.o.keep))) {
			return
		}
		// Without its segment an index is removed at the next start.
		if err := os.Remove(g.path); err != nil && !errors.Is(err, os.ErrNotExist) {
			s.broken = err
			return
		}
		_ = os.Remove(g.indexPath())
		s.removed = max(s.removed, g.last)
		sum -= g.bytes()
		s.segments = slices.Delete(s.segments, 0, 1)
	}
}

// bytes is the room that a segment takes, its index included.
func (g *segment) bytes() int64 {
	if g.list != nil {
		return g.size + int64(len(g.list))
	}
	info, err := os.Stat(g.indexPath())
	if err != nil {
		return g.size
	}
	return g.size + info.Size()
}

// Sync brings written events to the disk. It is called every few seconds, and
// costs nothing where nothing was.
func (s *Store) Sync() error {
	s.mu.Lock()
	f, dirty := s.file, s.unsynced
	s.unsynced = false
	s.mu.Unlock()
	if f == nil || !dirty {
		return nil
	}
	if err := f.Sync(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("writing the history: %w", err)
	}
	return nil
}

// Close ends the writing.
func (s *Store) Close() error {
	err := s.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
		s.file, s.write = nil, false
	}
	return err
}

// Stats are the numbers of a store.
type Stats struct {
	Events   int
	Bytes    int64
	Oldest   time.Time // zero where there is none
	Damaged  int       // lines that are no records, found when it was opened
	Next     Cursor    // of the next event
	WriteErr error     // of the last write, nil where it succeeded
}

// Stats counts.
func (s *Store) Stats() (x Stats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	x.Damaged, x.Next, x.WriteErr = s.damaged, s.next, s.broken
	for _, g := range s.segments {
		x.Bytes += g.bytes()
		if g.list != nil {
			x.Events += g.list.len()
		} else {
			x.Events += int(g.bytes()-g.size-indexHeader) / entrySize
		}
		if x.Oldest.IsZero() && g.last != 0 {
			x.Oldest = seconds(g.from)
		}
	}
	return x
}
