package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lists"
	"banmesh/internal/control"
	"banmesh/internal/history"
	"banmesh/internal/wholefile"
)

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
