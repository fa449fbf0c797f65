package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lists"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/settings"
	"banmesh/internal/wholefile"
)

// listsDirectory holds the last good copy of each public list, below the state
// directory.
const listsDirectory = "lists"

const (
	// listsEvery is how often files and spool are looked at.
	listsEvery = 10 * time.Second
	// listPart is how many claims of a list the ledger takes at once: others wait
	// meanwhile.
	listPart = 20_000
)

// publicLists makes the lists that the configuration names count. It opens no
// connection: it reads files, and the spool of `agent fetch`, all of them as foreign
// bytes. The last edition that was taken is on disk before it counts.
type publicLists struct {
	o    publicListOptions
	wake chan struct{} // capacity one

	// looking is held by whoever changes a list, mu by whoever reads or writes a state.
	looking sync.Mutex
	mu      sync.Mutex
	states  map[string]*listState
}

type publicListOptions struct {
	settings func() *settings.Settings
	// apply gives the ledger a change of an import's claims.
	apply func(...ban.Change) error
	// never says why a target is banned by nobody else's word.
	never func(ban.Target) (string, bool)
	note  func(history.Event)
	state string // the state directory
	now   func() time.Time
	log   *slog.Logger
}

// listState is a list as it is now. The targets of its copy are on disk and in the
// ledger, not here.
type listState struct {
	list   settings.List
	taken  *lists.Copy  // nil: no edition was taken yet
	until  time.Time    // the end of the claims that the ledger has
	held   *heldEdition // nil: none waits
	mark   string       // of the origin as it was last read
	reread string       // the mark of an edition that is read anew because a person changed how; "" for none
	fault  string       // why the newest edition is not had or not read
	lost   error        // why the copy of the edition before cannot be compared with; nil
	asked  time.Time
}

// heldEdition is an edition that waits for a person.
type heldEdition struct {
	control.HeldEdition
	edition   *lists.Edition
	confirmed time.Time
}

func newPublicLists(o publicListOptions) *publicLists {
	o.log = o.log.With(slog.String("part", "lists"))
	return &publicLists{o: o, states: map[string]*listState{}, wake: make(chan struct{}, 1)}
}

// restore gives the ledger the editions that were taken last.
func (l *publicLists) restore(ctx context.Context) error {
	l.looking.Lock()
	defer l.looking.Unlock()
	if err := os.MkdirAll(l.directory(), 0o700); err != nil {
		return fmt.Errorf("making the directory of lists: %w", err)
	}
	for _, c := range l.o.settings().Lists() {
		s := &listState{list: c}
		l.set(c.Name, s)
		held, err := l.load(c.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			// Nothing of it counts until a person approves an edition.
			s.lost = err
			l.o.log.ErrorContext(ctx, "the copy of a list cannot be read", slog.String("list", c.Name), slog.Any("error", err))
		case held.From == c.From():
			// A full disk must not keep the bans out of the kernel: a look tries again.
			if err := l.count(s, held); err != nil {
				s.fault = err.Error()
			}
		}
	}
	return l.tidy()
}

func (l *publicLists) directory() string { return filepath.Join(l.o.state, listsDirectory) }

func (l *publicLists) file(name string) string { return filepath.Join(l.directory(), name+".copy") }

// load reads the copy of a list.
func (l *publicLists) load(name string) (*lists.Copy, error) {
	b, err := os.ReadFile(l.file(name))
	if err != nil {
		return nil, err
	}
	return lists.DecodeCopy(b)
}

// tidy removes copies of lists that are not configured.
func (l *publicLists) tidy() error {
	entries, err := os.ReadDir(l.directory())
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), ".copy")
		if _, used := l.states[name]; ours && !used || strings.HasPrefix(e.Name(), ".") {
			err = errors.Join(err, os.Remove(filepath.Join(l.directory(), e.Name())))
		}
	}
	return err
}

func (l *publicLists) set(name string, s *listState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.states[name] = s
}

// run looks at the lists until ctx ends.
func (l *publicLists) run(ctx context.Context) error {
	tick := time.NewTicker(listsEvery)
	defer tick.Stop()
	for {
		l.look(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.wake:
		}
	}
}

