package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/export"
	"banmesh/internal/federation"
	"banmesh/internal/gate"
	"banmesh/internal/settings"
)

// A denial that is made while the agent writes its first list is in the next one.
func TestADenialDuringTheFirstWriteReachesTheGate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "gate", "wallets")
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), fmt.Appendf(nil, "[gate]\nenabled = true\nfile = %q\n", file), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := settings.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	table := export.NewTable(nil)
	target := ban.MustTarget("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	w, _ := target.Wallet()
	// The list asks for the time once it has gathered its wallets.
	during := sync.OnceFunc(func() {
		table.Apply([]export.Entry{{Target: target, Topic: "broadcaster-addresses", Until: time.Now().Add(time.Hour)}}, nil)
	})
	g := newGateList(gateOptions{
		settings: func() *settings.Settings { return s }, table: table, config: dir, state: dir, lists: func() []federation.PublishedList { return nil }, log: slog.New(slog.DiscardHandler),
		now: func() time.Time { during(); return time.Now() },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for denied := false; !denied; {
		select {
		case <-tick.C:
			if l, err := gate.ReadFile(file); err == nil {
				_, denied = l.Denied(w, time.Now())
			}
		case <-deadline:
			t.Error("the gate's list lacks the wallet")
			denied = true
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
