package agent

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/nft"
	"banmesh/internal/firewall/testnet"
)

// A table that could not be removed is tried again at every start, whatever the
// node enforces with meanwhile.
func TestALeftoverIsNotForgotten(t *testing.T) {
	t.Parallel()
	testnet.Enter(t)
	ctx := testnet.Context(t)
	l := &leftovers{file: filepath.Join(t.TempDir(), "enforced.json"), log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	chosen := func(table string) firewall.Enforcer { return nft.NewEnforcer(firewall.Setup{Table: table}) }
	choice := func(table string) enforced { return enforced{Enforcer: "nftables", Table: table} }
	ban1 := firewall.Ban{Prefix: testnet.Prefix("192.0.2.1"), Topic: "sshd", Until: time.Now().Add(time.Hour)}
	enforce := func(table string) *nft.Firewall {
		n := nft.New(nft.Options{})
		testnet.Must(t, n.Configure(ctx, firewall.Config{Table: table, Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd"}}}))
		testnet.Must(t, n.Replace(ctx, slices.Values([]firewall.Ban{ban1})))
		return n
	}
	present := func(table string) bool {
		s, err := chosen(table).Inspect(ctx, nil)
		testnet.Must(t, err)
		return s.Present
	}
	l.clear(ctx, chosen("one"), choice("one"), false)
	running := enforce("one")
	// The choice changes while another process still enforces with the old one.
	l.clear(ctx, chosen("two"), choice("two"), false)
	two := enforce("two")
	if !present("one") || len(l.warnings(ctx)) != 1 {
		t.Errorf("one is there: %v; %+v", present("one"), l.warnings(ctx))
	}
	held := l.Left(ctx, []ban.Target{ban.MustTarget("192.0.2.1"), ban.MustTarget("192.0.2.2")})
	if len(held) != 1 || held[0].Target != ban.MustTarget("192.0.2.1") {
		t.Errorf("%+v", held)
	}
	testnet.Must(t, errors.Join(running.Close(), two.Close()))
	l.clear(ctx, chosen("two"), choice("two"), false)
	if present("one") || !present("two") || len(l.warnings(ctx)) != 0 {
		t.Errorf("one %v, two %v, %+v", present("one"), present("two"), l.warnings(ctx))
	}
	// Off, with another name in the settings that was never this node's.
	testnet.Must(t, enforce("three").Close())
	l.clear(ctx, chosen("three"), choice("three"), true)
	if present("two") || !present("three") || len(l.warnings(ctx)) != 1 {
		t.Errorf("two %v, three %v, %+v", present("two"), present("three"), l.warnings(ctx))
	}
	if _, err := os.Stat(l.file); err == nil {
		t.Error("a record of nothing is kept")
	}
}
