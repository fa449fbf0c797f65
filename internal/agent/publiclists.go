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
