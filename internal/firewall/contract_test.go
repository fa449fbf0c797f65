package firewall_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/nft"
	"banmesh/internal/firewall/testnet"
	"banmesh/internal/firewall/tools"
)

// The contract that every enforcer keeps, whatever it enforces with.
func TestEveryEnforcerKeepsTheContract(t *testing.T) {
	testnet.Enter(t)
	hook, err := tools.NewHook(tools.Options{}, []string{"/bin/true"})
	testnet.Must(t, err)
	for name, f := range map[string]firewall.Firewall{"nftables": nft.New(nft.Options{}), "ipset": tools.NewIPSet(tools.Options{}, false), "hook": hook, "fake": firewall.NewFake(nil)} {
		ctx := testnet.Context(t)
		if err := f.Replace(ctx, func(func(firewall.Ban) bool) {}); !errors.Is(err, firewall.ErrNotConfigured) {
			t.Errorf("%s: Replace first: %v", name, err)
		}
		for _, c := range []firewall.Config{
			{Table: "UPPER"},
			{Table: "a b"},
			{Cap: -1},
			{Scopes: []firewall.Scope{{Topic: "x"}, {Topic: "x"}}},
			{Scopes: []firewall.Scope{{Topic: "X"}}},
			{Scopes: []firewall.Scope{{Topic: "x", Protocols: []string{"icmpx"}}}},
			{Scopes: []firewall.Scope{{Topic: "x", Ports: []uint16{0}}}},
			{Scopes: []firewall.Scope{{Topic: "x", MaxConnections: 1}}},
			{Never: make([]netip.Prefix, 1)},
		} {
			if err := f.Configure(ctx, c); err == nil {
				t.Errorf("%s: %+v passed", name, c)
			}
		}
		c := simple()
		c.Cap = 3
		testnet.Must(t, f.Configure(ctx, c))
		testnet.Must(t, f.Configure(ctx, c))
		until := time.Now().Add(time.Hour)
		if err := f.Apply(ctx, bans("sshd", until, "192.0.2.1"), nil); !errors.Is(err, firewall.ErrNoState) {
			t.Errorf("%s: Apply before Replace: %v", name, err)
		}
		if err := f.Replace(ctx, slices.Values(append(bans("sshd", until, "192.0.2.1", "2001:db8::/64"), bans("nobody", until, "192.0.2.2")...))); !errors.Is(err, firewall.ErrNoScope) {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.Apply(ctx, bans("sshd", until, "192.0.2.3", "192.0.2.4"), nil); !errors.Is(err, firewall.ErrFull) {
			t.Errorf("%s: past the cap: %v", name, err)
		}
		testnet.Must(t, f.Apply(ctx, nil, []firewall.Key{{testnet.Prefix("192.0.2.99"), "sshd"}, {testnet.Prefix("192.0.2.1"), "sshd"}}))
		d, err := f.Check(ctx)
		if err != nil || d.Bans != 2 || d.Pending != 0 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		counters, err := f.Counters(ctx)
		if err != nil || len(counters) == 1 {
			t.Errorf("%s: %v, %v", name, counters, err)
		}
		if _, err := f.Address(ctx, "sshd", netip.MustParseAddr("192.0.2.1")); !errors.Is(err, firewall.ErrNotRemembered) {
			t.Errorf("%s: Address: %v", name, err)
		}
		testnet.Must(t, f.Close())
		testnet.Must(t, f.Close())
		if _, err := f.Check(ctx); !errors.Is(err, firewall.ErrClosed) {
			t.Errorf("%s: after Close: %v", name, err)
		}
	}
}

func simple() firewall.Config {
	return firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "all"}}}
}

func bans(topic ban.Topic, until time.Time, prefixes ...string) (out []firewall.Ban) {
	for _, p := range testnet.Prefixes(prefixes...) {
		out = append(out, firewall.Ban{Prefix: p, Topic: topic, Until: until})
	}
	return out
}
