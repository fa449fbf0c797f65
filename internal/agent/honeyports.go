package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"

	"banmesh/internal/ban"
	"banmesh/internal/detect"
	"banmesh/internal/honeyport"
	"banmesh/internal/settings"
)

// honeyports has the listener to which connections at honeyports are led. It is
// opened with the first port to watch.
type honeyports struct {
	// report counts an offence.
	report func(context.Context, detect.Observation) error
	log    *slog.Logger

	mu       sync.Mutex
	listener *honeyport.Listener
	opened   chan *honeyport.Listener
}

func newHoneyports(log *slog.Logger) *honeyports {
	return &honeyports{log: log, opened: make(chan *honeyport.Listener, 1)}
}

// watch makes touches of these ports count, and gives the local port that they
// are to be led to, 0 for none.
func (h *honeyports) watch(ctx context.Context, ports []uint16) (to uint16, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener == nil {
		if len(ports) == 0 {
			return 0, nil
		}
		if h.listener, err = honeyport.Listen(ctx, h.log); err != nil {
			return 0, err
		}
		h.opened <- h.listener
	}
	h.listener.Watch(ports)
	return h.listener.Port(), nil
}

// run takes connections until ctx ends.
func (h *honeyports) run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case l := <-h.opened:
		return l.Run(ctx, h.touched)
	}
}

func (h *honeyports) touched(ctx context.Context, t honeyport.Touch) {
	target, err := ban.TargetOfPrefix(netip.PrefixFrom(t.Peer.Addr(), t.Peer.Addr().BitLen()))
	if err != nil {
		return
	}
	err = h.report(ctx, detect.Observation{Topic: settings.HoneyportTopic, Target: target, Class: ban.ClassScan, Accepted: true, At: t.At})
	if err != nil && !errors.Is(err, detect.ErrNotDetected) && ctx.Err() == nil {
		h.log.ErrorContext(ctx, "honeyport touch not counted", slog.String("target", target.String()), slog.Any("error", err))
	}
}

func (h *honeyports) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listener == nil {
		return nil
	}
	return h.listener.Close()
}
