// Package broker is the community broker: an MQTT 3.1.1 server that offers a
// network of signed feeds to strangers, needs no trust from them and trusts
// none of them.
//
// It is an unmodified mochi-mqtt engine for sessions and the protocol's
// answers, behind a guard of ours. The guard reads whole, checked packets,
// never blocks on a client that does not read, and takes over the work that the engine
// does at too high a cost: matching, handing out, retaining. One hook decides
// which publications are admitted. This is the only home of mochi.
package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/prometheus/client_golang/prometheus"

	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
	"banmesh/internal/wire"
)

// A Broker serves one network. [New] opens its state and its listeners, so
// that faults and addresses are known; [Broker.Run] serves.
type Broker struct {
	options     Options
	limits      Limits
	prefix      string // of every filter that a client may read
	maxQoS      byte
	log         *slog.Logger
	now         func() time.Time
	registry    *prometheus.Registry
	count       *counters
	store       *retained.Store
	admission   *admission
	banned      *banList
	passwords   *passwords
	sessions    sessionTable
	index       index
	feedIndexes feedIndexes
	perIP       perIPLimit
	engine      *mqtt.Server
	flush       flushers
	listeners   []*listener
	connecting  chan struct{}
	telling     chan struct{} // those who hear that there is no place for their address
	started     time.Time

	open     atomic.Int64 // connections that may become clients
	accepted atomic.Int64 // those of listeners, before that
	serial   atomic.Uint64

	heldMu  sync.Mutex
	heldAll int           // bytes of filters
	held    map[payer]int // the same, by who is charged

	unsettledMu sync.Mutex
	unsettled   map[*conn]struct{} // with acknowledgements that wait for the disk

	connsMu sync.Mutex
	conns   map[*conn]struct{}
	closing bool
	work    sync.WaitGroup // connections, and drains of their buffers
}

// stateFile and bannedFile are in the state directory.
const (
	stateFile  = "retained.db"
	bannedFile = "banned.txt"
)

// New checks the options, opens the state and the listeners, and starts
// nothing. A broker that is never run must be closed.
func New(o Options) (b *Broker, err error) {
	if len(o.Listeners) == 0 {
		return nil, errors.New("a broker needs a listener")
	}
	if o.Network != "" {
		if err := wire.CheckNetwork(o.Network); err != nil {
			return nil, fmt.Errorf("the network's name: %w", err)
		}
	}
	for name, u := range o.Users {
		if err := CheckHash(u.Hash); err != nil {
			return nil, fmt.Errorf("user %s: %w", name, err)
		}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	b = &Broker{
		options: o, limits: o.Limits.defaults(), prefix: wire.Prefix, maxQoS: 1,
		log: o.Log, now: o.Now, registry: o.Registry, count: newCounters(o.Registry),
		passwords: newPasswords(), sessions: sessionTable{byID: map[string]*session{}}, perIP: newPerIPLimit(),
		flush: newFlushers(max(2, runtime.GOMAXPROCS(0))), conns: map[*conn]struct{}{}, unsettled: map[*conn]struct{}{}, held: map[payer]int{}, started: o.Now(),
	}
	if o.Network != "" {
		b.prefix += o.Network + "/"
	}
	if o.Open {
		b.maxQoS = 2
	}
	b.limits.Connections = min(b.limits.Connections, descriptors()-ownDescriptors)
	b.telling = make(chan struct{}, tellMost)
	b.connecting = make(chan struct{}, b.limits.Connecting)
	defer func() {
		if err != nil {
			_ = b.Close()
			b = nil
		}
	}()
	if err = b.openState(); err != nil {
		return b, err
	}
	b.gauges(o.Registry)
	o.Registry.MustRegister(newCertificateEnds(b))
	if err = b.openEngine(); err != nil {
		return b, err
	}
	for _, l := range o.Listeners {
		if err = b.listen(l); err != nil {
			return b, err
		}
	}
	return b, nil
}

func (b *Broker) openState() (err error) {
	dir, file, banned := b.options.StateDir, "", ""
	if dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the state directory: %w", err)
		}
		file, banned = filepath.Join(dir, stateFile), filepath.Join(dir, bannedFile)
	}
	if b.banned, err = openBanList(banned); err != nil {
		return err
	}
	who := owner
	if b.options.Open {
		who = nil
	}
	if b.store, err = retained.Open(file, who, b.log); err != nil {
		return err
	}
	b.store.OnDurable(b.settled)
	b.admission = newAdmission(b.options.Network, b.options.Operators, b.limits, b.store, b.banned)
	b.admission.vouch(b.options.Vouched)
	b.admission.load()
	return nil
}

