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
	if e.fw == nil {
		return false
	}
	trace, err := e.fw.Address(ctx, topic, from.Addr())
	if err != nil && !errors.Is(err, firewall.ErrNotRemembered) && ctx.Err() == nil {
		e.o.log.ErrorContext(ctx, "kernel not asked about a connection", slog.String("topic", string(topic)), slog.Any("error", err))
	}
	return trace.Seen
}

// Untracked implements [api.Firewall].
func (e *enforcer) Untracked() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.untracked
}
