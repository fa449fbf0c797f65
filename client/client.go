// Package client tells a Go program which addresses and wallets the Banmesh
// agent on the same machine has banned, and lets it report offences.
//
// A [Client] keeps a copy of the bans in memory and follows the agent's
// changes, so a check takes no lock, no system call and less than a
// microsecond. While the agent is down the client goes on with the bans that it knows
// until each ban ends, and [Client.Status] says so. It uses the standard
// library alone.
//
//	bans, err := client.Open(ctx, client.Options{Topics: []string{"livepeer", "broadcaster-addresses"}})
//	if err != nil {
//		return err
//	}
//	defer bans.Close()
//	if bans.Wallet(sender) {
//		return errDenied
//	}
package client

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSocket is where the agent answers programs and commands. Its
// permissions say who may ask, report and command.
const DefaultSocket = "/run/banmesh/agent.sock"

// Options say how to reach the agent and which of its bans to keep.
type Options struct {
	// Socket is the path of the agent's unix socket; "" means [DefaultSocket].
	Socket string
	// Topics are the topics to keep; none means all.
	Topics []string
	// Logger takes a line when the agent comes and goes; nil means none.
	Logger *slog.Logger
}

// A Client is a live copy of an agent's bans. Its methods may be called from
// several goroutines. Use [Open] to make one and [Client.Close] to end it.
type Client struct {
	options Options
	log     *slog.Logger
	cancel  context.CancelFunc
	running sync.WaitGroup

	bans  atomic.Pointer[bans] // read by the checks; never nil
	clock atomic.Int64         // seconds since the Unix epoch, at most a second old
	ready chan struct{}        // closed with the first complete snapshot
	queue chan queued

	mu        sync.Mutex
	status    Status
	listeners map[int]func(Change)
	listener  int // the last key in listeners
}

// Open begins to follow the agent. It fails only for options that make no
// sense: when the agent is not running the client is empty, bans nobody, and
// fills as soon as the agent answers; see [Client.WaitReady]. The client ends
// with ctx or with [Client.Close].
func Open(ctx context.Context, o Options) (*Client, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	for _, topic := range o.Topics {
		if !isTopic(topic) {
			return nil, fmt.Errorf("client: %.64q is not a topic", topic)
		}
	}
	o.Topics = slices.Clone(o.Topics)
	c := &Client{
		options:   o,
		log:       o.Logger,
		ready:     make(chan struct{}),
		queue:     make(chan queued, maxQueue),
		listeners: make(map[int]func(Change)),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.bans.Store(newBans())
	c.clock.Store(time.Now().Unix())
	ctx, c.cancel = context.WithCancel(ctx)
	c.running.Go(func() { c.follow(ctx) })
	c.running.Go(func() { c.report(ctx) })
	c.running.Go(func() { c.tick(ctx) })
	return c, nil
}

// Close ends the client and waits for its goroutines. Checks still answer from
// the known bans.
func (c *Client) Close() error {
	c.cancel()
	c.running.Wait()
	return nil
}

// IP says whether an address is banned, by itself or by a prefix around it.
// IPv4 in IPv6 counts as IPv4. The invalid address is not banned.
func (c *Client) IP(a netip.Addr) bool {
	return c.bans.Load().ip(a, c.clock.Load(), nil)
}

// Wallet says whether an Ethereum address is banned. go-ethereum's
// common.Address converts to the argument.
func (c *Client) Wallet(w [20]byte) bool {
	return c.bans.Load().wallet(w, c.clock.Load(), nil)
}

// LookupIP gives every ban that covers an address, the longest prefix first.
func (c *Client) LookupIP(a netip.Addr) (found []Ban) {
	c.bans.Load().ip(a, c.clock.Load(), &found)
	return found
}

// LookupWallet gives every ban of an Ethereum address.
func (c *Client) LookupWallet(w [20]byte) (found []Ban) {
	c.bans.Load().wallet(w, c.clock.Load(), &found)
	return found
}

// A Ban is why a target is banned.
type Ban struct {
	// Target is banned: an address, a prefix or "0x" and
	// lower-case hex.
	Target string
	Topic  string
	// Class is the kind of offence: "auth", "scan", "manual".
	Class string
	// Origin is "here" for a ban of the machine's own agent, "network" for one
	// that it took over from operators that its policy trusts.
	Origin string
	Until  time.Time
}

// Status is how much a [Client] can be relied on.
type Status struct {
	// Connected says that the agent was heard within the last half minute.
	Connected bool
	// Ready says that there was a complete snapshot since Open.
	Ready bool
	// Heard is when the agent last said something; zero is never.
	Heard time.Time
	// Error is why the client is not connected.
	Error string
	// Bans counts the bans that are known.
	Bans int
	// Reported and Dropped count offences: taken by the agent, and given up
	// because it was away or refused them.
	Reported, Dropped uint64
}

// Stale says that the client answers from its knowledge before it lost the
// agent: new bans and lifted ones are missing.
func (s Status) Stale() bool { return s.Ready && !s.Connected }

// Status says how much the client can be relied on now.
func (c *Client) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Bans = c.bans.Load().len()
	return s
}

// WaitReady waits for the first complete snapshot.
func (c *Client) WaitReady(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client: waiting for the agent: %w", context.Cause(ctx))
	}
}

// A Change of the bans.
type Change struct {
	Added  []Ban // new, or with another end
	Lifted []Ban // withdrawn; Topic and Target are set
	// Reset says that Added is the whole state.
	Reset bool
}

// OnChange calls f after every change, one call at a time, until stop is
// called: to end sessions that are under way when their client becomes banned.
// f must not block for long and must not call Close.
func (c *Client) OnChange(f func(Change)) (stop func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listener++
	key := c.listener
	c.listeners[key] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners, key)
	}
}

// notify calls the listeners without the lock, so that they may use the client.
func (c *Client) notify(change func() Change) {
	c.mu.Lock()
	var all []func(Change)
	for _, f := range c.listeners {
		all = append(all, f)
	}
	c.mu.Unlock()
	if len(all) == 0 {
		return
	}
	ch := change()
	for _, f := range all {
		f(ch)
	}
}

// tick keeps the clock of the checks, because asking the system for the time
// would cost more than the check.
func (c *Client) tick(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case now := <-t.C:
			c.clock.Store(now.Unix())
		case <-ctx.Done():
			return
		}
	}
}

// isTopic checks a topic's spelling: 1 to 32 of a-z, 0-9 and '-'.
func isTopic(s string) bool {
	if len(s) == 0 || len(s) > 32 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// addrOf gives the IP address of a network address, if it has one.
func addrOf(a net.Addr) (netip.Addr, bool) {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort().Addr(), a.AddrPort().Addr().IsValid()
	case *net.UDPAddr:
		return a.AddrPort().Addr(), a.AddrPort().Addr().IsValid()
	}
	if a == nil {
		return netip.Addr{}, false
	}
	ap, err := netip.ParseAddrPort(a.String())
	return ap.Addr(), err == nil
}
