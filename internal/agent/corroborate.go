package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
)

// corroborated says whether the kernel remembers that an address finished a TCP
// handshake with a port of the topic. A failed question counts as no: a line
// that anybody could have written is no reason to ban.
func (e *enforcer) corroborated(ctx context.Context, topic ban.Topic, from netip.AddrPort) bool {
	addr := from.Addr()
	t, ok := e.o.settings().Find(topic)
	if !ok || e.fw == nil {
		return false
	}
	for _, port := range t.Scope.Ports {
		switch known, err := e.fw.Established(ctx, addr, port); {
		case known:
			return true
		case errors.Is(err, firewall.ErrNotRemembered):
			return false // of no port of the topic
		case err != nil && ctx.Err() == nil:
			e.o.log.ErrorContext(ctx, "kernel not asked about a connection", slog.String("topic", string(topic)), slog.Any("error", err))
			return false
		}
	}
	return false
}

// Untracked implements [api.Firewall].
func (e *enforcer) Untracked() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.untracked
}
