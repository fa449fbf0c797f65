package source

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// journal reads the systemd journal: every directory by its own reader.
type journal struct {
	matches []match
	dirs    []string // "" is the journal of this system
	gate    *gate
	o       Options
	counters

	mu   sync.Mutex
	last []JournalPosition // one for each sequence
}

func newJournal(texts, dirs []string, resume []JournalPosition, g *gate, o Options) (part, error) {
	j := &journal{dirs: dirs, gate: g, o: o, last: slices.Clone(resume)}
	for _, text := range texts {
		m, err := parseMatch(text)
		if err != nil {
			return nil, err
		}
		j.matches = append(j.matches, m)
	}
	if len(dirs) == 0 {
		j.dirs = []string{""}
	}
	return j, nil
}

func (j *journal) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, dir := range j.dirs {
		group.Go(func() error { return j.runJournalctl(ctx, dir) })
	}
	return group.Wait()
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
func (j *journal) advance(p JournalPosition) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.last {
		if j.last[i].SequenceID == p.SequenceID {
			j.last[i] = p
			return
		}
	}
	j.last = append(j.last, p)
}

// handled reports whether an entry was handled before.
func (j *journal) handled(p JournalPosition) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range j.last {
		if j.last[i].SequenceID == p.SequenceID {
			return p.Sequence <= j.last[i].Sequence
		}
	}
	return false
}

func (j *journal) position(p *Position) {
	j.mu.Lock()
	defer j.mu.Unlock()
	p.Journal = append(p.Journal, j.last...)
}

func (j *journal) status(st *Status) {
	j.addTo(st)
	st.Streams = append(st.Streams, Stream{Name: "journal", Reader: "journalctl"})
}

// microseconds makes a time of the journal's count since the Unix epoch.
func microseconds(us uint64) time.Time {
	if us > 1<<62 {
		return time.Time{}
	}
	return time.UnixMicro(int64(us))
}
