package federation

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/url"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"banmesh/internal/ban"
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
	// Avoid says whether an address, of URL or Others, is to be left for another one
	// if there is any that it does not name; nil names none. It is called often
	// and must not block.
	Avoid func(address string) bool
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
	// stock brokers drop messages beyond a queue of 1,000.
	subscribeWeight = 256
	// subscribeQuiet ends the wait for a SUBSCRIBE's retained messages,
	// subscribeWait bounds it.
	subscribeQuiet = 20 * time.Millisecond
	subscribeWait  = 500 * time.Millisecond
	// refusedLeast and refusedMost are the pause before a topic that a broker refused is
	// asked for again: a cluster refuses while it elects a leader, and an
	// administrator changes access rules.
	refusedLeast = time.Second
	refusedMost  = 5 * time.Minute
	// moveLeast and moveMost are how long an address has to hand out messages that are
	// missing before the next address of the broker is tried. The pause doubles
	// each time: mostly nobody has it.
	moveLeast = 30 * time.Second
	moveMost  = time.Hour
	// penaltyLeast and penaltyMost are the pause after a broker was disconnected
	// because it delivers bad messages.
	penaltyLeast = time.Minute
	penaltyMost  = time.Hour
	// goodbyeLeast and goodbyeMost are the pause after a broker stopped in order,
	// at random, so that one that comes back meets its agents one after the other.
	goodbyeLeast = time.Second
	goodbyeMost  = 10 * time.Second
	// inFlight is how many publishes wait for their acknowledgement.
	inFlight = 64
	// outMost is how many messages wait for a connected broker that does not
	// take them; then the link is cut, and its gaps are found anew.
	outMost = 16384
)

// A link is the connection to one broker. It reconnects for ever.
type link struct {
	index      int
	broker     Broker
	urls       []*url.URL
	url        *url.URL // the one in use; mu
	login      func(host string, now time.Time) (client, user, password string)
	now        func() time.Time
	log        *slog.Logger
	in         chan<- packet
	up         chan<- *link // told after each SUBACK of the first subscriptions
	compare    func(*wire.Index) (unheard map[ban.Operator]bool, ok bool)
	indexTopic string        // begins the topics of the broker's index
	arrive     chan struct{} // a retained message came
	bad        allowance     // of messages that do not verify; the session's lock

	mu         sync.Mutex
	out        []outgoing
	outReady   chan struct{}
	base       listening // replaced, never changed
	baseGen    int
	fetch      map[string]int // filter to attempt; replaced, never changed
	subReady   chan struct{}
	connected  bool
	since      time.Time
	health     Health
	theirs     *wire.Index // the broker's index, while it is asked for
	indexHere  chan struct{}
	leaving    bool                 // the broker has said that it stops
	rest       func() time.Duration // before a broker that stopped in order is tried again
	refusal    wire.Refusal         // of our publications on this connection, the last one
	refusedAt  time.Time
	lastError  string
	advice     string            // about lastError
	told       map[string]string // the last logged line of each address that failed
	cut        chan struct{}     // closed to give the connection up
	cutWhy     error
	misbehaved int // how often the broker was disconnected for the messages that it delivered
	generation int
	sent       uint64
	shown      map[wire.Name][]byte // our card and documents as the broker last showed them
	offered    map[wire.Name]offer
	wanted     map[string]int
	refused    map[string]bool // filters that the broker refuses; replaced, never changed
	answered   map[string]int  // filter of fetch to the attempt that the broker has taken; replaced, never changed
	back       readBack
	unanswered sentAt
	contended  int       // connections in a row that the broker ended soon
	moved      time.Time // to another address, by choice
	moves      int
	failures   int // attempts in a row that made no connection
}

