package notify

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/history"
)

// Options are the parts of a node that a [Notifier] reads.
type Options struct {
	// Entries gives the receivers in force; [Notifier.Reload] says that they changed.
	Entries func() []Entry
	// Find and Wait read the node's history.
	Find func(history.Query) (history.Page, error)
	Wait func(context.Context, history.Query) (history.Page, error)
	// Warnings gives the node's warnings of now, Mend the general command that ends
	// one, by its code.
	Warnings func(context.Context) []control.Warning
	Mend     func(code string) string
	Peers    func() []control.Peer
	// Claims says whether this node claims a target itself, Guest whether it is a known
	// guest.
	Claims func(ban.Topic, ban.Target) bool
	Guest  func(ban.Target) bool
	Page   Page
	File   string // where the state is kept
	Now    func() time.Time
	Log    *slog.Logger
	// TestingLook is how often warnings are looked at, from the start on, in tests; 0
	// is the usual.
	TestingLook time.Duration
	// receiver replaces [newReceiver] in tests.
	receiver func(*Entry) (receiver, error)
}

const (
	// pace is the shortest time between two readings of the history.
	pace = time.Second
	// eventsAtOnce bounds the events of one reading.
	eventsAtOnce = 1000
	// lookEvery is how often warnings are looked at.
	lookEvery = 30 * time.Second
	// lookLate is how long they are left alone after a start, in which brokers are
	// connected to and logs opened.
	lookLate = time.Minute
	// stopWithin is how long a stop waits for messages under way.
	stopWithin = 2 * time.Second
	// saveEvery is how often the state is written while events come in. It holds
	// cursor and notices of one moment, so that after a kill the events since then
	// are read again.
	saveEvery = 5 * time.Second
)

// A Notifier sends a node's messages.
type Notifier struct {
	o Options

	mu      sync.Mutex
	entries []Entry
	s       state
	dirty   bool
	saved   time.Time // when the state was written last
	fault   error     // of the last write of the state
	since   time.Time // of the events to tell while there is no cursor

	wake    chan struct{} // capacity one: there may be something to send
	changed chan struct{} // closed and made anew when the entries change
}

// Open reads the state. A file that is damaged is begun anew, and said in the log.
func Open(o Options) *Notifier {
	if o.receiver == nil {
		o.receiver = newReceiver
	}
	n := &Notifier{o: o, wake: make(chan struct{}, 1), changed: make(chan struct{})}
	var err error
	if n.s, err = readState(o.File); err != nil {
		o.Log.Error("messages that waited are lost", slog.Any("error", err))
	}
	n.Reload()
	return n
}

// Reload takes over the entries of now.
func (n *Notifier) Reload() {
	entries := n.o.Entries()
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.o.Now()
	n.entries = entries
	known := map[string]bool{}
	for i := range entries {
		e := &entries[i]
		known[e.Name] = true
		if n.s.Outboxes[e.Name] == nil {
			n.s.Outboxes[e.Name] = &outbox{Born: now}
		}
		n.s.Outboxes[e.Name].forget(e)
		n.s.Outboxes[e.Name].Retry = time.Time{} // who changes an entry wants to see it work
	}
	for name := range n.s.Outboxes {
		if !known[name] {
			delete(n.s.Outboxes, name)
		}
	}
	if len(entries) == 0 {
		n.s.Cursor, n.s.Standings, n.s.Week = 0, map[string]*standing{}, week{}
	}
	if n.s.Cursor == 0 {
		n.since = now
	}
	n.dirty = true
	close(n.changed)
	n.changed = make(chan struct{})
	n.poke()
}

func (n *Notifier) poke() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run sends messages until ctx ends.
func (n *Notifier) Run(ctx context.Context) error {
	var w sync.WaitGroup
	w.Go(func() { n.follow(ctx) })
	w.Go(func() { n.watch(ctx) })
	n.dispatch(ctx)
	w.Wait()
	n.save(true)
	return nil
}

// inForce gives the entries, and a channel that is closed when they change.
func (n *Notifier) inForce() ([]Entry, <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.entries, n.changed
}

// save writes the state where it changed, at once or when it is due, and gives when
// to call it again, zero where all is written. A disk that takes nothing stops no
// message.
func (n *Notifier) save(now bool) (due time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.dirty {
		return time.Time{}
	}
	if due = n.saved.Add(saveEvery); !now && n.o.Now().Before(due) {
		return due
	}
	n.saved = n.o.Now()
	err := writeState(n.o.File, &n.s)
	if err != nil && n.fault == nil {
		n.o.Log.Error("messages that wait are not kept", slog.Any("error", err))
	}
	if n.fault = err; err != nil {
		return n.saved.Add(saveEvery)
	}
	n.dirty = false
	return time.Time{}
}

// Status gives how each receiver is doing, in the order of the configuration.
func (n *Notifier) Status() []control.Notify {
	n.mu.Lock()
	defer n.mu.Unlock()
	list := []control.Notify{}
	now := n.o.Now()
	for i := range n.entries {
		e := &n.entries[i]
		o := n.s.Outboxes[e.Name]
		x := control.Notify{
			Name: e.Name, Type: string(e.Type), On: []string{}, Waiting: o.waiting(), Sent: o.Sent, Failed: o.Failed,
			LastSent: o.LastSent, Answer: o.Answer, Error: o.Error, ErrorAt: o.ErrorAt, Failing: o.Failing, QuietUntil: e.Quiet.End(now.Local()),
		}
		for _, k := range e.On {
			x.On = append(x.On, string(k))
		}
		if _, again := o.due(e, now); !again.IsZero() {
			x.Next = again
		}
		list = append(list, x)
	}
	return list
}

// Fault says why the messages that wait are not kept on disk, nil where they are.
func (n *Notifier) Fault() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.fault
}
