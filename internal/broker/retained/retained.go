// Package retained keeps the retained messages of a broker: in memory for
// those who join, and in one bbolt file, written in groups, so that what was
// acknowledged survives. It keeps nothing for sessions.
package retained

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"banmesh/internal/broker/tree"
)

// Limits of the store.
const (
	// maxPending bounds what waits for the disk, in bytes: a disk that hangs
	// must not take the memory of the machine.
	maxPending = 64 << 20
	// retryCommit is how long a failed group waits for its next attempt. A
	// disk that is full stays so for a while.
	retryCommit = time.Second
	// overhead is what one message costs in memory beside topic and payload,
	// for quotas.
	overhead = 256
)

// ErrBusy says that too much waits for the disk: the message was not taken.
var ErrBusy = errors.New("too much waits for the disk")

// ErrClosed says that the store was closed before the message was durable.
var ErrClosed = errors.New("the store is closed")

// A Message is a retained publication. It does not change once it was put.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	// Epoch and Number order the messages of one topic, where its author
	// says so; both 0 otherwise.
	Epoch, Number uint64
	// Received is when it came, in whole seconds.
	Received time.Time
	// Owner is whose quota it uses, as the store's owner function says.
	Owner string
}

func (m *Message) size() int { return len(m.Topic) + len(m.Payload) + overhead }

// Usage is what an owner, or the store, holds.
type Usage struct {
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"` // in memory, overhead included
}

func (u Usage) plus(m *Message, sign int) Usage {
	if m == nil {
		return u
	}
	return Usage{u.Messages + sign, u.Bytes + sign*m.size()}
}

// A Store holds the retained messages. Its methods may be called from several
// goroutines.
type Store struct {
	db    *bbolt.DB // nil: memory alone
	owner func(topic string) string
	log   *slog.Logger

	mu      sync.RWMutex
	topics  tree.Tree[*Message]
	owners  map[string]Usage
	total   Usage
	pending map[string]*Message // what the file lacks; nil means delete
	waiting []func(error)
	bytes   int // of pending payloads
	closed  bool
	fault   error // of the last commit
	commits uint64

	due chan struct{}
}

// Open opens or creates the file at path and reads all of it. An empty path
// means memory alone. owner says whose quota a topic uses; it may be nil.
// The file is written only while [Store.Run] runs.
func Open(path string, owner func(topic string) string, log *slog.Logger) (*Store, error) {
	if owner == nil {
		owner = func(string) string { return "" }
	}
	s := &Store{owner: owner, log: log, owners: map[string]Usage{}, pending: map[string]*Message{}, due: make(chan struct{}, 1)}
	if path == "" {
		return s, nil
	}
	if err := s.open(path); err != nil {
		return nil, err
	}
	return s, nil
}

// Get gives the message under a topic, or nil.
func (s *Store) Get(topic string) *Message {
	s.mu.RLock()
	defer s.mu.RUnlock()
	m, _ := s.topics.Get(topic)
	return m
}

// Match gives the messages whose topics a filter matches.
func (s *Store) Match(filter string) []*Message {
	found, _ := s.Search(filter)
	return found
}

// Search gives the messages whose topics a filter matches, and how many levels
// of topics it looked at for them.
func (s *Store) Search(filter string) (found []*Message, visited int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	visited = s.topics.Matched(filter, func(m *Message) { found = append(found, m) })
	return found, visited
}

// All gives every message.
func (s *Store) All() []*Message {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found := make([]*Message, 0, s.topics.Len())
	s.topics.Each(func(m *Message) { found = append(found, m) })
	return found
}

// Usage gives what an owner holds, and what all hold.
func (s *Store) Usage(owner string) (of, all Usage) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.owners[owner], s.total
}

// Owners gives what each owner holds.
func (s *Store) Owners() map[string]Usage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.owners)
}

