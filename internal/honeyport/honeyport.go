// Package honeyport listens where the packet filter leads connections at closed
// ports to. Whoever finishes a handshake there is no passer-by: the address is
// not forged, and no honest client asks for a service that was never offered.
//
// Nothing is read, nothing is answered, and a connection is closed as soon as it
// is known where it was going to.
package honeyport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A Touch is a finished handshake at a honeyport.
type Touch struct {
	Peer netip.AddrPort
	Port uint16 // the port that was dialled
	At   time.Time
}

// Limits.
const (
	// perSecond and burst bound the touches that are told: a flood costs their
	// accepting and closing and no more. Who floods is banned by its first one.
	perSecond = 100
	burst     = 200
	// bindTries is how often a port is sought that both families have free.
	bindTries = 20
)

// A Listener takes the connections. Use [Listen] to make one.
type Listener struct {
	log       *slog.Logger
	listeners []*net.TCPListener
	port      uint16
	dropped   atomic.Uint64

	mu    sync.Mutex
	ports map[uint16]bool
	spare float64 // touches that may be told now
	last  time.Time
}

// Listen opens a listener on a port of the kernel's choice, of every address and
// both families. Connections that the packet filter did not lead there from one
// of some ports are closed and not told.
func Listen(ctx context.Context, log *slog.Logger) (*Listener, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &Listener{log: log, spare: burst, last: time.Now()}
	var config net.ListenConfig
	var err error
	for range bindTries {
		var four, six net.Listener
		if four, err = config.Listen(ctx, "tcp4", ":0"); err != nil {
			return nil, fmt.Errorf("listening for honeyports: %w", err)
		}
		l.port = netip.MustParseAddrPort(four.Addr().String()).Port()
		l.listeners = []*net.TCPListener{four.(*net.TCPListener)}
		six, err = config.Listen(ctx, "tcp6", fmt.Sprintf(":%d", l.port))
		switch {
		case err == nil:
			l.listeners = append(l.listeners, six.(*net.TCPListener))
			return l, nil
		case errors.Is(err, unix.EAFNOSUPPORT), errors.Is(err, unix.EADDRNOTAVAIL):
			return l, nil // a host without IPv6
		}
		_ = four.Close()
	}
	return nil, fmt.Errorf("listening for honeyports: %w", err)
}

// Port is where the packet filter has to lead connections.
func (l *Listener) Port() uint16 { return l.port }

// Dropped counts touches that came too fast to be told.
func (l *Listener) Dropped() uint64 { return l.dropped.Load() }

// Watch says at which ports a touch counts.
func (l *Listener) Watch(ports []uint16) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports = make(map[uint16]bool, len(ports))
	for _, p := range ports {
		l.ports[p] = true
	}
}

// Run tells of touches until ctx ends, and closes the listener then. told is
// called by one goroutine a family.
func (l *Listener) Run(ctx context.Context, told func(context.Context, Touch)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var group sync.WaitGroup
	errs := make([]error, len(l.listeners))
	for i, listener := range l.listeners {
		group.Go(func() { errs[i] = l.accept(ctx, listener, told) })
	}
	group.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return errors.Join(errs...)
}

// acceptRest is how long it waits where the process has no descriptor left.
const acceptRest = 100 * time.Millisecond

func (l *Listener) accept(ctx context.Context, listener *net.TCPListener, told func(context.Context, Touch)) error {
	for {
		c, err := listener.AcceptTCP()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			l.log.ErrorContext(ctx, "honeyport connection not accepted", slog.Any("error", err))
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(acceptRest):
			}
			continue
		}
		t, err := touchOf(c)
		_ = c.SetLinger(0) // a reset, and no state is left here
		_ = c.Close()
		if err == nil && l.counts(t) {
			told(ctx, t)
		}
	}
}

// counts says whether a touch is told.
func (l *Listener) counts(t Touch) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ports[t.Port] {
		return false
	}
	l.spare = min(burst, l.spare+perSecond*max(0, t.At.Sub(l.last).Seconds()))
	l.last = t.At
	if l.spare < 1 {
		l.dropped.Add(1)
		return false
	}
	l.spare--
	return true
}

// Close ends the listener.
func (l *Listener) Close() error {
	var errs []error
	for _, x := range l.listeners {
		if err := x.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// touchOf asks the kernel where a connection was going to.
func touchOf(c *net.TCPConn) (Touch, error) {
	remote, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return Touch{}, err
	}
	t := Touch{Peer: netip.AddrPortFrom(remote.Addr().Unmap().WithZone(""), remote.Port()), At: time.Now()}
	raw, err := c.SyscallConn()
	if err != nil {
		return t, err
	}
	var errOption error
	err = raw.Control(func(fd uintptr) { t.Port, errOption = dialled(int(fd), remote.Addr().Is4()) })
	return t, errors.Join(err, errOption)
}

// originalDst is SO_ORIGINAL_DST (linux/netfilter_ipv4.h) and
// IP6T_SO_ORIGINAL_DST.
const originalDst = 80

// dialled gives the port that the peer dialled, before any translation. The two
// options of x/sys stand in for one that it lacks: they read as many bytes as a
// socket address has, in which the port is the second field.
func dialled(fd int, four bool) (uint16, error) {
	if four {
		a, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, originalDst)
		if err != nil {
			return 0, err
		}
		return uint16(a.Multiaddr[2])<<8 | uint16(a.Multiaddr[3]), nil
	}
	a, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, originalDst)
	if err != nil {
		return 0, err
	}
	return a.Addr.Port<<8 | a.Addr.Port>>8, nil
}
