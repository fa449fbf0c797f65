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
//	if bans.Denied(sender) {
//		return errDenied
//	}
//
// A nil or zero Client bans nobody and takes no reports, so a program for which
// the agent is optional needs no case for it.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultSocket is where the agent answers programs. It takes no commands: who
// may ask there can neither ban nor lift. [query] of agent.toml names the users.
const DefaultSocket = "/run/banmesh/query.sock"

// Errors that a program may tell apart; they come wrapped.
var (
	// ErrNoTopics says that [Options] name no topic: a program that refuses
	// clients says for which reasons.
	ErrNoTopics = errors.New("no topics are named")
	// ErrBadTopic says that a topic's name is none.
	ErrBadTopic = errors.New("not a topic")
	// ErrNotReady says that there was no complete snapshot in time.
	ErrNotReady = errors.New("the agent's bans are not known yet")
	// ErrRefused says that the agent does not answer this user.
	ErrRefused = errors.New("the agent does not answer this user: users in [query] of agent.toml")
	// ErrClosed says that the client was closed.
	ErrClosed = errors.New("the client is closed")
)

// Options say how to reach the agent and which of its bans to keep.
type Options struct {
	// Socket is the path of the agent's unix socket; "" means [DefaultSocket].
	Socket string
	// Topics are the topics to keep, at least one.
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

	bans   atomic.Pointer[bans] // read by the checks; never nil
	clock  atomic.Int64         // seconds since the Unix epoch, at most a second old
	ready  chan struct{}        // closed with the first complete snapshot
	closed <-chan struct{}      // closed when the client has ended
	queue  chan queued

	mu        sync.Mutex
	status    Status
	err       error // why it is not connected
	listeners map[int]func(Change)
	sweeps    map[int]func()
	last      int // key in listeners and sweeps
}

// Open begins to follow the agent. It fails only for options that make no
// sense: when the agent is not running the client is empty, bans nobody, and
// fills as soon as the agent answers; see [Client.WaitReady]. The client ends
// with ctx or with [Client.Close].
func Open(ctx context.Context, o Options) (*Client, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	if len(o.Topics) == 0 {
		return nil, fmt.Errorf("client: %w", ErrNoTopics)
	}
	for _, topic := range o.Topics {
		if !isTopic(topic) {
			return nil, fmt.Errorf("client: %.64q: %w", topic, ErrBadTopic)
		}
	}
	o.Topics = slices.Clone(o.Topics)
	c := &Client{
		options:   o,
		log:       o.Logger,
		ready:     make(chan struct{}),
		queue:     make(chan queued, maxQueue),
		listeners: make(map[int]func(Change)),
		sweeps:    make(map[int]func()),
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	c.bans.Store(newBans())
	c.clock.Store(time.Now().Unix())
	ctx, c.cancel = context.WithCancel(ctx)
	c.closed = ctx.Done()
	for _, part := range []func(context.Context){c.follow, c.report, c.tick} {
		c.running.Add(1)
		go func() {
			defer c.running.Done()
			part(ctx)
		}()
	}
	return c, nil
}

// Close ends the client and waits for its goroutines. Checks still answer from
// the known bans.
func (c *Client) Close() error {
	if c == nil || c.cancel == nil {
		return nil
	}
	c.cancel()
	c.running.Wait()
	return nil
}

// Banned says whether an address is banned, by itself or by a prefix around it.
// IPv4 in IPv6 counts as IPv4. The invalid address is not banned.
func (c *Client) Banned(a netip.Addr) bool {
	b := c.known()
	return b != nil && b.ip(a, c.clock.Load(), nil)
}

// Denied says whether an Ethereum address is banned. go-ethereum's
// common.Address converts to the argument.
func (c *Client) Denied(wallet [20]byte) bool {
	b := c.known()
	return b != nil && b.wallet(wallet, c.clock.Load(), nil)
}

// LookupIP gives every ban that covers an address, the longest prefix first.
func (c *Client) LookupIP(a netip.Addr) (found []Ban) {
	if b := c.known(); b != nil {
		b.ip(a, c.clock.Load(), &found)
	}
	return found
}

// LookupWallet gives every ban of an Ethereum address.
func (c *Client) LookupWallet(wallet [20]byte) (found []Ban) {
	if b := c.known(); b != nil {
		b.wallet(wallet, c.clock.Load(), &found)
	}
	return found
}

// known gives the bans, nil of a nil or zero client.
func (c *Client) known() *bans {
	if c == nil {
		return nil
	}
	return c.bans.Load()
}

// A Ban is why a target is banned.
type Ban struct {
	// Target is banned: an address, a prefix, or a wallet in the spelling of
	// EIP-55.
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
	b := c.known()
	if b == nil {
		return Status{Error: ErrClosed.Error()}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Bans = b.len()
	return s
}

// WaitReady waits for the first complete snapshot. It fails with [ErrNotReady]
// and the reason when ctx ends first, and with [ErrClosed] on a client that
// was closed before or never opened.
func (c *Client) WaitReady(ctx context.Context) error {
	if c.known() == nil {
		return fmt.Errorf("client: %w", ErrClosed)
	}
	select {
	case <-c.ready:
		return nil
	default:
	}
	select {
	case <-c.ready:
		return nil
	case <-c.closed:
		return fmt.Errorf("client: %w", ErrClosed)
	case <-ctx.Done():
		c.mu.Lock()
		err := c.err
		c.mu.Unlock()
		return fmt.Errorf("client: %w: %w", ErrNotReady, errors.Join(context.Cause(ctx), err))
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
	if c.known() == nil {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	key := c.last
	c.listeners[key] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.listeners, key)
	}
}

// watch calls f after every change that bans somebody.
func (c *Client) watch(f func()) (stop func()) {
	if c.known() == nil {
		return func() {}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	key := c.last
	c.sweeps[key] = f
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.sweeps, key)
	}
}

// notify calls the listeners without the lock, so that they may use the client.
func (c *Client) notify(change func() Change) {
	c.mu.Lock()
	var all []func(Change)
	for _, f := range c.listeners {
		all = append(all, f)
	}
	var sweeps []func()
	for _, f := range c.sweeps {
		sweeps = append(sweeps, f)
	}
	c.mu.Unlock()
	for _, f := range sweeps {
		f()
	}
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
