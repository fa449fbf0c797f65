package agent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// proxies holds back this node's own decisions about edges of CDNs and exits of
// relays in topics of web servers: the log names the proxy and means one of the
// many people behind it, and a ban would cut all of them off.
type proxies struct {
	settings func() *settings.Settings
	// inside gives the shared network that a prefix is in.
	inside func(netip.Prefix) (neverban.Entry, bool)
	now    func() time.Time

	mu   sync.Mutex
	held map[heldKey]control.HeldOffender
}

type heldKey struct {
	topic  ban.Topic
	target ban.Target
}

const (
	// maxHeld bounds the memory of decisions that were held back.
	maxHeld = 1_000
	// heldFor is how long one is told of after its last offence.
	heldFor = 24 * time.Hour
)

// hold says whether a decision is held back and why, and whether that is news.
func (p *proxies) hold(v detect.Decision) (h control.HeldOffender, held, news bool) {
	prefix, ip := v.Target.Prefix()
	t, ok := p.settings().Find(v.Topic)
	if !ip || !ok {
		return h, false, false
	}
	e := neverban.Entry{Kind: neverban.KindProxy, Reason: "your configuration"}
	if !t.Proxies.Hold(prefix) {
		shared := false
		if e, shared = p.inside(prefix); !shared || !e.Kind.Proxies() || !t.Web {
			return h, false, false
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	k := heldKey{v.Topic, v.Target}
	_, known := p.held[k]
	if !known && len(p.held) >= maxHeld {
		oldest := k
		for x, y := range p.held {
			if o, ok := p.held[oldest]; !ok || y.Last.Before(o.Last) {
				oldest = x
			}
		}
		delete(p.held, oldest)
	}
	h = control.HeldOffender{
		Topic: v.Topic, Target: v.Target, Kind: string(e.Kind), Network: e.Reason, From: e.From, Hits: v.Hits, Last: v.Last,
		Why: fmt.Sprintf("%s is %s (%s), so the log names it for somebody behind it: nobody is banned", v.Target, e.Kind, e.Reason),
	}
	if p.held == nil {
		p.held = make(map[heldKey]control.HeldOffender)
	}
	p.held[k] = h
	return h, true, !known
}

// forget drops decisions whose last offence is long ago.
func (p *proxies) forget() {
	for k, h := range p.held {
		if p.now().Sub(h.Last) > heldFor {
			delete(p.held, k)
		}
	}
}

// about lists the decisions that were held back about a target or those it
// overlaps, the latest first.
func (p *proxies) about(t ban.Target) (list []control.HeldOffender) {
	prefix, ip := t.Prefix()
	if !ip {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	for k, h := range p.held {
		if x, _ := k.target.Prefix(); x.Overlaps(prefix) {
			list = append(list, h)
		}
	}
	slices.SortFunc(list, func(a, b control.HeldOffender) int {
		return cmp.Or(b.Last.Compare(a.Last), cmp.Compare(a.Topic, b.Topic), a.Target.Compare(b.Target))
	})
	return list
}

// warnings says in which topics the log names proxies.
func (p *proxies) warnings() (list []control.Warning) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
	count, example := map[ban.Topic]int{}, map[ban.Topic]control.HeldOffender{}
	for k, h := range p.held {
		if count[k.topic]++; example[k.topic].Last.Before(h.Last) {
			example[k.topic] = h
		}
	}
	for _, topic := range slices.Sorted(func(yield func(ban.Topic) bool) {
		for t := range count {
			if !yield(t) {
				return
			}
		}
	}) {
		list = append(list, api.ProxiesHeld.Warn(fmt.Sprintf("%s: %d addresses of proxies offended and were not banned, the last one %s of %s", topic, count[topic], example[topic].Target, example[topic].Network), ""))
	}
	return list
}