// openEngine makes the engine with every capability said: its own defaults are
// none, or surprising.
func (b *Broker) openEngine() error {
	const forEver = 1 << 30 // seconds between its $SYS messages, which nobody may read
	b.engine = mqtt.New(&mqtt.Options{
		Logger:                  slog.New(slog.DiscardHandler), // it logs payloads and addresses
		SysTopicResendInterval:  forEver,
		ClientNetReadBufferSize: 512, // it reads through the guard, which has buffers
		Capabilities: &mqtt.Capabilities{
			MaximumClients:               int64(b.limits.Connections) + 1, // the guard counts
			MaximumMessageExpiryInterval: 0,                               // 0: nothing expires by accident
			MaximumClientWritesPending:   16,                              // it hands nothing out
			MaximumSessionExpiryInterval: uint32(b.limits.SessionTime / time.Second),
			MaximumPacketSize:            uint32(b.limits.MaxPacket),
			ReceiveMaximum:               1024,
			MaximumInflight:              maxInflight,
			TopicAliasMaximum:            0,
			SharedSubAvailable:           0,
			MinimumProtocolVersion:       frame.Level311,
			MaximumQos:                   b.maxQoS,
			RetainAvailable:              1,
			WildcardSubAvailable:         1,
			SubIDAvailable:               0,
		},
	})
	return b.engine.AddHook(&hook{b: b}, nil)
}

// Addr gives the address of the first listener.
func (b *Broker) Addr() net.Addr { return b.listeners[0].Addr() }

// Addrs gives the addresses of the listeners, in the order of the options.
func (b *Broker) Addrs() []net.Addr {
	out := make([]net.Addr, len(b.listeners))
	for i, l := range b.listeners {
		out[i] = l.Addr()
	}
	return out
}

// Close releases the files and listeners of New, for a broker that is not run.
func (b *Broker) Close() error {
	for _, l := range b.listeners {
		l.close()
	}
	if b.store == nil {
		return nil
	}
	done, cancel := context.WithCancel(context.Background())
	cancel()
	return b.store.Run(done)
}

// Run serves until ctx ends, then drains: it takes no more clients, makes
// durable and acknowledges the publications that it admitted, and says goodbye to its clients
// over the drain time. It waits for every goroutine that it started. The
// result is nil unless something broke.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.engine.Serve(); err != nil {
		_ = b.Close()
		return fmt.Errorf("starting the engine: %w", err)
	}
	background, stop := context.WithCancel(context.Background())
	quit := make(chan struct{})
	var helpers sync.WaitGroup
	for _, f := range b.flush {
		helpers.Go(func() { f.run(quit) })
	}
	stored := make(chan error, 1)
	go func() { stored <- b.store.Run(background) }()
	helpers.Go(func() { b.collect(background) })
	helpers.Go(func() { b.relieve(background) })
	helpers.Go(func() { b.watchCertificates(background) })
	var accepting sync.WaitGroup
	for _, l := range b.listeners {
		accepting.Go(func() { l.serve(b) })
	}
	b.log.Info("serving", "network", b.options.Network, "listeners", len(b.listeners), "retained", b.store.Status().Messages)

	<-ctx.Done()
	b.log.Info("draining", "clients", b.open.Load())
	for _, l := range b.listeners {
		l.close()
	}
	accepting.Wait()
	b.goodbye()
	stop()
	err := <-stored
	b.work.Wait()
	close(quit)
	helpers.Wait()
	if stopErr := b.engine.Close(); err == nil {
		err = stopErr
	}
	b.log.Info("stopped")
	return err
}

