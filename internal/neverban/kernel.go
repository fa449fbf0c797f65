package neverban

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// kernel asks the kernel for this network namespace's addresses and routes.
func kernel() (Network, error) {
	var n Network
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return n, fmt.Errorf("listing interfaces: %w", err)
	}
	names, kinds := map[int]string{}, map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index], kinds[l.Attrs().Index] = l.Attrs().Name, l.Type()
		if l.Type() == "tuntap" {
			kinds[l.Attrs().Index] = "tun"
		}
	}
	if err := n.addresses(names, kinds); err != nil {
		return n, err
	}
	return n, n.gateways(names)
}

// addresses adds those of all interfaces, whose names and kinds are given by
// their numbers.
func (n *Network) addresses(names, kinds map[int]string) error {
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IPNet == nil {
			continue
		}
		ip, ok := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		if !ok {
			continue
		}
		addr := Address{Prefix: netip.PrefixFrom(ip.Unmap(), ones), Interface: names[a.LinkIndex], Kind: kinds[a.LinkIndex]}
		if a.Peer != nil {
			if peer, ok := netip.AddrFromSlice(a.Peer.IP); ok {
				addr.Peer = netip.PrefixFrom(peer.Unmap(), peer.Unmap().BitLen())
			}
		}
		n.Addresses = append(n.Addresses, addr)
	}
	return nil
}

// gateways adds the next hops of all routes.
func (n *Network) gateways(names map[int]string) error {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		whole := r.Dst == nil
		if !whole {
			ones, _ := r.Dst.Mask.Size()
			whole = ones == 0
		}
		add := func(ip []byte, link int) {
			if a, ok := netip.AddrFromSlice(ip); ok {
				n.Gateways = append(n.Gateways, Gateway{Addr: a.Unmap(), Interface: names[link], Default: whole})
			}
		}
		add(r.Gw, r.LinkIndex)
		if via, ok := r.Via.(*netlink.Via); ok && via != nil {
			add(via.Addr, r.LinkIndex)
		}
		for _, hop := range r.MultiPath {
			add(hop.Gw, hop.LinkIndex)
			if via, ok := hop.Via.(*netlink.Via); ok && via != nil {
				add(via.Addr, hop.LinkIndex)
			}
		}
	}
	return nil
}

// How soon changes are seen: those of the network at once, after they settled;
// logins and files by looking again.
const (
	settle = 300 * time.Millisecond
	again  = 5 * time.Second
)

// Watch calls changed whenever something may have changed: at once when the
// kernel says that addresses or routes changed, and every few seconds for
// logins and configuration files. It returns when ctx is done, or with an
// error where the kernel cannot be watched.
func Watch(ctx context.Context, changed func()) error {
	addrs := make(chan netlink.AddrUpdate)
	routes := make(chan netlink.RouteUpdate)
	lost := make(chan error, 1)
	oops := func(err error) {
		select {
		case lost <- err:
		default: // one is enough to stop
		}
	}
	done := make(chan struct{})
	if err := netlink.AddrSubscribeWithOptions(addrs, done, netlink.AddrSubscribeOptions{ErrorCallback: oops}); err != nil {
		close(done)
		return fmt.Errorf("watching addresses: %w", err)
	}
	if err := netlink.RouteSubscribeWithOptions(routes, done, netlink.RouteSubscribeOptions{ErrorCallback: oops}); err != nil {
		close(done)
		drain(addrs)
		return fmt.Errorf("watching routes: %w", err)
	}
	// The library's goroutines end when their channels are closed, after done.
	defer func() {
		close(done)
		drain(addrs)
		drain(routes)
	}()
	timer := time.NewTimer(again)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-lost:
			return fmt.Errorf("watching the network: %w", err)
		case _, ok := <-addrs:
			if !ok {
				return errors.New("watching addresses: the kernel closed the subscription")
			}
			timer.Reset(settle)
		case _, ok := <-routes:
			if !ok {
				return errors.New("watching routes: the kernel closed the subscription")
			}
			timer.Reset(settle)
		case <-timer.C:
			changed()
			timer.Reset(again)
		}
	}
}

func drain[T any](c <-chan T) {
	for range c {
	}
}
