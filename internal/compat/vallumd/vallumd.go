// Package vallumd speaks with vallumd over MQTT: a program that adds the addresses
// in messages to ipsets.
//
// The contract is three lines. The topic SET/add or SET/del names an ipset, the
// payload is one address as text. Nothing is signed, nothing says who speaks or for
// how long, and nobody answers: a set's own timeout ends its entries, and an
// address that is added again begins its time anew (vallumd's src/ipset.c adds with
// ipset's EXIST option). So it is for a private broker,
// and whatever comes in is a claim of that broker alone.
package vallumd

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/mqttclient"
	"banmesh/internal/export"
)

// A Set is an ipset of the vallumds, and the topic of ours that it stands for.
type Set struct {
	Topic ban.Topic
	Name  string
	Name6 string // the one for IPv6 addresses; "" for none
	// Publish says that bans of the topic go out, Accept that the messages of others in
	// the set are taken.
	Publish, Accept bool
}

// A Message is a message of somebody else's: an address is banned, or no longer.
type Message struct {
	Topic ban.Topic
	Addr  netip.Addr
	Add   bool
}

// A Session is the one that a broker keeps for this node, with the messages that come
// while the node is away: whoever sent them has the broker's word that they arrive.
type Session struct {
	ID   string    `json:"id"`
	Sets []string  `json:"sets"` // the topics that it reads
	Last time.Time `json:"last"` // when it was connected last, or made
}

// sessionMost is how long a node may be away and have the messages that came meanwhile:
// nobody knows when each of them was sent.
const sessionMost = time.Hour

// Options are the inputs of [New].
type Options struct {
	Name string
	// Broker is how to connect; the session's identifier takes the place of its own.
	Broker mqttclient.Endpoint
	// Session and Published are those of the earlier run: the elements that sets have
	// from us.
	Session   Session
	Published []Element
	Sets      []Set
	// Timeout is that of the sets. A ban that lasts longer is published again before it.
	Timeout time.Duration
	Table   *export.Table
	// MayPublish says whether a ban may go out; nil means all.
	MayPublish func(export.Entry) bool
	// Receive takes messages over, in their order, and makes them outlast a kill: they are
	// acknowledged when it returns nil, and until then it is called again with them.
	Receive func(context.Context, []Message) error
	Now     func() time.Time
	Log     *slog.Logger
}

// How a bridge behaves.
const (
	backoffLeast = 500 * time.Millisecond
	backoffMost  = time.Minute
	keepalive    = 30 * time.Second
	// ackTime is how long a broker may take to acknowledge, and inFlight how many
	// messages wait for that.
	ackTime  = 30 * time.Second
	inFlight = 64
	// batchMost bounds one call of Receive. As many as queueMost wait for it, and then the
	// connection is not read: a stock broker drops what is more than a thousand
	// messages ahead of its reader.
	batchMost = 4096
	queueMost = 16384
	// ignoredLogged is how often messages that are left out are logged of.
	ignoredLogged = time.Minute
)

// Status says how a bridge is.
type Status struct {
	Name, URL string
	Connected bool
	Err       string // why not
	Published int    // elements that the sets have from us
	LeftOut   int    // bans in force that no set can hold: ranges, IPv6 without a set, more than [MaxElements]
	Received  uint64 // messages of others that were taken
	Ignored   uint64 // messages that say nothing, or that nobody asked for
	Last      time.Time
}

// A Bridge is the connection to one broker. Its methods may be called from several
// goroutines.
type Bridge struct {
	o        Options
	received chan delivery
	wake     chan struct{} // something may be due

	mu       sync.Mutex
	out      outbox
	echoes   echoes
	session  Session
	fresh    bool      // the broker is to forget an earlier session first
	resumed  time.Time // when the first connection of this run took an earlier session up
	status   Status
	logged   time.Time // when ignored messages were logged last
	unlogged uint64    // those since then
}

// New makes a bridge.
func New(o Options) *Bridge {
	if o.Now == nil {
		o.Now = time.Now
	}
	b := &Bridge{
		o: o, received: make(chan delivery, queueMost), wake: make(chan struct{}, 1),
		out: newOutbox(o.Sets, o.Timeout, o.Published), echoes: echoes{}, session: o.Session,
	}
	if filters := b.filters(); b.session.ID == "" || !slices.Equal(b.session.Sets, filters) {
		b.session = Session{ID: cmp.Or(b.session.ID, "banmesh-"+rand.Text()[:12]), Sets: filters, Last: o.Now()}
		b.fresh = true
	}
	b.status = Status{Name: o.Name, URL: o.Broker.URL, Err: "not connected yet"}
	return b
}

// Status gives the bridge's state.
func (b *Bridge) Status() Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.status
	s.Published, s.LeftOut = len(b.out.published), len(b.out.leftOut)
	return s
}

