package retained

import (
	"context"
	"errors"
	"log/slog"
	"time"
)

// Run writes changes in groups: while one group is on its way to the disk the
// next gathers. When ctx ends it writes the rest and closes the file. A group
// that fails stays and is tried again; nobody is told that it is durable.
func (s *Store) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-s.due:
			if s.commit() != nil {
				s.again(ctx)
			}
		}
	}
	return s.close()
}

// again makes a pass due after a while.
func (s *Store) again(ctx context.Context) {
	t := time.NewTimer(retryCommit)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
	select {
	case s.due <- struct{}{}:
	default:
	}
}

func (s *Store) commit() error {
	s.mu.Lock()
	g := written{messages: s.pending, count: s.total.Messages, sum: s.sum, uptime: s.Uptime()}
	bytes, last := s.bytes, s.last
	s.pending, s.bytes = map[string]*Message{}, 0
	done := last == s.written
	s.mu.Unlock()
	if done {
		return nil
	}
	err := s.write(g)
	s.mu.Lock()
	if (err == nil) != (s.fault == nil) {
		s.log.Log(context.Background(), level(err), "retained messages reach the disk", "ok", err == nil, "error", err)
	}
	s.fault = err
	if err != nil {
		s.merge(g.messages, bytes)
		s.mu.Unlock()
		return err
	}
	s.commits++
	s.written = last
	close(s.waiting)
	s.waiting = make(chan struct{})
	s.mu.Unlock()
	s.durable(last)
	return nil
}

// merge puts the changes of a group that failed back, below those that came
// since.
func (s *Store) merge(failed map[string]*Message, bytes int) {
	if len(s.pending) == 0 {
		s.pending, s.bytes = failed, bytes
		return
	}
	for topic, m := range failed {
		if _, newer := s.pending[topic]; !newer {
			s.pend(topic, m)
		}
	}
}

func level(err error) slog.Level {
	if err != nil {
		return slog.LevelError
	}
	return slog.LevelInfo
}

// close writes the last group, and the store's clock.
func (s *Store) close() error {
	s.mu.Lock()
	s.closed = true
	s.last++ // the clock is a change, too
	s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.commit()
	s.mu.Lock()
	close(s.waiting)
	s.waiting = make(chan struct{})
	s.mu.Unlock()
	return errors.Join(err, s.db.Close())
}
