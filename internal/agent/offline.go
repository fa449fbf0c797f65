package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"banmesh/internal/agent/api"
	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
	"banmesh/internal/guests"
	"banmesh/internal/history"
	"banmesh/internal/keys"
	"banmesh/internal/ledger"
	"banmesh/internal/policy"
	"banmesh/internal/settings"
	"banmesh/internal/store"
)

// ExplainOffline answers from the state on disk, as the agent left it, while
// none runs: claims, rules and exemptions hold or end as the clock says. It
// works on a copy and changes nothing; it fails with [store.ErrLocked] while an
// agent runs.
func ExplainOffline(ctx context.Context, o Options, target ban.Target) (x control.Explanation, err error) {
	checked, err := settings.Load(o.ConfigDir, o.StateDir)
	if err != nil {
		return x, err
	}
	dir, err := os.MkdirTemp("", "banmesh-explain-")
	if err != nil {
		return x, fmt.Errorf("copying the state: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	now := o.Now
	if now == nil {
		now = time.Now
	}
	current, log := func() *settings.Settings { return checked }, slog.New(slog.DiscardHandler)
	if err := copyState(filepath.Join(o.StateDir, storeFile), filepath.Join(dir, storeFile)); err != nil {
		return x, err
	}
	held, err := store.Open(filepath.Join(dir, storeFile))
	if err != nil {
		return x, err
	}
	var stop onStop
	stop.add(held.Close)
	defer func() { err = errors.Join(err, stop.run()) }()
	shielded, err := offlineGuests(o.StateDir, checked.GuestStay(), now)
	if err != nil {
		return x, err
	}
	guard := newGuard(ctx, guardOptions{settings: current, now: now, log: log})
	claims, err := ledger.Open(ledger.Options{
		Store: held, Policy: checked.Policy(), NeverBan: guard.protection(), NeverPeers: guard.peersProtection(), Caution: guard.caution(), Guests: shielded, Now: now, Log: log,
	})
	if err != nil {
		return x, err
	}
	stop.add(claims.Close)
	sharing := &sharing{o: sharingOptions{settings: current, ledger: claims, store: held, now: now, log: log}, network: checked.Config().Network}
	if sharing.identity, err = offlineIdentity(o.StateDir, dir, now()); err != nil {
		return x, err
	}
	if err := sharing.open(nil); err != nil {
		return x, err
	}
	if checked, err = sharing.takeTrust(checked); err != nil {
		return x, err
	}
	claims.SetPolicy(checked.Policy().As(sharing.Operator()))
	if err := sharing.restore(ctx); err != nil {
		return x, err
	}
	x = api.Explanation(claims.Explain(target), checked.NameOf)
	api.Observe(&x, checked)
	x.Offline = true
	if shielded != nil {
		x.Guest, _ = shielded.Protects(target)
	}
	askKernel(ctx, checked, &x)
	return x, nil
}

// offlineIdentity gives the node's identity. Who explains need not be allowed to
// read the keys: then it is another one, and only the claims of this operator's
// other nodes are left out.
func offlineIdentity(state, temporary string, now time.Time) (*keys.Identity, error) {
	if id, err := keys.Load(state); err == nil {
		return id, nil
	}
	return keys.Create(filepath.Join(temporary, "identity"), "", now)
}

// askKernel puts the kernel's state of a target into an explanation, where it
// can be asked.
func askKernel(ctx context.Context, s *settings.Settings, x *control.Explanation) {
	k, ok := kernelHolds(ctx, s, x.Target)
	if !ok {
		return
	}
	x.Kernel = api.HeldOf(k)
	if summary, err := inspect(ctx, s); err == nil {
		counters := map[ban.Topic]firewall.Counter{}
		for topic, c := range summary.Counters {
			counters[ban.Topic(topic)] = c
		}
		api.Met(x, counters)
	}
}

// offlineGuests reads the guests, without a lasting change to their file. Who
// may not read them explains without.
func offlineGuests(state string, stay time.Duration, now func() time.Time) (policy.Protection, error) {
	if stay == 0 {
		return nil, nil
	}
	set, err := guests.Read(guests.Options{Path: filepath.Join(state, guestFile), Stay: stay, Now: now})
	switch {
	case errors.Is(err, fs.ErrPermission):
		return nil, nil
	case err != nil:
		return nil, err
	}
	return set, nil
}

// inspect reads the traces that the chosen enforcer left in the kernel.
func inspect(ctx context.Context, s *settings.Settings) (firewall.Summary, error) {
	e, err := s.Enforcer("")
	if err != nil {
		return firewall.Summary{}, err
	}
	return e.Inspect(ctx, nil)
}

// copyState copies the store's file, which no agent may have open. Without a
// state it fails with [control.ErrNotRunning].
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

// HistoryOffline answers GET /v1/history from the files that an agent left, or
// that one is writing.
func HistoryOffline(stateDir string, parameters url.Values) (page control.EventPage, err error) {
	q, err := api.HistoryQuery(parameters)
	if err != nil {
		return page, err
	}
	store, err := history.Read(filepath.Join(stateDir, EventsDirectory))
	if err != nil {
		return page, err
	}
	found, err := store.Find(q)
	return api.EventPage(found, store.Stats()), err
}
