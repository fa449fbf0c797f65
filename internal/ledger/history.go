package ledger

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"banmesh/internal/ban"
)

// History keeps the claims of peers and the offenders here, a file a day, so
// that a changed policy can be tried on real events. A nil *History
// keeps nothing. It is not durable: a crash loses the last seconds.
//
// A file has a line an event, fields separated by spaces, times in Unix
// seconds:
//
//	C time topic/operator/node target end class hits established basis
//	R time topic/operator/node target
//	O time topic target end class hits established basis
type History struct {
	dir  string
	day  string
	file *os.File
	size int64
	out  bytes.Buffer
	err  error
}

// Limits of a history.
const (
	historyDays  = 8        // a week and today
	historyBytes = 64 << 20 // a day; events beyond it are not kept
)

// OpenHistory keeps a history in a directory of its own.
func OpenHistory(dir string) (*History, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening the history: %w", err)
	}
	return &History{dir: dir}, nil
}

func (h *History) claim(now time.Time, feed ban.Feed, c ban.Claim) {
	if h == nil {
		return
	}
	fmt.Fprintf(&h.out, "C %d %s %s\n", now.Unix(), feed, claimText(c))
	h.full(now)
}

func (h *History) withdrawal(now time.Time, feed ban.Feed, t ban.Target) {
	if h == nil {
		return
	}
	fmt.Fprintf(&h.out, "R %d %s %s\n", now.Unix(), feed, t)
	h.full(now)
}

func (h *History) own(now time.Time, topic ban.Topic, c ban.Claim) {
	if h == nil {
		return
	}
	fmt.Fprintf(&h.out, "O %d %s %s\n", now.Unix(), topic, claimText(c))
	h.full(now)
}

// claimText gives the fields of a claim, which [parseClaim] reads.
func claimText(c ban.Claim) string {
	return fmt.Sprintf("%s %d %d %d %t %s", c.Target, c.End.Unix(), c.Class, c.Hits, c.Established, c.Basis)
}

// claimFields is how many fields a claim has.
const claimFields = 6

func parseClaim(field []string) (c ban.Claim, err error) {
	if c.Target, err = ban.ParseTarget(field[0]); err != nil {
		return c, err
	}
	var errs [4]error
	end, err := strconv.ParseInt(field[1], 10, 64)
	errs[0] = err
	class, err := strconv.ParseUint(field[2], 10, 8)
	errs[1] = err
	hits, err := strconv.ParseUint(field[3], 10, 8)
	errs[2] = err
	c.End, c.Class, c.Hits, c.Established = time.Unix(end, 0), ban.Class(class), uint8(hits), field[4] == "true"
	c.Basis, errs[3] = ban.ParseBasis(field[5])
	return c, errors.Join(errs[:]...)
}

// full writes when much is pending, and notes the day.
func (h *History) full(now time.Time) {
	if day := now.UTC().Format(time.DateOnly); day != h.day {
		h.turn(day)
	}
	if h.out.Len() > 64<<10 {
		h.write()
	}
}

// turn begins a day's file and removes those that are too old.
func (h *History) turn(day string) {
	if h.file != nil {
		h.err = errors.Join(h.err, h.file.Close())
	}
	h.day, h.file, h.size = day, nil, 0
	f, err := os.OpenFile(filepath.Join(h.dir, day+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		h.err = errors.Join(h.err, err)
		return
	}
	h.file = f
	if info, err := f.Stat(); err == nil {
		h.size = info.Size()
	}
	for _, old := range h.files()[:max(0, len(h.files())-historyDays)] {
		h.err = errors.Join(h.err, os.Remove(filepath.Join(h.dir, old)))
	}
}

// files lists the days, oldest first.
func (h *History) files() []string { return historyFiles(h.dir) }

func historyFiles(dir string) (names []string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if day, ok := strings.CutSuffix(e.Name(), ".log"); ok {
			if _, err := time.Parse(time.DateOnly, day); err == nil {
				names = append(names, e.Name())
			}
		}
	}
	slices.Sort(names)
	return names
}

func (h *History) write() {
	if h.file != nil && h.size+int64(h.out.Len()) <= historyBytes {
		n, err := h.file.Write(h.out.Bytes())
		h.size += int64(n)
		h.err = errors.Join(h.err, err)
	}
	h.out.Reset()
}

// flush writes pending events and gives the errors since the last time.
func (h *History) flush() error {
	if h == nil {
		return nil
	}
	if h.out.Len() > 0 {
		h.write()
	}
	err := h.err
	h.err = nil
	return err
}

// Event is a line of a history.
type Event struct {
	At      time.Time
	Feed    ban.Feed // Topic alone for an offender here
	Own     bool     // an offender here
	Removed bool     // a peer's withdrawal
	Claim   ban.Claim
}

// maxLine bounds a line of a history; the longest that is written has about
// 200 bytes.
const maxLine = 1024

// ReadHistory calls f for each event of a history file, in order. A line that
// is damaged is an error that names it; the last one may be cut off.
func ReadHistory(r io.Reader, f func(Event) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, maxLine), maxLine)
	var cut error
	for n := 1; s.Scan(); n++ {
		if cut != nil {
			return cut
		}
		e, err := parseEvent(s.Text())
		if err != nil {
			cut = fmt.Errorf("line %d: %w", n, err)
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return s.Err()
}

func parseEvent(line string) (e Event, err error) {
	field := strings.Split(line, " ")
	want := map[string]int{"C": 3 + claimFields, "R": 4, "O": 3 + claimFields}[field[0]]
	if want == 0 || len(field) != want {
		return e, fmt.Errorf("not an event of a history: %w", ErrCorrupt)
	}
	at, err := strconv.ParseInt(field[1], 10, 64)
	if err != nil {
		return e, err
	}
	e.At = time.Unix(at, 0)
	e.Own, e.Removed = field[0] == "O", field[0] == "R"
	if e.Own {
		e.Feed.Topic, err = ban.ParseTopic(field[2])
	} else {
		e.Feed, err = parseFeed(field[2])
	}
	if err != nil {
		return e, err
	}
	if e.Removed {
		e.Claim.Target, err = ban.ParseTarget(field[3])
		return e, err
	}
	e.Claim, err = parseClaim(field[3:])
	return e, err
}

// HistorySince opens the files of a history from a day on, one after the
// other.
func HistorySince(dir string, from time.Time, f func(Event) error) error {
	names := historyFiles(dir)
	if len(names) == 0 {
		return fmt.Errorf("a history in %s: %w", dir, ErrUnknown)
	}
	for _, name := range names {
		if name < from.UTC().Format(time.DateOnly)+".log" {
			continue
		}
		file, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return fmt.Errorf("reading the history: %w", err)
		}
		err = ReadHistory(file, func(e Event) error {
			if e.At.Before(from) {
				return nil
			}
			return f(e)
		})
		file.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
	}
	return nil
}
