// Package retained keeps the retained messages of a broker: in memory for
// those who join, and in one bbolt file, written in groups, so that messages that were
// acknowledged survives. It keeps nothing for sessions.
package retained

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"banmesh/internal/store"

	"banmesh/internal/broker/tree"
)

// Limits of the store.
const (
	// maxPending bounds the messages that wait for the disk, in bytes: a disk
	// that hangs must not take the memory of the machine.
	maxPending = 64 << 20
	// retryCommit is how long a failed group waits for its next attempt. A
	// disk that is full stays so for a while.
	retryCommit = time.Second
	// overhead is the memory of one message beside topic and payload, for
	// quotas.
	overhead = 256
)

// ErrBusy says that too much waits for the disk: the message was not taken.
var ErrBusy = errors.New("too much waits for the disk")

// ErrClosed says that the store is closed.
var ErrClosed = errors.New("the store is closed")

// A Message is a retained publication. It does not change once it was put.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	// Epoch and Number order the messages of one topic, where its author
	// says so; both 0 otherwise.
	Epoch, Number uint64
	// Received is when it came by the machine's clock, in whole seconds; for
	// people only.
	Received time.Time
	// Heard is when it came on the store's own clock ([Store.Uptime]).
	Heard time.Duration
	// Owner is whose quota it uses, as the store's owner function says.
	Owner string

	since  time.Duration // since when the owner's group has messages here
	stored bool          // read from the file, with its group's age
	sum    uint32        // checksum of topic and record
}

func (m *Message) size() int { return len(m.Topic) + len(m.Payload) + overhead }

// Usage is the memory of an owner's messages, or of all.
type Usage struct {
	Messages int `json:"messages"`
	Bytes    int `json:"bytes"` // overhead included
}

func (u Usage) plus(m *Message, sign int) Usage {
	if m == nil {
		return u
	}
	return Usage{u.Messages + sign, u.Bytes + sign*m.size()}
}

// A Standing is the contents of the store when it judges a change: of the
// message's owner, of the group that the owner belongs to, and of all. Age is
// for how long the group has had messages here, on the store's own clock.
type Standing struct {
	Owner, Group, All Usage
	Age               time.Duration
}

// A group is the owners with one name before the first slash: the nodes of an
// operator.
type group struct {
	Usage
	since time.Duration
}

// A Store holds the retained messages. Its methods may be called from several
// goroutines.
type Store struct {
	db      *store.Store // nil: memory alone
	owner   func(topic string) string
	log     *slog.Logger
	durable func(sequence uint64) // told after each group

	base    time.Duration // uptime before this run
	elapsed func() time.Duration

	mu      sync.RWMutex
	topics  tree.Tree[*Message]
	owners  map[string]Usage
	groups  map[string]*group
	newest  []string // groups in the order in which they came; some are gone
	total   Usage
	sum     uint64              // of the messages' checksums
	changes uint64              // of memory, since it was opened
	pending map[string]*Message // changes that the file lacks; nil means delete
	bytes   int                 // of pending
	last    uint64              // sequence number of the last change
	written uint64              // of the last change on disk
	waiting chan struct{}       // closed at the next group that is written, or at the end
	closed  bool
	fault   error // of the last commit
	commits uint64

	due chan struct{}
}

// Open opens or creates the file at path and reads all of it. An empty path
// means memory alone. owner says whose quota a topic uses; it may be nil. The part that
// stands before a slash is the owner's group.
// The file is written only while [Store.Run] runs.
func Open(path string, owner func(topic string) string, log *slog.Logger) (*Store, error) {
	if owner == nil {
		owner = func(string) string { return "" }
	}
	began := time.Now()
	s := &Store{
		owner: owner, log: log, owners: map[string]Usage{}, groups: map[string]*group{}, pending: map[string]*Message{},
		due: make(chan struct{}, 1), waiting: make(chan struct{}), elapsed: func() time.Duration { return time.Since(began) },
		durable: func(uint64) {},
	}
	if path == "" {
		return s, nil
	}
	if err := s.open(path); err != nil {
		return nil, err
	}
	return s, nil
}

