package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/firewall"
	"banmesh/internal/settings"
)

// silentMost is how long a connection can be silent before a line is written of
// it: servers give a client up after two to five minutes.
const silentMost = 5 * time.Minute

// corroborated says whether the kernel remembers the connection that a line is
// about: the one with the port that it names, else one of a size that the
// topic's failures have. A question that fails counts as no: a line
// that anybody could have written is no reason to ban. Where no kernel
// remembers, the line is believed here.
func (e *enforcer) corroborated(ctx context.Context, q detect.Question) detect.Proof {
	t, ok := e.o.settings().Find(q.Topic)
	if !ok || e.fw == nil || !t.Scope.Remembers() || e.Untracked() != nil {
		return detect.ProofUnknown
	}
	proof, err := e.connected(ctx, t, q.From)
	if err == nil && proof == detect.ProofUnknown {
		proof, err = e.unseen(ctx, t, q)
	}
	switch {
	case errors.Is(err, firewall.ErrNotRemembered):
		return detect.ProofUnknown
	case err != nil && ctx.Err() == nil:
		e.o.log.ErrorContext(ctx, "kernel not asked about a connection", slog.String("topic", string(q.Topic)), slog.Any("error", err))
		return detect.ProofDenied
	case err != nil:
		return detect.ProofDenied
	}
	return proof
}

// connected asks for the connection of a line in a topic. [detect.ProofUnknown]
// says that there is none; connections of another size deny it.
func (e *enforcer) connected(ctx context.Context, t settings.Topic, from netip.AddrPort) (detect.Proof, error) {
	most := uint64(t.Definition.Detect.FailureBytes)
	if from.Port() != 0 || most == 0 {
		trace, err := e.trace(ctx, t.Topic, from)
		if err != nil || !trace.Seen {
			return detect.ProofUnknown, err
		}
		return detect.ProofConfirmed, nil
	}
	all, err := e.fw.Connections(ctx, t.Topic, from.Addr())
	for _, x := range all {
		if x.Seen && x.Bytes <= most {
			return detect.ProofConfirmed, err
		}
	}
	if len(all) > 0 {
		return detect.ProofDenied, err
	}
	return detect.ProofUnknown, err
}

// trace asks for the connection of an address and port, or of an address.
func (e *enforcer) trace(ctx context.Context, topic ban.Topic, from netip.AddrPort) (firewall.Trace, error) {
	if from.Port() != 0 {
		return e.fw.Connection(ctx, topic, from)
	}
	return e.fw.Address(ctx, topic, from.Addr())
}

// unseen interprets that the kernel remembers no connection of a line:
// nothing where the service also speaks UDP, where proxies of other machines
// stand before it, where the line is older than the memory or younger than what
// it lasts for, and where the service is at ports that the topic does not name.
func (e *enforcer) unseen(ctx context.Context, t settings.Topic, q detect.Question) (detect.Proof, error) {
	if !t.Proxies.None() || !t.Scope.OnlyTCP() {
		return detect.ProofUnknown, nil
	}
	span, err := e.fw.Since(ctx, t.Topic)
	if err != nil {
		return detect.ProofDenied, err
	}
	silent := min(silentMost, t.Scope.Remember/2)
	// A definition that asks by itself is about handshakes, which are as young as
	// their lines.
	strict := !t.Definition.Detect.Corroborate.IsZero()
	if !strict && (q.At.Before(span.Begun.Add(silent)) || e.o.now().Sub(q.At) > t.Scope.Remember-silent) {
		return detect.ProofUnknown, nil
	}
	if e.ports.elsewhere(t, q.From, span.Any) {
		return detect.ProofUnknown, nil
	}
	return detect.ProofDenied, nil
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
