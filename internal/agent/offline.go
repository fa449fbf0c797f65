package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/settings"
	"banmesh/internal/store"
)

// ExplainOffline answers from the state on disk, as the agent left it, while
// none runs: claims, rules and exemptions hold or end as the clock says. It
// works on a copy and changes nothing; it fails with [store.ErrLocked] while an
// agent runs.
func ExplainOffline(ctx context.Context, o Options, target ban.Target) (x Explanation, err error) {
	checked, err := settings.Load(o.ConfigDir)
	if err != nil {
		return x, err
	}
	dir, err := os.MkdirTemp("", "banmesh-explain-")
	if err != nil {
		return x, fmt.Errorf("copying the state: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	a := &agent{o: o, log: slog.New(slog.DiscardHandler), now: o.Now, settings: checked}
	if a.now == nil {
		a.now = time.Now
	}
	if err := copyState(filepath.Join(o.StateDir, storeFile), filepath.Join(dir, storeFile)); err != nil {
		return x, err
	}
	if a.store, err = store.Open(filepath.Join(dir, storeFile)); err != nil {
		return x, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if a.guard, err = newGuard(ctx, a); err != nil {
		return x, err
	}
	a.ledger, err = ledger.Open(ledger.Options{
		Store: a.store, Policy: checked.Policy(), NeverBan: a.guard.protection(), NeverPeers: a.guard.peersProtection(), Caution: a.guard.caution(), Now: a.now, Log: a.log,
	})
	if err != nil {
		return x, err
	}
	a.sharing = &sharing{a: a, network: checked.Config().Network}
	// Whoever explains need not be allowed to read the node's keys, and the feeds
	// of others do not depend on them.
	if a.sharing.identity, err = keys.Create(filepath.Join(dir, "identity"), "", a.now()); err != nil {
		return x, err
	}
	if err := a.sharing.open(nil); err != nil {
		return x, err
	}
	if err := a.sharing.recall(ctx); err != nil {
		return x, err
	}
	x = a.explanation(ctx, target)
	x.Offline = true
	if held, ok := kernelHolds(ctx, a.current(), target); ok {
		x.Kernel = &held
		if s, err := a.enforcer.chosen().Inspect(ctx, nil); err == nil {
			counters := map[ban.Topic]firewall.Counter{}
			for topic, c := range s.Counters {
				counters[ban.Topic(topic)] = c
			}
			x.met(counters)
		}
	}
	return x, nil
}

// copyState copies the store's file, which no agent may have open. A state that
// there is none of is [control.ErrNotRunning]'s.
func copyState(from, to string) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w, and none has run on this state", control.ErrNotRunning)
	}
	s, err := store.Open(from) // holds the lock while it is copied
	if err != nil {
		return err
	}
	defer s.Close()
	in, err := os.Open(from)
	if err != nil {
		return fmt.Errorf("copying the state: %w", err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("copying the state: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("copying the state: %w", err)
	}
	return nil
}
