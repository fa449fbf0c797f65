package federation

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/mqttguard"
	"banmesh/internal/wire"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// A Broker is where and how to connect.
type Broker struct {
	// URL is tcp://, ssl://, ws://, wss:// with host and port, or unix:///path.
	URL string
	// Others are further addresses of the same broker, or of the nodes of its
	// cluster: one after the other is tried when the connection is lost. A
	// cluster takes a client once, so its nodes are not brokers of their own.
	Others []string
	// TLS is used with ssl and wss; nil for the system's roots.
	TLS *tls.Config
	// User and Password log in to a broker with accounts. Without a user the
	// node proves its key ([LoginPassword]).
	User, Password string
	// Ready is closed once the broker exists, if it does not from the start; nil
	// means that it does. Until then it is not tried and not reported.
	Ready <-chan struct{}
}

// ready says whether the broker exists.
func (b *Broker) ready() bool {
	if b.Ready == nil {
		return true
	}
	select {
	case <-b.Ready:
		return true
	default:
		return false
	}
}

// wait waits until the broker exists, or says that ctx ended before.
func (b *Broker) wait(ctx context.Context) bool {
	if b.Ready == nil {
		return true
	}
	select {
	case <-b.Ready:
		return true
	case <-ctx.Done():
		return false
	}
}

// How a link behaves.
const (
	connectTimeout = 10 * time.Second
	keepAlive      = 30 * time.Second
	pingTimeout    = 10 * time.Second
	writeTimeout   = 10 * time.Second
	ackTimeout     = 30 * time.Second
	backoffLeast   = 500 * time.Millisecond
	backoffMost    = time.Minute
	// subscribeWeight is how many retained messages one SUBSCRIBE may bring:
	// stock brokers drop what exceeds a queue of 1,000.
	subscribeWeight = 256
	// subscribeQuiet ends the wait for a SUBSCRIBE's retained messages,
	// subscribeWait bounds it.
	subscribeQuiet = 20 * time.Millisecond
	subscribeWait  = 500 * time.Millisecond
	// refusedLeast and refusedMost are the pause before what a broker refused is
	// asked for again: a cluster refuses while it elects a leader, and an
	// administrator changes access rules.
	refusedLeast = time.Second
	refusedMost  = 5 * time.Minute
	// moveLeast and moveMost are how long an address has to hand out what is
	// missing before the next address of the broker is tried. The pause doubles
	// each time: mostly nobody has it.
	moveLeast = 30 * time.Second
	moveMost  = time.Hour
	// inFlight is how many publishes wait for their acknowledgement.
	inFlight = 64
	// outMost is how many messages wait for a connected broker that does not
	// take them; then the link is cut, and what it lacks is found out anew.
	outMost = 16384
)

// packet is a message as a broker delivered it.
type packet struct {
	link     *link
	topic    string
	payload  []byte
	retained bool
}

// A link is the connection to one broker. It reconnects for ever.
type link struct {
	index  int
	broker Broker
	urls   []*url.URL
	url    *url.URL // the one in use; mu
	login  func(host string, now time.Time) (client, user, password string)
	now    func() time.Time
	log    *slog.Logger
	in     chan<- packet
	up     chan<- *link // told after each SUBACK of the first subscriptions
	arrive chan struct{}

	mu         sync.Mutex
	out        []outgoing
	outReady   chan struct{}
	base       map[string]int // filter to weight; replaced, never changed
	baseGen    int
	fetch      map[string]int // filter to attempt; replaced, never changed
	subReady   chan struct{}
	connected  bool
	since      time.Time
	health     Health
	refusal    wire.Refusal // of our publications on this connection, the last one
	refusedAt  time.Time
	lastError  string
	advice     string            // about lastError
	told       map[string]string // what was last logged of each address that failed
	cut        chan struct{}     // closed to give the connection up
	cutWhy     error
	generation int
	sent       uint64
	shown      map[wire.Name][]byte // our card and documents as the broker last showed them
	offered    map[wire.Name]offer
	wanted     map[string]int
	refused    int
	answered   map[string]int // filter of fetch to the attempt that the broker has taken; replaced, never changed
	back       readBack
	moved      time.Time // to another address, by choice
	moves      int
}

