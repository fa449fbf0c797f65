package notify

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// follow reads the history behind the cursor.
func (n *Notifier) follow(ctx context.Context) {
	for ctx.Err() == nil {
		entries, changed := n.inForce()
		if len(entries) == 0 {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		n.read(ctx, entries, changed)
		if !pause(ctx, pace) {
			return
		}
	}
}

// read takes one page of events, waiting for it.
func (n *Notifier) read(ctx context.Context, entries []Entry, changed <-chan struct{}) {
	n.mu.Lock()
	after := n.s.Cursor
	n.mu.Unlock()
	if after == 0 {
		page, err := n.o.Find(history.Query{Limit: 1})
		if err != nil {
			n.o.Log.ErrorContext(ctx, "history not read for messages", slog.Any("error", err))
			pause(ctx, lookEvery)
			return
		}
		after = page.Next
	}
	q := history.Query{Kinds: wanted(entries), Follow: true, After: after, Limit: eventsAtOnce}
	var page history.Page
	var err error
	if q.Kinds == nil {
		page, err = n.o.Find(history.Query{Limit: 1})
		page.Events = nil
	} else {
		waiting, stop := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			select {
			case <-changed: // other kinds may be wanted
				stop()
			case <-waiting.Done():
			}
		}()
		page, err = n.o.Wait(waiting, q)
		stop()
		<-done
	}
	if err != nil {
		n.o.Log.ErrorContext(ctx, "history not read for messages", slog.Any("error", err))
		pause(ctx, lookEvery)
		return
	}
	if q.Kinds == nil {
		n.take(page)
		select {
		case <-ctx.Done():
		case <-changed:
			n.mu.Lock()
			n.s.Cursor = 0 // events begin to be told from now on
			n.mu.Unlock()
		}
		return
	}
	n.take(page)
}

// take makes notices of a page of events and moves the cursor.
func (n *Notifier) take(page history.Page) {
	var list []Notice
	for i := range page.Events {
		if x, ok := ofEvent(&page.Events[i], n.concerns); ok {
			list = append(list, x)
		}
	}
	if page.Missed {
		list = append(list, Notice{Kind: Fault, At: n.o.Now(), Text: "Events of a time in which no messages were made are no longer in the history, and are not told.", Mend: "agent history"})
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.s.Cursor, n.dirty = page.Next, true
	n.add(list)
}

// add puts notices into the outboxes of those who want them. n.mu is held.
func (n *Notifier) add(list []Notice) {
	now := n.o.Now()
	for _, x := range list {
		for i := range n.entries {
			e := &n.entries[i]
			o := n.s.Outboxes[e.Name]
			kind := forEntry(e, x)
			if kind == "" || x.At.Before(o.Born.Truncate(time.Second)) {
				continue
			}
			y := x
			y.Kind = kind
			if !e.Details {
				y.Detail = ""
			}
			o.add(y, now)
			n.dirty = true
		}
	}
	n.poke()
}

// concerns says whether a mistake of a peer is this node's business: it claims the
// target too, or has banned it.
func (n *Notifier) concerns(topic ban.Topic, target ban.Target) bool {
	if n.o.Claims(topic, target) {
		return true
	}
	page, err := n.o.Find(history.Query{Target: target, Topic: topic, Kinds: []history.Kind{history.Ban}, Limit: 1})
	return err == nil && len(page.Events) > 0
}

// watch looks at the warnings, and at the calendar.
func (n *Notifier) watch(ctx context.Context) {
	if !pause(ctx, lookLate) {
		return
	}
	for {
		entries, changed := n.inForce()
		if len(entries) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-changed:
			}
			continue
		}
		n.look(ctx)
		n.weekly(ctx)
		if !pause(ctx, lookEvery) {
			return
		}
	}
}

func (n *Notifier) look(ctx context.Context) {
	list := n.o.Warnings(ctx)
	if ctx.Err() != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.s.Standings)
	news := look(n.s.Standings, list, n.o.Mend, n.o.Now())
	n.dirty = n.dirty || len(news) > 0 || len(n.s.Standings) != before
	n.add(news)
}

// weekly makes the receipt where it is due. One that is due while the node is
// off comes at the next start.
func (n *Notifier) weekly(ctx context.Context) {
	n.mu.Lock()
	w := n.s.Week
	n.mu.Unlock()
	now := n.o.Now()
	if now.Before(w.Next) {
		return
	}
	peers := n.o.Peers()
	next := newWeek(peers, now)
	if !w.Next.IsZero() {
		t, err := count(n.o.Find, w.Began, n.o.Guest)
		if err != nil {
			n.o.Log.ErrorContext(ctx, "history not read for the weekly receipt", slog.Any("error", err))
			return
		}
		n.mu.Lock()
		n.add([]Notice{w.receipt(peers, t, now)})
		n.mu.Unlock()
	}
	n.mu.Lock()
	n.s.Week, n.dirty = next, true
	n.mu.Unlock()
	n.poke()
}