// background runs f, and Run waits for it.
func (b *Broker) background(f func()) { b.work.Go(f) }

// admitConn adds a connection to those that are open, unless the broker is
// stopping or full.
func (b *Broker) admitConn(c *conn) (refused string) {
	b.connsMu.Lock()
	defer b.connsMu.Unlock()
	switch {
	case b.closing:
		return "shutting down"
	case len(b.conns) >= b.limits.Connections+2*tellMost:
		return "full"
	}
	b.conns[c] = struct{}{}
	b.open.Add(1)
	return ""
}

// serveConn carries a connection from its first byte to its end. Whatever
// happens to it stays its own.
func (b *Broker) serveConn(nc net.Conn) {
	c := newConn(b, nc, b.serial.Add(1))
	defer func() { _ = c.Close() }()
	if why := b.admitConn(c); why != "" {
		b.count.turnedAway.WithLabelValues(why).Inc()
		return
	}
	defer func() {
		if r := recover(); r != nil {
			b.count.panics.Inc()
			b.log.Error("the engine failed on a client", "client", c.who.String(), "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			b.forget(c)
		}
		b.sessions.end(c)
		b.unsettledMu.Lock()
		delete(b.unsettled, c)
		b.unsettledMu.Unlock()
		b.connsMu.Lock()
		delete(b.conns, c)
		b.connsMu.Unlock()
		b.open.Add(-1)
	}()
	b.count.connections.Inc()
	select {
	case b.connecting <- struct{}{}:
	default:
		b.count.turnedAway.WithLabelValues("too many are connecting").Inc()
		return
	}
	err := c.login()
	<-b.connecting
	if err != nil {
		b.turnAway(c, err)
		return
	}
	b.perIP.login(c.who, b.now())
	defer func() { b.perIP.logout(c.who, b.now()) }()
	b.log.Debug("client connected", b.attributes(c)...)
	_ = b.engine.EstablishConnection("guard", c)
	cause := "left"
	if p := c.cause.Load(); p != nil {
		cause = *p
	}
	b.log.Debug("client gone", append(b.attributes(c), "cause", cause)...)
}

// forget takes a client out of the engine, which after a panic does not do so
// itself.
func (b *Broker) forget(c *conn) {
	if c.session == nil {
		return
	}
	if cl, ok := b.engine.Clients.Get(c.session.id); ok && guarded(cl) == c {
		cl.Stop(errKicked)
		b.engine.UnsubscribeClient(cl)
		b.engine.Clients.Delete(cl.ID)
	}
}

// turnAway counts and answers a connection that did not become a client.
func (b *Broker) turnAway(c *conn, err error) {
	why := "broken"
	refusal, ok := errors.AsType[*errLogin](err)
	switch {
	case ok:
		why = refusal.why
	case isTimeout(err):
		why = "too slow"
	default:
		b.count.malformed(err)
	}
	b.count.turnedAway.WithLabelValues(why).Inc()
	b.log.Debug("client turned away", append(b.attributes(c), "reason", why)...)
	if ok { // it hears of it when it is counted
		c.refuse(refusal.code)
	}
}

// attributes say who a client is, in logs; addresses only where asked for.
func (b *Broker) attributes(c *conn) []any {
	out := []any{"client", c.who.String(), "connection", c.number}
	if b.options.LogAddresses && c.remote.IsValid() {
		out = append(out, "address", c.remote.Addr().String())
	}
	return out
}

// Registry gives the metrics.
func (b *Broker) Registry() *prometheus.Registry { return b.registry }

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

// removeSocket removes a unix socket that a dead broker left.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return fmt.Errorf("%s: another broker is listening there", path)
	}
	return os.Remove(path)
}