// changed follows the configuration: lists that it names no longer have ended, and new
// ones were read, when it returns.
func (l *publicLists) changed(ctx context.Context) error {
	l.looking.Lock()
	defer l.looking.Unlock()
	if err := l.follow(ctx); err != nil {
		return err
	}
	for _, s := range l.states {
		if s.taken == nil || s.mark == "" {
			l.lookInto(ctx, s)
		}
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// lookInto looks at one list, and notes its fault.
func (l *publicLists) lookInto(ctx context.Context, s *listState) {
	fault := ""
	if err := l.lookAt(ctx, s); err != nil {
		if fault = err.Error(); fault != s.fault {
			l.o.log.WarnContext(ctx, "a list is not read", slog.String("list", s.list.Name), slog.Any("error", err))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.fault = fault
}

// look takes over the configuration, and newer editions of the lists.
func (l *publicLists) look(ctx context.Context) {
	l.looking.Lock()
	defer l.looking.Unlock()
	if err := l.follow(ctx); err != nil {
		l.o.log.ErrorContext(ctx, "lists are not taken over", slog.Any("error", err))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(l.states)) {
		if ctx.Err() != nil {
			return
		}
		l.lookInto(ctx, l.states[name])
	}
}

// follow makes the lists those of the configuration.
func (l *publicLists) follow(ctx context.Context) error {
	named := map[string]bool{}
	for _, c := range l.o.settings().Lists() {
		named[c.Name] = true
		s := l.states[c.Name]
		switch {
		case s == nil:
			l.set(c.Name, &listState{list: c})
		case s.list.From() != c.From():
			// Another list under the same name: nothing of the old one is true of it.
			if err := l.end(s.list, s.list.Topics); err != nil {
				return err
			}
			l.set(c.Name, &listState{list: c})
			l.o.log.InfoContext(ctx, "a list is another one from now on", slog.String("list", c.Name))
		default:
			gone := slices.DeleteFunc(slices.Clone(s.list.Topics), func(t ban.Topic) bool { return slices.Contains(c.Topics, t) })
			if err := l.end(s.list, gone); err != nil {
				return err
			}
			again := !slices.Equal(s.list.Topics, c.Topics) || s.list.For != c.For
			if !s.list.ReadAlike(&c) && s.mark != "" {
				s.reread, s.mark = s.mark, ""
			}
			l.mu.Lock()
			s.list = c
			l.mu.Unlock()
			if again && s.taken != nil {
				held, err := l.load(c.Name)
				if err == nil {
					err = l.count(s, held)
				}
				if err != nil {
					return err
				}
			}
		}
	}
	for name, s := range l.states {
		if named[name] {
			continue
		}
		if err := l.end(s.list, s.list.Topics); err != nil {
			return err
		}
		if err := os.Remove(l.file(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		l.mu.Lock()
		delete(l.states, name)
		l.mu.Unlock()
		l.o.note(history.Event{Kind: history.Peer, By: string(s.list.Import), Why: "the list is not used any longer"})
	}
	return nil
}

// end withdraws a list's claims in topics.
func (l *publicLists) end(c settings.List, topics []ban.Topic) error {
	for _, t := range topics {
		if err := l.o.apply(ban.Change{Feed: c.Import.Feed(t), Reset: true}); err != nil {
			return err
		}
	}
	return nil
}

// lookAt takes a newer edition of a list, if its origin has one.
func (l *publicLists) lookAt(ctx context.Context, s *listState) error {
	mark, confirmed, read, err := l.origin(s)
	if err != nil {
		return err
	}
	if mark == s.mark {
		return l.confirm(ctx, s, confirmed)
	}
	edition, err := read()
	switch {
	case errors.Is(err, lists.ErrBetween):
		return nil // the next look finds them alike
	case err != nil:
		if errors.Is(err, lists.ErrNoList) || errors.Is(err, lists.ErrTooLarge) {
			l.mu.Lock()
			s.held = nil
			l.mu.Unlock()
		}
		return err
	}
	if err := l.judge(ctx, s, edition, confirmed, mark == s.reread); err != nil {
		return err
	}
	s.mark, s.reread = mark, ""
	return nil
}

// origin finds a list where the configuration says that it is. mark differs where the
// list does, confirmed is when it was known to be the newest.
func (l *publicLists) origin(s *listState) (mark string, confirmed time.Time, read func() (*lists.Edition, error), err error) {
	o, now := s.list.Read, l.o.now()
	o.Never = l.o.never
	if s.list.File != "" {
		file, info, err := lists.OpenNamed(s.list.File)
		if err != nil {
			return "", confirmed, nil, err
		}
		defer file.Close()
		confirmed = earlier(info.ModTime(), now)
		return fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size()), confirmed, func() (*lists.Edition, error) {
			file, _, err := lists.OpenNamed(s.list.File)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			return lists.Read(file, o)
		}, nil
	}
	spool := l.o.settings().Spool()
	f, err := lists.ReadFetched(spool, s.list.Name)
	if err == nil && f.URL != s.list.Fetch.URL {
		err = lists.ErrNotFetched
	}
	if err != nil {
		return "", confirmed, nil, err
	}
	l.mu.Lock()
	s.asked = f.Tried
	l.mu.Unlock()
	if f.Sum == "" {
		if f.Error != "" {
			return "", confirmed, nil, fmt.Errorf("its server: %s", f.Error)
		}
		return "", confirmed, nil, lists.ErrNotFetched
	}
	return f.Sum, earlier(f.Confirmed, now), func() (*lists.Edition, error) {
		return lists.ReadSpooled(spool, s.list.Name, f, o)
	}, fetchFault(f, s)
}

// fetchFault is the fault of a list whose server was asked in vain, while an edition of
// before is in the spool: that one is read all the same where it was not yet.
func fetchFault(f lists.Fetched, s *listState) error {
	if f.Error == "" || f.Sum != s.mark {
		return nil
	}
	return fmt.Errorf("its server: %s", f.Error)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// judge takes an edition, or holds it for a person. One that is the same and is only read
// in another way, because a person said so, is not held for a person.
func (l *publicLists) judge(ctx context.Context, s *listState, e *lists.Edition, confirmed time.Time, reread bool) error {
	sum := e.Sum()
	if s.taken != nil && sum == s.taken.Sum {
		return l.take(ctx, s, e, confirmed, lists.Change{Before: s.taken.Entries, After: s.taken.Entries})
	}
	change := lists.Change{After: len(e.Targets), Added: len(e.Targets)}
	var before []ban.Target
	if s.taken != nil && s.lost == nil {
		if held, err := l.load(s.list.Name); err != nil {
			s.lost = err
		} else {
			before = held.Edition.Targets
			change = lists.Compare(before, e.Targets)
		}
	}
	why := change.Suspicious(s.list.MaxChange)
	if reread {
		why = ""
	}
	if s.lost != nil {
		why = "the copy of the edition before cannot be read: " + s.lost.Error()
	}
	if why == "" {
		return l.take(ctx, s, e, confirmed, change)
	}
	h := &heldEdition{edition: e, confirmed: confirmed, HeldEdition: control.HeldEdition{
		Sum: sum, Why: why, Since: l.o.now(), Before: change.Before, After: change.After, Added: change.Added, Gone: change.Gone, Sample: newOnes(before, e.Targets),
	}}
	known := s.held != nil && s.held.Sum == sum
	if known {
		h.Since = s.held.Since
	}
	l.mu.Lock()
	s.held = h
	l.mu.Unlock()
	if !known {
		l.o.log.WarnContext(ctx, "a list changed so much that it waits for a person", slog.String("list", s.list.Name), slog.Int("before", change.Before), slog.Int("after", change.After), slog.Int("new", change.Added), slog.Int("gone", change.Gone))
		l.o.note(history.Event{Kind: history.Hold, By: string(s.list.Import), Count: change.After, Why: "a new edition waits for a person: " + why})
	}
	return nil
}

// newOnes gives some of the entries that are new.
func newOnes(before, after []ban.Target) (some []string) {
	const most = 5
	was := make(map[ban.Target]struct{}, len(before))
	for _, t := range before {
		was[t] = struct{}{}
	}
	for _, t := range after {
		if _, ok := was[t]; !ok {
			if some = append(some, t.String()); len(some) == most {
				break
			}
		}
	}
	return some
}

// take makes an edition the one that counts: on disk first.
func (l *publicLists) take(ctx context.Context, s *listState, e *lists.Edition, confirmed time.Time, change lists.Change) error {
	c := &lists.Copy{From: s.list.From(), Taken: l.o.now(), Confirmed: confirmed, Edition: *e}
	same := s.taken != nil && change.Added+change.Gone == 0
	if same {
		c.Taken = s.taken.Taken
		if !l.worthwhile(s, confirmed) {
			l.mu.Lock()
			s.held = nil
			l.mu.Unlock()
			return nil
		}
	}
	if err := l.write(s, c); err != nil {
		return err
	}
	if err := l.count(s, c); err != nil {
		return err
	}
	s.lost = nil
	l.mu.Lock()
	s.held = nil
	l.mu.Unlock()
	if same {
		return nil
	}
	l.o.log.InfoContext(ctx, "a list is taken over", slog.String("list", s.list.Name), slog.String("format", string(e.Format)), slog.Int("entries", change.After), slog.Int("new", change.Added), slog.Int("gone", change.Gone),
		slog.Int("junk", e.Junk), slog.Int("wide", e.Wide), slog.Int("never_ban", e.Never), slog.Int("beyond_max_entries", e.Beyond))
	l.o.note(history.Event{Kind: history.Peer, By: string(s.list.Import), Count: change.After, Why: fmt.Sprintf("an edition was taken over; %d of its entries are new, %d are gone, %d are refused", change.Added, change.Gone, e.Total())})
	return nil
}

func (l *publicLists) write(s *listState, c *lists.Copy) error {
	b, err := c.Encode()
	if err == nil {
		err = wholefile.Write(l.file(s.list.Name), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("keeping a copy of the list: %w", err)
	}
	return nil
}

// worthwhile says whether claims should be renewed: at each eighth of their time, since a
// renewal is as much work as an edition.
func (l *publicLists) worthwhile(s *listState, confirmed time.Time) bool {
	return confirmed.Add(s.list.For).Sub(s.until) >= s.list.For/8
}

// confirm lets the edition that counts count for longer: its origin still has it.
func (l *publicLists) confirm(ctx context.Context, s *listState, confirmed time.Time) error {
	if s.held != nil {
		s.held.confirmed = confirmed // a person's approval is of the origin as it is then
		return nil
	}
	if s.taken == nil || !l.worthwhile(s, confirmed) {
		return nil
	}
	c, err := l.load(s.list.Name)
	if err != nil {
		return err
	}
	c.Confirmed = confirmed
	if err := l.write(s, c); err != nil {
		return err
	}
	l.o.log.DebugContext(ctx, "a list is confirmed", slog.String("list", s.list.Name))
	return l.count(s, c)
}

// count gives the ledger a list's claims, in parts.
func (l *publicLists) count(s *listState, c *lists.Copy) error {
	until := c.Confirmed.Add(s.list.For)
	targets := lists.Sorted(c.Edition.Targets)
	kept := *c
	kept.Entries, kept.Sum = len(targets), lists.Sum(targets)
	kept.Edition.Targets = nil
	l.mu.Lock()
	s.taken = &kept // also where the ledger cannot take it yet: the next look tries again
	l.mu.Unlock()
	for _, topic := range s.list.Topics {
		feed := s.list.Import.Feed(topic)
		for first := 0; first == 0 || first < len(targets); first += listPart {
			part := targets[first:min(first+listPart, len(targets))]
			claims := make([]ban.Claim, 0, len(part))
			for _, t := range part {
				// The never-ban list may have grown since the edition was read: that is no
				// fault of the list's.
				if _, never := l.o.never(t); never {
					continue
				}
				claims = append(claims, ban.Claim{Target: t, End: until, Class: ban.ClassOther, Basis: ban.BasisHandedOver})
			}
			if err := l.o.apply(ban.Change{Feed: feed, Reset: first == 0, More: first+listPart < len(targets), Claims: claims}); err != nil {
				return err
			}
		}
	}
	l.mu.Lock()
	s.until = until
	l.mu.Unlock()
	return nil
}