// result is how an attempt ended.
type result struct {
	name   string
	kind   Kind
	answer string
	err    error
}

// dispatch sends the due messages, one message at a time to each receiver.
func (n *Notifier) dispatch(ctx context.Context) {
	results := make(chan result)
	flying := 0
	sending, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	again := time.NewTimer(0)
	defer again.Stop()
	for ctx.Err() == nil {
		ended := false
		select {
		case <-ctx.Done():
			continue
		case <-n.wake:
		case <-again.C:
		case r := <-results:
			flying--
			n.ended(ctx, r)
			ended = true
		}
		started, next := n.start(sending, results)
		flying += started
		if due := n.save(ended || started > 0); !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
		if !next.IsZero() {
			again.Reset(max(next.Sub(n.o.Now()), 10*time.Millisecond))
		}
	}
	// Those under way have a moment to arrive; the rest is sent after the next
	// start.
	grace := time.AfterFunc(stopWithin, cancel)
	defer grace.Stop()
	for ; flying > 0; flying-- {
		n.ended(ctx, <-results)
	}
}

// start begins to send the due messages, and says when others will be due.
func (n *Notifier) start(ctx context.Context, results chan<- result) (started int, next time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.o.Now()
	for i := range n.entries {
		e := n.entries[i]
		o := n.s.Outboxes[e.Name]
		kind, again := o.due(&e, now)
		if kind == "" {
			if !again.IsZero() && (next.IsZero() || again.Before(next)) {
				next = again
			}
			continue
		}
		o.begin(kind)
		n.dirty = true
		m := o.Pending[kind].message(kind, &e, n.o.Page, now)
		started++
		go func() {
			answer, err := n.send(ctx, &e, m)
			results <- result{e.Name, kind, answer, err}
		}()
	}
	return started, next
}

// send makes one attempt.
func (n *Notifier) send(ctx context.Context, e *Entry, m Message) (answer string, err error) {
	ctx, cancel := context.WithTimeout(ctx, sendWithin)
	defer cancel()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a fault of ours: %v", r)
		}
	}()
	r, err := n.o.receiver(e)
	if err != nil {
		return "", err
	}
	return r.send(ctx, m)
}

// ended notes how an attempt ended.
func (n *Notifier) ended(ctx context.Context, r result) {
	var after time.Duration
	if refused, ok := errors.AsType[*RefusedError](r.err); ok {
		after = refused.After
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	o := n.s.Outboxes[r.name]
	if o == nil || o.flying != r.kind {
		return // the entry was taken away meanwhile
	}
	o.done(r.kind, r.answer, r.err, after, n.o.Now())
	n.dirty = true
	if r.err != nil && o.Fails == 1 {
		n.o.Log.WarnContext(ctx, "message not sent", slog.String("receiver", r.name), slog.String("error", o.Error))
	}
	if i := slices.IndexFunc(n.entries, func(e Entry) bool { return e.Name == r.name }); i >= 0 {
		o.forget(&n.entries[i])
	}
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

// ErrUnknown says that no receiver has a name.
var ErrUnknown = errors.New("no receiver has that name")

// Test sends a test message to the receiver of a name, or to all for "", at once and
// also in quiet hours, and gives their answers in the order of the configuration.
func (n *Notifier) Test(ctx context.Context, name string) ([]control.NotifyTest, error) {
	entries, _ := n.inForce()
	if name != "" {
		entries = slices.DeleteFunc(slices.Clone(entries), func(e Entry) bool { return e.Name != name })
		if len(entries) == 0 {
			return nil, ErrUnknown
		}
	}
	list := make([]control.NotifyTest, len(entries))
	var w sync.WaitGroup
	for i := range entries {
		e := entries[i]
		w.Go(func() {
			p := newPending(n.o.Now())
			p.add(Notice{Kind: Test, At: n.o.Now(), Text: "This is a test: messages of this node arrive here. It takes " + kindNames(e.On) + "."})
			list[i] = control.NotifyTest{Name: e.Name, Type: string(e.Type)}
			answer, err := n.send(ctx, &e, p.message(Test, &e, n.o.Page, n.o.Now()))
			list[i].Answer = clean(answer, maxText)
			if err != nil {
				list[i].Error = clean(err.Error(), maxText)
			}
		})
	}
	w.Wait()
	return list, nil
}

func kindNames(list []Kind) string {
	s := ""
	for i, k := range list {
		if i > 0 {
			s += ", "
		}
		s += string(k)
	}
	return s
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
