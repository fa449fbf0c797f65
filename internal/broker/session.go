package broker

import (
	"slices"
	"strings"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	"github.com/prometheus/client_golang/prometheus"
)

// Packet identifiers of publications to a client. Those up to maxFastID are
// counted, not remembered: a clean session gets nothing again, so that there
// is nothing to remember. The others stand in the engine's list of those in
// flight, far from the low ones that clients use for their own packets, which
// the engine keeps in the same list.
const (
	maxFastID = 32767
	firstKept = 32768
	// maxUnacked is how many publications a client may leave unacknowledged.
	// Who has more is broken, and would see an identifier twice.
	maxUnacked = 32000
	// maxMoving is how many publications wait while a session moves from one
	// connection to the next.
	maxMoving = 1024
)

// A session is a client's subscriptions and the publications that are pending for it. A clean one lives
// as long as its connection; the other kind exists only in open brokers.
type session struct {
	id     string
	clean  bool
	bridge bool
	who    identity
	// dropped counts publications that there was no room for.
	dropped prometheus.Counter

	subsMu sync.Mutex
	subs   map[string]subscription
	began  time.Time
	taken  int // how many sessions in a row took the place of the one before
	payers []payer

	// Where publications go. c is nil while the client is away.
	mu     sync.Mutex
	c      *conn
	moving bool
	wait   []waiting

	// flight guards the choice of an identifier in the engine's list.
	flight sync.Mutex
	cl     *mqtt.Client
	last   uint16
	order  int64
}

// A subscription is the quality of service that was granted for a filter, and
// the bytes that the filter takes.
type subscription struct {
	qos   byte
	bytes int32
}

type waiting struct {
	f   *encoded
	qos byte
}

// keep puts a publication into the engine's list of those in flight.
func (s *session) keep(f *encoded, qos byte) (id uint16, ok bool) {
	s.flight.Lock()
	defer s.flight.Unlock()
	list := s.cl.State.Inflight
	n := list.Len()
	if n >= maxInflight {
		return 0, false
	}
	if n == 0 {
		// The engine sorts by the low 16 bits of this, so it starts again
		// whenever nothing is in flight.
		s.order = 0
	}
	for {
		s.last++
		if s.last < firstKept {
			s.last = firstKept
		}
		if _, taken := list.Get(s.last); !taken {
			break
		}
	}
	s.order++
	list.Set(packets.Packet{
		FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: qos, Retain: f.retain},
		TopicName:   f.topic, Payload: f.payload, PacketID: s.last, Created: s.order,
	})
	return s.last, true
}

// A delivery is the outcome of a publication for one client.
type delivery struct {
	flush *conn // somebody has to flush it
	to    *conn
	why   backlog // of the bytes that wait for it
}

// deliver queues a publication for the client, or keeps it for one that is
// away.
func (s *session) deliver(f *encoded, qos byte) delivery {
	if !s.clean {
		return s.deliverKept(f, qos)
	}
	return s.c.deliver(f, qos) // a clean session never changes its connection
}

func (c *conn) deliver(f *encoded, qos byte) (d delivery) {
	o := &c.out
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return d
	}
	if !o.room(len(f.topic) + len(f.payload)) {
		o.mu.Unlock()
		c.kick("slow reader")
		return d
	}
	ok := o.publication(f, qos)
	if ok && o.claim() {
		d.flush = c
	}
	d.to, d.why = c, o.backlog()
	o.mu.Unlock()
	if !ok {
		c.kick("does not acknowledge")
	}
	return d
}

func (s *session) deliverKept(f *encoded, qos byte) (d delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.moving:
		if len(s.wait) < maxMoving {
			s.wait = append(s.wait, waiting{f, qos})
		} else {
			s.dropped.Inc()
		}
		return d
	case s.c == nil:
		if qos > 0 {
			if _, ok := s.keep(f, qos); !ok {
				s.dropped.Inc()
			}
		}
		return d
	}
	return s.c.deliver(f, qos)
}

// A sessionTable holds the sessions, by client identifier.
type sessionTable struct {
	mu   sync.Mutex
	byID map[string]*session
}

// begin gives the session for a new connection, which may be one that exists.
// Another connection of the same client loses it.
func (r *sessionTable) begin(c *conn, cl *mqtt.Client, clean bool) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.byID[cl.ID]
	if old != nil && !old.clean && !clean && old.who == c.who {
		old.mu.Lock()
		old.moving, old.c = true, c
		old.mu.Unlock()
		old.bridge = c.connection.Bridge
		return old
	}
	if old != nil {
		c.b.drop(old)
	}
	now, taken := c.b.now(), 0
	if old != nil && now.Sub(old.began).Abs() < takenWithin {
		taken = old.taken + 1
	}
	s := &session{began: now, taken: taken, id: cl.ID, clean: clean, bridge: c.connection.Bridge, who: c.who, subs: map[string]subscription{}, payers: payers(c.who, c.remote.Addr()), c: c, cl: cl, dropped: c.b.count.dropped}
	s.moving = !clean
	r.byID[cl.ID] = s
	return s
}

const (
	// takenWithin is how soon a session has to be taken over for that to count, and
	// takenTold how often in a row, before the client is told that another one may
	// have its keys: one that comes back after its network broke takes over once.
	takenWithin = 5 * time.Minute
	takenTold   = 3
)

// established says that the engine has told the client of its session; publications that
// came meanwhile is delivered.
func (s *session) established(c *conn, cl *mqtt.Client) {
	if s.clean {
		return
	}
	s.flight.Lock()
	s.cl = cl
	s.flight.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != c {
		return
	}
	s.moving = false
	for _, w := range s.wait {
		if c.deliver(w.f, w.qos).flush != nil {
			c.b.flush.add(c)
		}
	}
	s.wait = nil
}

func (r *sessionTable) get(id string) *session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// end says that a connection is gone.
func (r *sessionTable) end(c *conn) {
	s := c.session
	if s == nil {
		return
	}
	if !s.clean {
		s.mu.Lock()
		if s.c == c && !s.moving {
			s.c = nil
		}
		s.mu.Unlock()
		return
	}
	r.mu.Lock()
	if r.byID[s.id] == s {
		delete(r.byID, s.id)
	}
	r.mu.Unlock()
	c.b.drop(s)
}

// expire forgets a session that the engine has forgotten.
func (r *sessionTable) expire(b *Broker, cl *mqtt.Client) {
	r.mu.Lock()
	s := r.byID[cl.ID]
	if s == nil || s.clean || s.cl != cl {
		r.mu.Unlock()
		return
	}
	delete(r.byID, cl.ID)
	r.mu.Unlock()
	b.drop(s)
}

// all gives the sessions, sorted by identifier.
func (r *sessionTable) all() []*session {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]*session, 0, len(r.byID))
	for _, s := range r.byID {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *session) int { return strings.Compare(a.id, b.id) })
	return out
}

func (r *sessionTable) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.byID)
}

// drop ends all subscriptions of a session.
func (b *Broker) drop(s *session) {
	s.subsMu.Lock()
	filters, bytes := make([]string, 0, len(s.subs)), 0
	for f, sub := range s.subs {
		filters = append(filters, f)
		bytes += int(sub.bytes)
	}
	clear(s.subs)
	s.subsMu.Unlock()
	b.releaseFilter(s, bytes)
	b.index.unsubscribe(s, filters...)
}