func newLink(index int, b Broker) (*link, error) {
	l := &link{index: index, outReady: make(chan struct{}, 1), subReady: make(chan struct{}, 1), arrive: make(chan struct{}, 1)}
	for _, text := range append([]string{b.URL}, b.Others...) {
		u, err := parseBroker(text)
		if err != nil {
			return nil, fmt.Errorf("broker %q: %w", text, err)
		}
		if u.User != nil && b.User == "" {
			b.User = u.User.Username()
			b.Password, _ = u.User.Password()
		}
		u.User = nil
		l.urls = append(l.urls, u)
	}
	if b.TLS == nil {
		b.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	l.broker, l.url = b, l.urls[0]
	return l, nil
}

func parseBroker(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "tcp", "mqtt", "ssl", "tls", "mqtts", "ws", "wss":
		if u.Hostname() == "" {
			return nil, errors.New("it names no host")
		}
	case "unix":
		if u.Path == "" {
			return nil, errors.New("it names no path")
		}
	default:
		return nil, errors.New("the scheme must be tcp, ssl, ws, wss or unix")
	}
	return u, nil
}

// address is the one in use, for a person to read.
func (l *link) address() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.url.Redacted()
}

// tls is the configuration for one of the addresses.
func (l *link) tls(u *url.URL) *tls.Config {
	if l.broker.TLS.ServerName != "" {
		return l.broker.TLS
	}
	c := l.broker.TLS.Clone()
	c.ServerName = u.Hostname()
	return c
}

// run connects, serves and reconnects until ctx ends.
func (l *link) run(ctx context.Context) {
	wait := backoffLeast
	for ctx.Err() == nil {
		started := l.now()
		err := l.session(ctx)
		if ctx.Err() != nil {
			return
		}
		l.failed(err)
		if l.now().Sub(started) > backoffMost {
			wait = backoffLeast
		}
		// Jitter, so that a broker that comes back is not met by everybody.
		select {
		case <-time.After(wait/2 + rand.N(wait)):
		case <-ctx.Done():
		}
		wait = min(2*wait, backoffMost)
		l.mu.Lock()
		l.url = l.urls[(slices.Index(l.urls, l.url)+1)%len(l.urls)]
		l.mu.Unlock()
	}
}

// failed notes why the connection could not be made, or was lost, and logs it
// unless that was the last that was logged of the address.
func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected, l.lastError, l.out, l.refused = false, err.Error(), nil, 0
	l.health = HealthUnreachable
	if errors.Is(err, mqttguard.ErrMisbehaving) {
		l.health = HealthMisbehaving
	}
	l.advice = advice(err, l.broker, l.url.Hostname())
	at := l.url.Redacted()
	if l.told[at] != l.lastError {
		if l.told == nil {
			l.told = map[string]string{}
		}
		l.told[at] = l.lastError
		l.log.Warn("broker_unreachable", "broker", at, "error", err)
	}
	if len(l.urls) > 1 {
		l.lastError = at + ": " + l.lastError
	}
}

// session is one connection, from CONNECT to its loss. A fault of ours in it
// costs this link its connection, and nothing else.
func (l *link) session(ctx context.Context) (err error) {
	outer := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lost := make(chan error, 1)
	var guard atomic.Pointer[mqttguard.Conn]
	defer func() {
		if r := recover(); r != nil {
			err = l.faulted(r)
		}
		// The client library reports a lost connection in its own words.
		if g := guard.Load(); g != nil && g.Err() != nil && outer.Err() == nil {
			err = g.Err()
		}
	}()
	client := mqtt.NewClient(l.options(ctx, &guard, lost))
	defer client.Disconnect(0)
	if err := wait(ctx, client.Connect(), connectTimeout+time.Second); err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	l.mu.Lock()
	l.generation++
	l.health, l.refusal = HealthConnected, wire.Refusal{}
	l.connected, l.since, l.lastError, l.advice, l.out, l.cut = true, l.now(), "", "", nil, make(chan struct{})
	delete(l.told, l.url.Redacted())
	l.shown, l.offered, l.wanted = map[wire.Name][]byte{}, map[wire.Name]offer{}, nil
	l.answered, l.back = nil, readBack{}
	cut := l.cut
	l.mu.Unlock()
	l.log.Info("broker_connected", "broker", l.url.Redacted())

	if l.broker.User == "" {
		client.Subscribe(wire.RefusalTopic, 0, nil) // a broker that grants it or not is as good
	}
	var wg sync.WaitGroup
	failed := make(chan error, 2)
	for _, f := range []func(context.Context, mqtt.Client) error{l.subscriber, l.publisher} {
		wg.Go(func() {
			defer func() {
				if r := recover(); r != nil {
					failed <- l.faulted(r)
				}
			}()
			if err := f(ctx, client); err != nil {
				failed <- err
			}
		})
	}
	select {
	case err = <-lost:
	case err = <-failed:
	case <-cut:
		l.mu.Lock()
		err = l.cutWhy
		l.mu.Unlock()
	case <-ctx.Done():
		err = ctx.Err()
	}
	cancel()
	client.Disconnect(0)
	wg.Wait()
	return err
}

