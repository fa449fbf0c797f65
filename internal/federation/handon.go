package federation

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"banmesh/internal/ban"
	"banmesh/internal/store"
)

// handOn hands the effects of messages on and makes them durable. Where the
// store fails, everything waits for the next time: nothing is used before a
// replay of it would be known, and nothing is stored that was not judged.
func (s *Session) handOn(ctx context.Context) error {
	for {
		s.mu.Lock()
		changes, said := s.fx.changes, s.fx.disputes
		s.mu.Unlock()
		before := s.marks
		if s.o.Commit != nil {
			before = s.all
		}
		if !s.commit(ctx, before(), changes) {
			return nil
		}
		s.mu.Lock()
		if s.fx.news {
			s.documents.tellNews()
		}
		s.fx.marks, s.fx.changes, s.fx.disputes, s.fx.news = nil, nil, nil, false
		if s.o.Commit != nil {
			s.fx.contents = nil
		}
		s.counts.Applied += uint64(len(changes))
		s.mu.Unlock()
		refused, err := s.judge(ctx, changes, said)
		if err != nil {
			return err
		}
		s.mu.Lock()
		for feed, why := range refused {
			delete(s.fx.contents, feed)
			s.reader.quarantine(feed, why, &s.fx)
		}
		again := len(s.fx.marks)+len(s.fx.changes)+len(s.fx.disputes) > 0
		s.mu.Unlock()
		if rest := s.all(); len(rest) > 0 && s.commit(ctx, rest, nil) {
			s.mu.Lock()
			s.fx.marks, s.fx.contents = nil, nil
			s.mu.Unlock()
		}
		if !again {
			return nil
		}
	}
}

// marks gives the records that must be durable before a change is used.
func (s *Session) marks() map[place][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fx.marks
}

// all gives the records that are to be written, contents included.
func (s *Session) all() map[place][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := maps.Clone(s.fx.marks)
	for _, c := range s.fx.contents {
		if out == nil {
			out = map[place][]byte{}
		}
		maps.Copy(out, c)
	}
	return out
}

// commit makes records durable, together with those that Commit makes of changes, and
// says whether that worked.
func (s *Session) commit(ctx context.Context, records map[place][]byte, changes []change) bool {
	var write func(store.Tx) error
	if len(records) > 0 {
		write = func(tx store.Tx) error { return putAll(tx, records) }
	}
	var err error
	switch {
	case s.o.Commit != nil && (write != nil || len(changes) > 0):
		err = s.o.Commit(ctx, write, func(yield func(ban.Change) bool) {
			for i := range changes {
				if !yield(changes[i].change()) {
					return
				}
			}
		})
	case write != nil:
		err = s.o.Store.Update(write)
	}
	if err != nil {
		s.mu.Lock()
		s.counts.StoreErrors++
		s.mu.Unlock()
		s.o.Log.Error("state_not_kept", "error", err)
	}
	return err == nil
}

// judge hands changes and disputes on, and gives the feeds of which no more is
// taken.
func (s *Session) judge(ctx context.Context, changes []change, said []disputed) (refused map[ban.Feed]error, err error) {
	refused = map[ban.Feed]error{}
	verdict := func(feed ban.Feed, err error, of string) error {
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ban.ErrLimit):
			refused[feed] = err
			return nil
		}
		return fmt.Errorf("applying %s of %v: %w", of, feed, err)
	}
	for i := range changes {
		c := &changes[i]
		if s.o.Apply != nil && refused[c.feed] == nil {
			if err := verdict(c.feed, s.o.Apply(ctx, c.change()), "a change"); err != nil {
				return refused, err
			}
		}
		*c = change{} // its memory is free for the next one's
	}
	for _, d := range said {
		if s.o.Disputed == nil || refused[d.feed] != nil {
			continue
		}
		if err := verdict(d.feed, s.o.Disputed(ctx, d.feed, d.claims), "disputes"); err != nil {
			return refused, err
		}
	}
	return refused, nil
}