func newLink(index int, b Broker) (*link, error) {
	l := &link{index: index, outReady: make(chan struct{}, 1), subReady: make(chan struct{}, 1), arrive: make(chan struct{}, 1), bad: allowance{burst: badBurst, second: badSecond}, rest: restAfterGoodbye}
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
	l.mu.Lock()
	if l.avoided(l.url) {
		l.url = l.next()
	}
	l.mu.Unlock()
	for ctx.Err() == nil {
		started := l.now()
		err, made := l.session(ctx), false
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		made = l.connected
		lasted := l.now().Sub(l.since)
		ours := l.cutWhy != nil && errors.Is(err, l.cutWhy)
		l.mu.Unlock()
		if !ours {
			l.ended(made, lasted)
		}
		l.attempted(made)
		l.failed(err)
		if l.now().Sub(started) > backoffMost {
			wait = backoffLeast
		}
		wait = max(wait, l.penalty(err))
		// Jitter, so that a broker that comes back is not met by everybody.
		pause := wait/2 + rand.N(wait)
		if l.tookLeave(err) {
			pause = l.rest()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		wait = min(2*wait, max(backoffMost, wait))
		l.mu.Lock()
		l.url = l.next()
		l.mu.Unlock()
	}
}

// restAfterGoodbye is the pause after a broker stopped in order.
func restAfterGoodbye() time.Duration { return goodbyeLeast + rand.N(goodbyeMost-goodbyeLeast) }

// tookLeave says whether the broker ended the connection in order.
func (l *link) tookLeave(err error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leaving || errors.Is(err, mqttguard.ErrGoodbye)
}

// failed notes why the connection could not be made, or was lost, and logs it
// unless that was the last that was logged of the address.
func (l *link) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connected, l.lastError, l.out, l.refused = false, err.Error(), nil, nil
	l.health = HealthUnreachable
	if misbehaving(err) {
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
	l.health, l.refusal, l.leaving = HealthConnected, wire.Refusal{}, false
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

// refuses notes why the broker does not keep our messages.
func (l *link) refuses(notice []byte) {
	r, err := wire.ParseRefusal(notice)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refusal.Reason != r.Reason && r.Reason != wire.RefusedLeaving {
		l.log.Warn("broker_refuses", "broker", l.url.Redacted(), "reason", r.Reason, "topic", r.Topic)
	}
	if r.Reason == wire.RefusedLeaving {
		l.leaving = true
		return
	}
	if r.Reason == wire.RefusedTaken {
		l.contended = contendedFrom
		return
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
		if l.indexTopic != "" && strings.HasPrefix(m.Topic(), l.indexTopic) {
			l.indexed(m.Payload())
			return
		}
		select {
		case l.in <- packet{l, m.Topic(), m.Payload(), m.Retained()}:
		case <-ctx.Done():
		}
		if !m.Retained() {
			return
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

// move gives the connection up for the broker's next address if something has
// been missing at this one for long. One node of a cluster may have what
// another has lost: by its source, a NATS server's index of the retained
// messages lives on one node, which need not be itself.
//
// A feed of which nothing was ever seen (unseen) may not exist: every address is
// tried once for it.
func (l *link) move(missing, unseen bool, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(l.urls) < 2 || !l.connected:
		return
	case !missing && !unseen && l.back.lost == 0:
		l.moves = 0
		return
	case !missing && l.back.lost == 0 && l.moves >= len(l.urls):
		return
	}
	stay := min(moveMost, moveLeast<<min(l.moves, 10))
	if now.Sub(l.since) < stay || now.Sub(l.moved) < stay && !now.Before(l.moved) {
		return
	}
	l.moved, l.moves = now, l.moves+1
	l.giveUp(errMissing)
}

// misbehaves disconnects a broker that delivers too many bad messages.
func (l *link) misbehaves() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.connected {
		l.giveUp(errBad)
	}
}

// misbehaving says whether a connection ended because no honest broker sends
// the packets or messages that came.
func misbehaving(err error) bool {
	return errors.Is(err, errBad) || errors.Is(err, mqttguard.ErrMisbehaving)
}

// reconnect ends the connection so that the next one begins at once.
func (l *link) reconnect(why error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.connected {
		l.giveUp(why)
	}
}

// penalty is how long to stay away from a broker that delivered bad messages. It
// doubles each time.
func (l *link) penalty(err error) time.Duration {
	if !errors.Is(err, errBad) {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.misbehaved++
	return min(penaltyMost, penaltyLeast<<min(l.misbehaved-1, 10))
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
	errMissing  = errors.New("messages that should be there are missing; the next address is tried")
	errClock    = errors.New("the clock was set: what the broker has is asked for again")
	errBad      = errors.New("the broker misbehaves: it delivers many messages that nobody signed")
)

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