// refuses notes why the broker does not keep what we publish.
func (l *link) refuses(notice []byte) {
	r, err := wire.ParseRefusal(notice)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusal.Reason != r.Reason {
		l.log.Warn("broker_refuses", "broker", l.url.Redacted(), "reason", r.Reason, "topic", r.Topic)
	}
	l.refusal, l.refusedAt = r, l.now()
}

// refusalShown is for how long a refusal is news: a message that is still
// missing is sent, and refused, again before that.
const refusalShown = 10 * time.Minute

// faulted logs a panic and makes an error of it.
func (l *link) faulted(r any) error {
	l.log.Error("link_failed", "broker", l.address(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
	return fmt.Errorf("a fault of ours: %v", r)
}

func (l *link) options(ctx context.Context, guard *atomic.Pointer[mqttguard.Conn], lost chan<- error) *mqtt.ClientOptions {
	id, user, password := l.login(l.url.Hostname(), l.now())
	if l.broker.User != "" {
		user, password = l.broker.User, l.broker.Password
	}
	o := mqtt.NewClientOptions().AddBroker(l.url.String()).SetClientID(id).SetUsername(user).SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).SetOrderMatters(true)
	o.SetConnectTimeout(connectTimeout).SetKeepAlive(keepAlive).SetPingTimeout(pingTimeout).SetWriteTimeout(writeTimeout)
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
		g, err := dial(u, l.tls(u), connectTimeout)
		if err != nil {
			return nil, err
		}
		guard.Store(g)
		return g, nil
	})
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) {
		select {
		case lost <- err:
		default:
		}
	})
	// One handler for all: the library's own routing costs time for every
	// filter and message.
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		if m.Topic() == wire.RefusalTopic {
			l.refuses(m.Payload())
			return
		}
		select {
		case l.in <- packet{l, m.Topic(), m.Payload(), m.Retained()}:
		case <-ctx.Done():
		}
		select {
		case l.arrive <- struct{}{}:
		default:
		}
	})
	return o
}

// wait waits for a token. A token that completes is no receipt, but one that
// fails is a failure.
func wait(ctx context.Context, t mqtt.Token, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-t.Done():
		return t.Error()
	case <-timer.C:
		return errors.New("the broker does not answer")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// publish queues retained messages. What is queued while the link is down is
// dropped: after connecting, the session finds out what the broker lacks.
func (l *link) publish(out []outgoing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected {
		return
	}
	l.back.published(out, l.now())
	l.out = append(l.out, out...)
	if len(l.out) > outMost {
		l.out = nil
		l.giveUp(errNotTaken)
		return
	}
	select {
	case l.outReady <- struct{}{}:
	default:
	}
}

// publisher sends what is queued, in order, with a window of unacknowledged
// messages.
func (l *link) publisher(ctx context.Context, c mqtt.Client) error {
	var tokens []mqtt.Token
	for {
		l.mu.Lock()
		var next *outgoing
		if len(l.out) > 0 {
			next, l.out = &outgoing{l.out[0].name, l.out[0].payload}, l.out[1:]
		}
		l.mu.Unlock()
		if next == nil {
			for _, t := range tokens {
				if err := wait(ctx, t, ackTimeout); err != nil {
					return fmt.Errorf("publishing: %w", err)
				}
			}
			tokens = tokens[:0]
			select {
			case <-l.outReady:
			case <-ctx.Done():
				return nil
			}
			continue
		}
		if len(tokens) >= inFlight {
			if err := wait(ctx, tokens[0], ackTimeout); err != nil {
				return fmt.Errorf("publishing: %w", err)
			}
			tokens = slices.Delete(tokens, 0, 1)
		}
		payload := next.payload
		if payload == nil {
			payload = []byte{}
		}
		tokens = append(tokens, c.Publish(next.name.String(), 1, true, payload))
		l.mu.Lock()
		l.sent++
		l.mu.Unlock()
	}
}

// want sets the subscriptions. base is what the link listens to all the time,
// fetch what is wanted now; a higher attempt asks for it again.
func (l *link) want(base map[string]int, generation int, fetch map[string]int) {
	l.mu.Lock()
	l.base, l.baseGen, l.fetch = base, generation, fetch
	l.mu.Unlock()
	select {
	case l.subReady <- struct{}{}:
	default:
	}
}

// move gives the connection up for the broker's next address if something has
// been missing at this one for long. One node of a cluster may have what
// another has lost: by its source, a NATS server's index of the retained
// messages lives on one node, which need not be itself.
func (l *link) move(missing bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.urls) < 2 || !l.connected:
		return
	case !missing && l.back.lost == 0:
		l.moves = 0
		return
	}
	stay := min(moveMost, moveLeast<<min(l.moves, 10))
	if now.Sub(l.since) < stay || now.Sub(l.moved) < stay && !now.Before(l.moved) {
		return
	}
	l.moved, l.moves = now, l.moves+1
	l.giveUp(errMissing)
}

