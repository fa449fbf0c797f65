package agent

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"banmesh/internal/compat/fail2banlog"

	"golang.org/x/sync/errgroup"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/compat/fail2ban"
	"banmesh/internal/control"
	"banmesh/internal/export"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
)

// fail2banRetry is how long a socket that cannot be made is let be.
const fail2banRetry = 10 * time.Second

// fail2banSide is the work that [fail2ban] asks for: its socket and its log.
type fail2banSide struct {
	settings func() *settings.Settings
	now      func() time.Time
	log      *slog.Logger

	chronicle *fail2banlog.Chronicle

	mu     sync.Mutex
	server *fail2ban.Server // nil while it does not answer
	at     string
	err    error // why it does not
}

func newFail2banSide(current func() *settings.Settings, table *export.Table, restored func(ban.Topic, ban.Target) bool, now func() time.Time, log *slog.Logger) *fail2banSide {
	log = log.With(slog.String("part", "fail2ban"))
	return &fail2banSide{
		settings: current, now: now, log: log,
		chronicle: &fail2banlog.Chronicle{Table: table, Path: current().Config().Fail2ban.Log, Log: log, Now: now, Restored: restored},
	}
}

// Total implements [api.Fail2ban].
func (f *fail2banSide) Total(t ban.Topic) uint64 { return f.chronicle.Total(t) }

// run serves [fail2ban] until ctx ends.
func (f *fail2banSide) run(ctx context.Context, node fail2ban.Node) error {
	if c := f.settings().Config().Fail2ban; c.Socket == "" && c.Log == "" {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return f.chronicle.Run(ctx) })
	group.Go(func() error { return f.answer(ctx, node) })
	return group.Wait()
}

// answer serves the socket until ctx ends. A fail2ban that holds the socket is no reason for
// the node to end: it is told of, and the socket is tried again.
func (f *fail2banSide) answer(ctx context.Context, node fail2ban.Node) error {
	path := f.settings().Config().Fail2ban.Socket
	if path == "" {
		return nil
	}
	for {
		err := f.serve(ctx, path, node)
		if ctx.Err() != nil {
			return nil
		}
		f.mu.Lock()
		news := f.err == nil || err.Error() != f.err.Error()
		f.server, f.at, f.err = nil, "", err
		f.mu.Unlock()
		if news {
			f.log.WarnContext(ctx, "fail2ban's clients are not answered", slog.String("socket", path), slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(fail2banRetry):
		}
	}
}

func (f *fail2banSide) serve(ctx context.Context, path string, node fail2ban.Node) error {
	l, err := control.Listen(path)
	if err != nil {
		return err
	}
	server := fail2ban.New(fail2ban.Options{Node: node, Log: f.log, Now: f.now})
	f.mu.Lock()
	f.server, f.at, f.err = server, path, nil
	f.mu.Unlock()
	f.log.InfoContext(ctx, "fail2ban's clients are answered", slog.String("socket", path))
	return server.Serve(ctx, l)
}

// Listen implements [api.Fail2ban].
func (f *fail2banSide) Listen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at
}

// Clients implements [api.Fail2ban].
func (f *fail2banSide) Clients() []fail2ban.Client {
	f.mu.Lock()
	server := f.server
	f.mu.Unlock()
	if server == nil {
		return nil
	}
	return server.Clients()
}

// warnings says that the socket is not there.
func (f *fail2banSide) warnings() []control.Warning {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return nil
	}
	return []control.Warning{api.CompatDown.Warn(fmt.Sprintf("fail2ban's clients are not answered: %v", f.err), "stop fail2ban where the agent takes its place, or name another socket in [fail2ban]")}
}

// heldBefore says that a target was banned before this agent started.
func (a *agent) heldBefore(topic ban.Topic, target ban.Target) bool {
	s, ok := a.ledger.Standing(topic, target)
	return ok && slices.ContainsFunc(s.Claims, func(c ledger.Claimed) bool {
		return c.Counts() && c.Since.Before(a.started.Truncate(time.Second))
	})
}