// OnDurable sets a function that is called after each group that was written,
// with the sequence number of its last change. It must not block, and is set
// before [Store.Run].
func (s *Store) OnDurable(f func(sequence uint64)) { s.durable = f }

// Uptime is the store's own clock: for how long it was open, in this run and
// in those before it. No setting of the machine's clock moves it.
func (s *Store) Uptime() time.Duration { return s.base + s.elapsed() }

// TestingOnlyElapsed replaces the clock of this run.
func (s *Store) TestingOnlyElapsed(f func() time.Duration) { s.elapsed = f }

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

// Owners gives the usage of each owner.
func (s *Store) Owners() map[string]Usage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return maps.Clone(s.owners)
}

// A Status is how the store does.
type Status struct {
	Usage
	Pending int    `json:"pending"` // changes that the file lacks
	Commits uint64 `json:"commits"`
	// Fault is the last commit's error; "" when it went well.
	Fault string `json:"fault,omitempty"`
}

// Status gives how the store does.
func (s *Store) Status() Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	st := Status{Usage: s.total, Pending: len(s.pending), Commits: s.commits}
	if s.fault != nil {
		st.Fault = s.fault.Error()
	}
	return st
}

// Put takes a message, which readers see at once, if judge agrees; a nil judge
// always does. judge is given the message that is there now, or nil, and how much
// the store holds; nothing changes between its answer and the change. sequence
// is the change's number, of which [Store.OnDurable] speaks; 0 means that there
// is no disk to wait for. The error is judge's, [ErrBusy] or [ErrClosed].
func (s *Store) Put(m *Message, judge func(old *Message, of Standing) error) (sequence uint64, err error) {
	m.Owner = s.owner(m.Topic)
	return s.change(m.Topic, m, judge)
}

// Delete removes a topic's message, as Put puts one.
func (s *Store) Delete(topic string) (sequence uint64, err error) { return s.change(topic, nil, nil) }

func (s *Store) change(topic string, m *Message, judge func(*Message, Standing) error) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, ErrClosed
	case s.bytes > maxPending:
		return 0, ErrBusy
	}
	if judge != nil {
		old, _ := s.topics.Get(topic)
		if err := judge(old, s.standing(m.Owner)); err != nil {
			return 0, err
		}
	}
	if m != nil {
		m.Heard = s.Uptime().Truncate(time.Second)
	}
	s.replace(topic, m)
	if s.db == nil {
		return 0, nil
	}
	s.pend(topic, m)
	s.last++
	select {
	case s.due <- struct{}{}:
	default: // a pass is due already
	}
	return s.last, nil
}

func pendingSize(topic string, m *Message) int {
	if m == nil {
		return len(topic) + overhead
	}
	return m.size()
}

// pend makes a change wait for the disk, in place of an earlier one of its
// topic.
func (s *Store) pend(topic string, m *Message) {
	if before, ok := s.pending[topic]; ok {
		s.bytes -= pendingSize(topic, before)
	}
	s.pending[topic] = m
	s.bytes += pendingSize(topic, m)
}

// Durable gives the sequence number up to which changes are on disk.
func (s *Store) Durable() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.written
}

// Last gives the sequence number of the last change.
func (s *Store) Last() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.last
}

// Changes counts the changes since the store was opened, also where there is no
// file.
func (s *Store) Changes() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.changes
}

// Tick makes the store's clock durable with the next group.
func (s *Store) Tick() {
	s.mu.Lock()
	if s.db != nil && !s.closed {
		s.last++
	}
	s.mu.Unlock()
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// Wait waits until all changes so far are on disk.
func (s *Store) Wait(ctx context.Context) error {
	s.mu.RLock()
	until := s.last
	s.mu.RUnlock()
	for {
		s.mu.RLock()
		written, closed, next := s.written, s.closed, s.waiting
		s.mu.RUnlock()
		switch {
		case written >= until:
			return nil
		case closed:
			return ErrClosed
		}
		select {
		case <-next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