// A Status is how the store does.
type Status struct {
	Usage
	Pending int    `json:"pending"` // changes that the file lacks
	Waiting int    `json:"waiting"` // calls that wait to hear that they are durable
	Commits uint64 `json:"commits"`
	// Fault is the last commit's error; "" when it went well.
	Fault string `json:"fault,omitempty"`
}

// Status gives how the store does.
func (s *Store) Status() Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Status{Usage: s.total, Pending: len(s.pending), Waiting: len(s.waiting), Commits: s.commits}
	if s.fault != nil {
		st.Fault = s.fault.Error()
	}
	return st
}

// Put takes a message, which readers see at once. done, if not nil, is called
// once: with nil when the message is durable, with an error when the store
// closed before. Calls of done come in the order of their Puts, and must not
// block. The result is nil or [ErrBusy] or [ErrClosed], and then done is not
// called.
func (s *Store) Put(m *Message, done func(error)) error {
	m.Owner = s.owner(m.Topic)
	return s.change(m.Topic, m, done)
}

// Delete removes a topic's message, as Put puts one.
func (s *Store) Delete(topic string, done func(error)) error { return s.change(topic, nil, done) }

// After calls done in the order of Puts, when all that came before it is
// durable.
func (s *Store) After(done func(error)) error { return s.change("", nil, done) }

func (s *Store) change(topic string, m *Message, done func(error)) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if s.bytes > maxPending {
		s.mu.Unlock()
		return ErrBusy
	}
	if topic != "" {
		s.replace(topic, m)
	}
	if s.db == nil {
		s.mu.Unlock()
		if done != nil {
			done(nil)
		}
		return nil
	}
	if topic != "" {
		s.pending[topic] = m
		if m != nil {
			s.bytes += len(m.Payload)
		}
	}
	if done != nil {
		s.waiting = append(s.waiting, done)
	}
	s.mu.Unlock()
	select {
	case s.due <- struct{}{}:
	default: // a pass is due already
	}
	return nil
}

// replace changes memory alone.
func (s *Store) replace(topic string, m *Message) {
	old, _ := s.topics.Get(topic)
	if old != nil {
		s.total = s.total.plus(old, -1)
		if u := s.owners[old.Owner].plus(old, -1); u.Messages > 0 {
			s.owners[old.Owner] = u
		} else {
			delete(s.owners, old.Owner)
		}
	}
	if m == nil {
		s.topics.Delete(topic)
		return
	}
	s.topics.Set(topic, m)
	s.total = s.total.plus(m, 1)
	s.owners[m.Owner] = s.owners[m.Owner].plus(m, 1)
}

// Run writes what is put, in groups: while one group is on its way to the
// disk the next gathers. When ctx ends it writes what is left and closes the
// file. A group that fails stays and is tried again; nobody is told that it
// is durable.
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
	group, waiting := s.pending, s.waiting
	s.pending, s.waiting, s.bytes = map[string]*Message{}, nil, 0
	s.mu.Unlock()
	if len(group) == 0 && len(waiting) == 0 {
		return nil
	}
	err := s.write(group)
	s.mu.Lock()
	if (err == nil) != (s.fault == nil) {
		s.log.Log(context.Background(), level(err), "retained messages reach the disk", "ok", err == nil, "error", err)
	}
	s.fault = err
	if err != nil {
		for topic, m := range group {
			if _, newer := s.pending[topic]; !newer {
				s.pending[topic] = m
				if m != nil {
					s.bytes += len(m.Payload)
				}
			}
		}
		s.waiting = append(waiting, s.waiting...)
		s.mu.Unlock()
		return err
	}
	if len(group) > 0 {
		s.commits++
	}
	s.mu.Unlock()
	for _, done := range waiting {
		done(nil)
	}
	return nil
}

func level(err error) slog.Level {
	if err != nil {
		return slog.LevelError
	}
	return slog.LevelInfo
}

// close writes what is left and tells those who still wait.
func (s *Store) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.db == nil {
		return nil
	}
	err := s.commit()
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, done := range waiting {
		done(ErrClosed)
	}
	return errors.Join(err, s.db.Close())
}