// giveUp ends the connection. l.mu is held.
func (l *link) giveUp(why error) {
	select {
	case <-l.cut:
	default:
		l.cutWhy = why
		close(l.cut)
	}
}

// Why a link is cut.
var (
	errNotTaken = errors.New("the broker does not take what we publish")
	errMissing  = errors.New("what should be there is missing; the next address is tried")
)

// subscriber makes the broker's idea of our subscriptions what want says.
func (l *link) subscriber(ctx context.Context, c mqtt.Client) error {
	have, fetched := map[string]bool{}, map[string]int{}
	generation, first := -1, true
	refused, again := map[string]bool{}, backoffTimer{least: refusedLeast, most: refusedMost}
	defer again.stop()
	for {
		l.mu.Lock()
		base, gen, fetch := l.base, l.baseGen, l.fetch
		l.mu.Unlock()
		var add, drop []string
		if gen != generation {
			for t := range base {
				if !have[t] {
					add = append(add, t)
				}
			}
			for t := range have {
				if _, ok := base[t]; !ok {
					drop = append(drop, t)
				}
			}
			generation = gen
		}
		for t, attempt := range fetch {
			if was, ok := fetched[t]; !ok && !slices.Contains(add, t) || ok && was != attempt {
				add = append(add, t)
			}
			fetched[t] = attempt
		}
		for t := range fetched {
			if _, ok := fetch[t]; !ok {
				delete(fetched, t)
				if _, ok := base[t]; !ok {
					drop = append(drop, t)
				}
			}
		}
		for t := range refused {
			_, inBase := base[t]
			_, inFetch := fetch[t]
			switch {
			case !inBase && !inFetch:
				delete(refused, t)
			case again.due && !slices.Contains(add, t):
				add = append(add, t)
			}
		}
		slices.Sort(add)
		if err := l.unsubscribe(ctx, c, drop); err != nil {
			return err
		}
		for _, t := range drop {
			delete(have, t)
		}
		if err := l.subscribe(ctx, c, add, base, refused); err != nil {
			return err
		}
		again.set(len(refused) > 0)
		l.mu.Lock()
		l.refused = len(refused)
		l.answered = maps.Clone(fetched)
		for t := range refused {
			delete(l.answered, t)
		}
		l.mu.Unlock()
		for _, t := range add {
			if _, ok := base[t]; ok {
				have[t] = true
			}
		}
		if first && gen > 0 {
			first = false
			select {
			case l.up <- l:
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-l.subReady:
		case <-again.c():
			again.due = true
		case <-ctx.Done():
			return nil
		}
	}
}

// A backoffTimer is due after a pause that doubles while it stays set.
type backoffTimer struct {
	least, most time.Duration
	due         bool // the pause is over; set begins the next

	pause time.Duration
	timer *time.Timer
}

// set begins a pause unless one lasts, or ends them.
func (b *backoffTimer) set(on bool) {
	switch {
	case !on:
		b.stop()
		b.pause, b.due, b.timer = 0, false, nil
	case b.timer == nil || b.due:
		b.pause = min(b.most, max(b.least, 2*b.pause))
		b.due, b.timer = false, time.NewTimer(b.pause)
	}
}

func (b *backoffTimer) stop() {
	if b.timer != nil {
		b.timer.Stop()
	}
}

func (b *backoffTimer) c() <-chan time.Time {
	if b.timer == nil {
		return nil
	}
	return b.timer.C
}

func (l *link) unsubscribe(ctx context.Context, c mqtt.Client, topics []string) error {
	for part := range slices.Chunk(topics, 100) {
		if err := wait(ctx, c.Unsubscribe(part...), ackTimeout); err != nil {
			return fmt.Errorf("unsubscribing: %w", err)
		}
	}
	return nil
}

// subscribe asks in batches, each after the retained messages of the one
// before have come, and notes what the broker refuses.
func (l *link) subscribe(ctx context.Context, c mqtt.Client, topics []string, weights map[string]int, refused map[string]bool) error {
	for len(topics) > 0 {
		batch, weight := map[string]byte{}, 0
		for len(topics) > 0 && (len(batch) == 0 || weight+max(1, weights[topics[0]]) <= subscribeWeight) {
			weight += max(1, weights[topics[0]])
			batch[topics[0]] = 1
			topics = topics[1:]
		}
		t := c.SubscribeMultiple(batch, nil)
		if err := wait(ctx, t, ackTimeout); err != nil {
			return fmt.Errorf("subscribing: %w", err)
		}
		if t, ok := t.(*mqtt.SubscribeToken); ok {
			one, more := "", 0
			for topic, code := range t.Result() {
				if code != 0x80 {
					delete(refused, topic)
				} else if !refused[topic] {
					refused[topic] = true
					one, more = topic, more+1
				}
			}
			if more > 0 {
				l.log.Warn("subscriptions_refused", "broker", l.address(), "number", more, "one", one)
			}
		}
		if len(topics) > 0 {
			l.settle(ctx)
		}
	}
	return nil
}

// settle waits until nothing has arrived for a moment.
func (l *link) settle(ctx context.Context) {
	most := time.NewTimer(subscribeWait)
	defer most.Stop()
	quiet := time.NewTimer(subscribeQuiet)
	defer quiet.Stop()
	for {
		select {
		case <-l.arrive:
			quiet.Reset(subscribeQuiet)
		case <-quiet.C:
			return
		case <-most.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// wantIfNew is want, unless nothing has changed.
func (l *link) wantIfNew(base map[string]int, generation int, fetch map[string]int) {
	l.mu.Lock()
	same := l.baseGen == generation && l.wanted != nil && maps.Equal(l.wanted, fetch)
	l.wanted = fetch
	l.mu.Unlock()
	if !same {
		l.want(base, generation, fetch)
	}
}

func (l *link) alive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connected
}

// connection numbers the connections of the link.
func (l *link) connection() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation
}

// An offer is what was last sent of our card or a document, and when.
type offer struct {
	raw []byte
	at  time.Time
}

// showPatience is how long a broker has to show what was sent to it.
const showPatience = 10 * time.Second

// saw notes what the broker shows of our card and documents.
func (l *link) saw(n wire.Name, raw []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown != nil {
		l.shown[n] = raw
	}
}

// lacks says whether our card or a document of ours should be published to the
// broker now: it has shown none or another one for a while.
func (l *link) lacks(n wire.Name, raw []byte, again bool, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.connected || now.Sub(l.since) < fenceWait || !again && bytes.Equal(l.shown[n], raw) {
		return false
	}
	if o := l.offered[n]; bytes.Equal(o.raw, raw) && now.Sub(o.at) < showPatience {
		return false
	}
	l.offered[n] = offer{raw, now}
	return true
}

// status gives the link's standing.
func (l *link) status() BrokerStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	var refusal wire.Refusal
	if l.refusal.Reason != "" && l.now().Sub(l.refusedAt).Abs() < refusalShown {
		refusal = l.refusal
	}
	return BrokerStatus{URL: l.url.Redacted(), Connected: l.connected, Health: l.health, Since: l.since, Error: l.lastError, Advice: l.advice, Queued: len(l.out), Refused: l.refused, Lost: l.back.lost, Refusal: refusal}
}

// Health is how a broker treats us.
type Health string

// Healths. The first is that of a link that did not get to an answer yet.
const (
	HealthUnknown     Health = ""
	HealthConnected   Health = "connected"
	HealthUnreachable Health = "unreachable" // or it refuses us; Error says why
	HealthMisbehaving Health = "misbehaving" // it sends what no MQTT broker may send
)

// A BrokerStatus says how the connection to a broker stands.
type BrokerStatus struct {
	URL       string    `json:"url"`
	Connected bool      `json:"connected"`
	Health    Health    `json:"health"`
	Since     time.Time `json:"since,omitzero"` // of the last connection
	Error     string    `json:"error,omitempty"`
	Advice    string    `json:"advice,omitempty"` // what a person can do about it
	Queued    int       `json:"queued"`
	Refused   int       `json:"refused,omitempty"` // subscriptions that it refuses; asked again
	Lost      int       `json:"lost,omitempty"`    // messages that it acknowledged and does not keep; sent again
	// Refusal is why it keeps none of some messages, as it says itself; zero
	// where it said nothing.
	Refusal wire.Refusal `json:"refusal,omitzero"`
}
