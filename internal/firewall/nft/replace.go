package nft

import (
	"context"
	"errors"
	"iter"
	"net/netip"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
)

// Replace implements [Firewall].
func (n *Firewall) Replace(ctx context.Context, bans iter.Seq[firewall.Ban]) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return err
	}
	now := n.second()
	fresh := n.state.Successor()
	refused := firewall.Refusals{}
	chunk := make([]firewall.Ban, 0, 8) // more at a time gains nothing
	take := func() {
		for i := range chunk {
			fresh.Touch(chunk[i].Prefix)
		}
		for i := range chunk {
			refused.Note(chunk[i], n.addTo(fresh, chunk[i], now))
		}
		chunk = chunk[:0]
	}
	for b := range bans {
		if chunk = append(chunk, b); len(chunk) == cap(chunk) {
			take()
		}
	}
	take()
	old := n.state
	n.state = fresh
	n.wide[0].dirty, n.wide[1].dirty = true, true
	if n.adopted && n.reload == reloadNone {
		old.Each(func(p netip.Prefix, was desired.Slot) bool {
			if desired.KindOf(p) != desired.KindWide && fresh.Get(p) != was {
				n.note(p, was)
			}
			return true
		})
		fresh.Each(func(p netip.Prefix, v desired.Slot) bool {
			if desired.KindOf(p) != desired.KindWide && old.Get(p).Class == 0 {
				n.note(p, desired.Slot{})
			}
			return true
		})
	} else if n.reload == reloadNone && !n.off {
		if err := n.adopt(); err != nil {
			return err
		}
	}
	// With a reload due the kernel's maps are empty, or are written whole.
	n.adopted = true
	if n.off {
		return refused.Err(n.config.Cap)
	}
	n.sockets.due = n.state.Size() > 0
	return errors.Join(refused.Err(n.config.Cap), n.writeAll(ctx, now), n.cut())
}

// Apply implements [Firewall].
func (n *Firewall) Apply(ctx context.Context, add []firewall.Ban, remove []firewall.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return err
	}
	if !n.adopted {
		return firewall.ErrNoState
	}
	now := n.second()
	refused := firewall.Refusals{}
	for _, key := range remove {
		p := key.Prefix
		if !desired.Canonical(p) {
			refused.Note(firewall.Ban{Prefix: p, Topic: key.Topic}, firewall.ErrPrefix)
			continue
		}
		old := n.state.Get(p)
		changed, err := n.state.Remove(p, key.Topic, now)
		refused.Note(firewall.Ban{Prefix: p, Topic: key.Topic}, err)
		if changed {
			n.note(p, old)
		}
	}
	for _, b := range add {
		var old desired.Slot
		if desired.Canonical(b.Prefix) {
			old = n.state.Get(b.Prefix)
		}
		err := n.addTo(n.state, b, now)
		refused.Note(b, err)
		if err == nil && n.state.Get(b.Prefix) != old {
			n.note(b.Prefix, old)
		}
	}
	if n.off {
		return refused.Err(n.config.Cap)
	}
	n.sockets.due = n.sockets.due || len(add) > 0
	return errors.Join(refused.Err(n.config.Cap), n.flushPending(ctx), n.cut())
}

// addTo makes a ban wanted in s, or says why not.
func (n *Firewall) addTo(s *desired.State, b firewall.Ban, now desired.Second) error {
	if !desired.Canonical(b.Prefix) {
		return firewall.ErrPrefix
	}
	scope, ok := n.scopes[b.Topic]
	if !ok {
		return firewall.ErrNoScope
	}
	by := ""
	if scope.Observe {
		by = desired.Label(b.By)
	}
	until := desired.SecondOf(b.Until)
	if until <= now {
		return nil
	}
	if s.Size() >= n.config.Cap && s.Get(b.Prefix).Class == 0 {
		if gone, _ := s.Sweep(now, true); gone == 0 {
			return firewall.ErrFull
		}
	}
	_, err := s.Add(b.Prefix, b.Topic, by, until, now)
	return err
}

// note records that the kernel has to be told about p, where it holds was.
func (n *Firewall) note(p netip.Prefix, was desired.Slot) {
	if desired.KindOf(p) == desired.KindWide {
		n.wide[family(p.Addr())].dirty = true
		return
	}
	if _, ok := n.pending[p]; !ok {
		n.pending[p] = was
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
