package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/firewall"
	"banmesh/internal/settings"
)

// corroborated says whether the kernel remembers the connection that a line is
// about: the one with the port that it names, else one of a size that the
// topic's failures have. A question that fails counts as no: a line
// that anybody could have written is no reason to ban. Where no kernel
// remembers, the line is believed here.
func (e *enforcer) corroborated(ctx context.Context, topic ban.Topic, from netip.AddrPort) detect.Proof {
	t, ok := e.o.settings().Find(topic)
	if !ok || e.fw == nil || e.Untracked() != nil {
		return detect.ProofUnknown
	}
	seen, err := e.connected(ctx, t, from)
	switch {
	case errors.Is(err, firewall.ErrNotRemembered):
		return detect.ProofUnknown
	case err != nil && ctx.Err() == nil:
		e.o.log.ErrorContext(ctx, "kernel not asked about a connection", slog.String("topic", string(topic)), slog.Any("error", err))
		return detect.ProofDenied
	case err != nil || !seen:
		return detect.ProofDenied
	}
	return detect.ProofConfirmed
}

// connected asks for the connection of a line in a topic.
func (e *enforcer) connected(ctx context.Context, t settings.Topic, from netip.AddrPort) (bool, error) {
	most := uint64(0)
	if d := t.Definition.Detect; d != nil {
		most = uint64(d.FailureBytes)
	}
	switch {
	case from.Port() != 0:
		trace, err := e.fw.Connection(ctx, t.Topic, from)
		return trace.Seen, err
	case most == 0:
		trace, err := e.fw.Address(ctx, t.Topic, from.Addr())
		return trace.Seen, err
	}
	all, err := e.fw.Connections(ctx, t.Topic, from.Addr())
	return slices.ContainsFunc(all, func(x firewall.Trace) bool { return x.Seen && x.Bytes <= most }), err
}

// sent gives the trace of an address in a topic, zero where nothing is
// remembered.
func (e *enforcer) sent(ctx context.Context, topic ban.Topic, a netip.Addr) firewall.Trace {
	if e.fw == nil {
		return firewall.Trace{}
	}
	trace, err := e.fw.Address(ctx, topic, a)
	if err != nil {
		return firewall.Trace{}
	}
	return trace
}

// Untracked implements [api.Firewall].
func (e *enforcer) Untracked() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.untracked
}
