package agent

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/neverban"
	"banmesh/internal/procnet"
	"banmesh/internal/settings"
)

// maxWritten bounds the bans whose time of writing is kept; of older ones it is
// known that they are older.
const maxWritten = 10_000

// written says when bans were written to the kernel.
type written struct {
	mu    sync.Mutex
	times map[export.Key]time.Time
	order []export.Key // as they were added, some gone since
	floor time.Time    // all others were there by then
}

// add notes bans that were written just now, and those that were lifted.
func (w *written) add(now time.Time, bans, lifted []export.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.times == nil {
		w.times = make(map[export.Key]time.Time)
	}
	for _, k := range lifted {
		delete(w.times, k)
	}
	for _, k := range bans {
		if len(w.order) >= maxWritten {
			first := w.order[0]
			w.order = w.order[1:]
			if at, ok := w.times[first]; ok {
				delete(w.times, first)
				w.floor = at
			}
		}
		w.times[k], w.order = now, append(w.order, k)
	}
}

// since gives the time by which a ban that is in force was written.
func (w *written) since(k export.Key) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.times[k]; ok {
		return at
	}
	return w.floor
}

// stops says from when on the kernel has a ban that covers a target in a topic,
// false where there is none or a write is pending.
func (e *enforcer) stops(topic ban.Topic, target ban.Target) (at time.Time, ok bool) {
	for _, m := range e.o.table.Check(target) {
		if m.Topic != topic {
			continue
		}
		if x := e.written.since(export.Key{Target: m.Target, Topic: topic}); !ok || x.Before(at) {
			at, ok = x, true
		}
	}
	if !ok {
		return at, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.fault != nil || e.drift.Pending > 0 {
		return at, false
	}
	if e.settled.After(at) {
		at = e.settled
	}
	return at, true
}

// met gives the packets that the bans of a topic have met.
func (e *enforcer) met(ctx context.Context, topic ban.Topic) (uint64, bool) {
	counters, ok := e.Counters(ctx)
	return counters[topic].Packets, ok
}

// unbitten gives the reason why a ban does not stop a target, "" where none fits;
// unmet says that the topic's bans have met no packet meanwhile. shared gives the
// network of a prefix that many people share.
func (e *enforcer) unbitten(topic ban.Topic, target ban.Target, unmet bool, shared func(netip.Prefix) (neverban.Entry, bool)) biteReason {
	t, ok := e.o.settings().Find(topic)
	if !ok {
		return biteReason{}
	}
	e.mu.Lock()
	off := e.drift.Off
	e.mu.Unlock()
	switch mode, why := e.Enforcement(); {
	case mode == "off", mode == "observe":
		return biteReason{"bans are not enforced: " + why, "nothing, if that is meant; or mode = \"enforce\" in [firewall], as root", control.SeverityLow}
	case off:
		return biteReason{"enforcement was switched off by hand", "agent firewall resume", control.SeverityHigh}
	case t.Observe:
		return biteReason{"the topic is observed, so its bans drop nothing", fmt.Sprintf("nothing, if that is meant; or observe = false in [topics.%s]", topic), control.SeverityLow}
	}
	port, peer := e.ports.around(t, e.o.settings().Topics(), target)
	if port != 0 {
		return biteReason{
			fmt.Sprintf("the service seems to be at port %d, which a ban does not close", port),
			fmt.Sprintf("if it is, add %d to ports in [topics.%s]", port, topic), control.SeverityHigh,
		}
	}
	if !unmet {
		return biteReason{}
	}
	if others := e.ports.instead(t, e.o.settings().Topics()); len(others) > 0 && !peer.IsValid() {
		return biteReason{
			fmt.Sprintf("nothing on this machine listens at the topic's ports (%s), and something does at %s", portList(t.Scope.Ports), portList(others)),
			fmt.Sprintf("if the service is there, name its port: ports = [%s] in [topics.%s]", portList(others), topic), control.SeverityHigh,
		}
	}
	text, recipe := "its packets come from somebody else, as through a proxy, a CDN or a container's userland proxy", "An application behind a proxy on another machine"
	if peer.IsValid() {
		text = fmt.Sprintf("the service's connections come from %s, which passes them on", peer)
		if x, ok := shared(netip.PrefixFrom(peer, peer.BitLen())); ok && x.Kind == neverban.KindCDN {
			recipe = "A web server behind a CDN"
		}
	}
	return biteReason{"the kernel met no packet of the topic's bans since: " + text, fmt.Sprintf("see %q in docs/recipes.md", recipe), control.SeverityHigh}
}

// mostInstead bounds the ports that a reason names.
const mostInstead = 5

// instead gives the ports that are listened at and that no topic names, where nothing
// listens at those of a topic; nil where something does or too many are to choose from.
// A connection of the offender's says it better, but lasts a moment only.
func (p *servedPorts) instead(t settings.Topic, topics []settings.Topic) (ports []uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed, known := p.read()
	if t.Scope.All || !known {
		return nil
	}
	for _, s := range listed {
		port := s.Local.Port()
		switch {
		case s.State != procnet.Listening || s.Local.Addr().IsLoopback():
		case slices.Contains(t.Scope.Ports, port):
			return nil
		case !slices.Contains(ports, port) && !othersPort(topics, port):
			ports = append(ports, port)
		}
	}
	if len(ports) > mostInstead {
		return nil
	}
	slices.Sort(ports)
	return ports
}

// othersPort says that a topic whose logs are read here names a port. Shipped topics of
// services that are not here name many: gitea's has 2222.
func othersPort(topics []settings.Topic, port uint16) bool {
	return slices.ContainsFunc(topics, func(x settings.Topic) bool { return x.Detect && slices.Contains(x.Scope.Ports, port) })
}

// portList writes ports as a configuration does.
func portList(ports []uint16) string {
	list := make([]string, 0, len(ports))
	for _, p := range ports {
		list = append(list, strconv.Itoa(int(p)))
	}
	return strings.Join(list, ", ")
}

// around gives the port of a target's connection that neither the topic names nor
// any other, or that its log lines were about, 0 for none; and the address of
// most connections with the ports that the topic does name.
func (p *servedPorts) around(t settings.Topic, topics []settings.Topic, target ban.Target) (port uint16, peer netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.Scope.All {
		return 0, peer
	}
	if x, ok := p.stray[t.Topic]; ok && p.now().Sub(x.last) <= strayFor && !slices.Contains(t.Scope.Ports, x.port) {
		port = x.port
	}
	listed, _ := p.read()
	whose, _ := target.Prefix()
	count := map[netip.Addr]int{}
	for _, s := range listed {
		from := s.Remote.Addr().Unmap()
		named := slices.Contains(t.Scope.Ports, s.Local.Port())
		switch {
		case s.State != procnet.Established:
		case whose.Contains(from) && !named && !slices.ContainsFunc(topics, func(x settings.Topic) bool {
			return slices.Contains(x.Scope.Ports, s.Local.Port())
		}):
			port = s.Local.Port()
		case named && !whose.Contains(from):
			count[from]++
		}
	}
	for from, n := range count {
		if !peer.IsValid() || cmp.Or(cmp.Compare(n, count[peer]), peer.Compare(from)) > 0 {
			peer = from
		}
	}
	return port, peer
}