// Save has the elements written down that sets have from us, or no longer have, since
// they were saved last, and the session. It is to be called before [Bridge.Run] too: a
// session that is not known after a kill is none.
func (b *Bridge) Save(write func(changed map[Element]bool, s Session) error) error {
	b.mu.Lock()
	changed := b.out.unsaved
	b.out.unsaved = map[Element]bool{}
	if b.status.Connected {
		b.session.Last = b.o.Now()
	}
	s := b.session
	b.mu.Unlock()
	err := write(changed, s)
	if err != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		maps.Copy(changed, b.out.unsaved) // the newer of both
		b.out.unsaved = changed
	}
	return err
}

// Run connects, publishes, receives and connects again until ctx ends.
func (b *Bridge) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.follow(ctx) })
	group.Go(func() error { return b.deliver(ctx) })
	group.Go(func() error {
		wait := backoffLeast
		for {
			began := b.o.Now()
			err := b.connected(ctx)
			if ctx.Err() != nil {
				return nil
			}
			b.failed(err)
			if b.o.Now().Sub(began) > backoffMost {
				wait = backoffLeast
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			wait = min(2*wait, backoffMost)
		}
	})
	return group.Wait()
}

// failed notes why the connection is lost, and logs a reason that differs from the last one.
func (b *Bridge) failed(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status.Connected || b.status.Err != err.Error() {
		b.o.Log.Warn("broker_unreachable", slog.String("broker", b.o.Broker.URL), slog.Any("error", err))
	}
	if b.status.Connected {
		b.session.Last = b.o.Now()
	}
	b.status.Connected, b.status.Err = false, err.Error()
}

// follow keeps the outbox at the bans in force until ctx ends.
func (b *Bridge) follow(ctx context.Context) error {
	serial, entries := b.o.Table.Snapshot()
	for {
		b.mu.Lock()
		b.out.clear()
		b.mu.Unlock()
		for e := range entries {
			b.ban(e)
		}
		for {
			b.poke()
			batch, err := b.o.Table.Next(ctx, serial)
			if errors.Is(err, export.ErrBehind) {
				serial, entries = b.o.Table.Snapshot()
				break
			}
			if err != nil {
				return nil // ctx ended
			}
			serial = batch.Serial
			for _, e := range batch.Bans {
				b.ban(e)
			}
			b.mu.Lock()
			for _, k := range batch.Lifted {
				b.out.lift(k)
			}
			b.mu.Unlock()
		}
	}
}

// ban notes a ban to be published, or one that may no longer be.
func (b *Bridge) ban(e export.Entry) {
	if !b.out.publishes(e.Topic) {
		return
	}
	may := b.o.MayPublish == nil || b.o.MayPublish(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	if may {
		b.out.ban(e)
	} else {
		b.out.lift(export.Key{Target: e.Target, Topic: e.Topic})
	}
}

func (b *Bridge) poke() {
	select {
	case b.wake <- struct{}{}:
	default: // a wake-up is pending already
	}
}

// A delivery is a message that the broker waits to see acknowledged on a connection.
type delivery struct {
	Message
	taken bool // it is somebody else's; the others are acknowledged in their turn
	conn  *mqttclient.Conn
	id    uint16 // 0 for one that wants no acknowledgement
}

// deliver hands messages on, and acknowledges them, until ctx ends.
func (b *Bridge) deliver(ctx context.Context) error {
	for {
		batch := b.batch(ctx)
		var list []Message
		for _, d := range batch {
			if d.taken {
				list = append(list, d.Message)
			}
		}
		if !b.take(ctx, list) {
			return nil
		}
		acknowledge(batch)
	}
}

// take hands messages on until they are taken; false says that ctx ended before.
func (b *Bridge) take(ctx context.Context, list []Message) bool {
	for wait := backoffLeast; len(list) > 0; wait = min(2*wait, backoffMost) {
		err := b.o.Receive(ctx, list)
		if err == nil {
			b.mu.Lock()
			b.status.Received += uint64(len(list))
			b.status.Last = b.o.Now()
			b.mu.Unlock()
			return true
		}
		b.o.Log.WarnContext(ctx, "messages_not_taken", slog.Int("messages", len(list)), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return false
		case <-time.After(wait):
		}
	}
	return ctx.Err() == nil
}

// batch waits for messages and gives those that are there, none where ctx ends.
func (b *Bridge) batch(ctx context.Context) (batch []delivery) {
	select {
	case <-ctx.Done():
		return nil
	case d := <-b.received:
		batch = append(batch, d)
	}
	for len(batch) < batchMost {
		select {
		case d := <-b.received:
			batch = append(batch, d)
		default:
			return batch
		}
	}
	return batch
}

// acknowledge tells the broker which messages it may forget. Where a connection is lost
// it hands them over once more.
func acknowledge(batch []delivery) {
	for len(batch) > 0 {
		conn := batch[0].conn
		var packets []byte
		for len(batch) > 0 && batch[0].conn == conn {
			if id := batch[0].id; id != 0 {
				packets = frame.AppendPuback(packets, id)
			}
			batch = batch[1:]
		}
		if len(packets) > 0 && conn.Send(packets) != nil {
			conn.Close() // its reader sees that, and the bridge connects again
		}
	}
}

// errUnacknowledged says that a broker does not acknowledge.
var errUnacknowledged = fmt.Errorf("the broker acknowledges nothing for %v", ackTime)
