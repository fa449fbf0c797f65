package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/agent/api"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
)

func TestNamesOfOperatorsBecomePlain(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{"alice": "alice", "Bob-2": "Bob-2", "eve \"x\",\n": "eve__x____X", "ö": "__X", "a.b": "a_b_X", "a b": "a_b_X", "here": "here_X", "banmesh-net": "banmesh-net_X"} {
		got := api.CounterName(in)
		if plain, marked := strings.CutSuffix(want, "X"); !marked && got != want || marked && (got[:max(len(got)-4, 0)] != plain || len(got) != len(plain)+4) {
			t.Errorf("%s: %q, want %q", fmt.Sprintf("%q", in), got, want)
		}
	}
	if a, b := api.CounterName("a.b"), api.CounterName("a b"); a == b {
		t.Errorf("two operators are counted as one, %s", a)
	}
}

// A kernel without connection tracking refuses whatever needs it.
type trackless struct{ *firewall.Fake }

func (f trackless) Configure(ctx context.Context, c firewall.Config) error {
	for _, s := range c.Scopes {
		if s.Remember != 0 || s.MaxConnections != 0 {
			return firewall.ErrUnsupported
		}
	}
	return f.Fake.Configure(ctx, c)
}

func TestAKernelWithoutTrackingStillEnforces(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+"max_connections = 5\n[topics.livepeer]\ndetect = true\nall_ports = true\nfiles = []\njournal = []\ndocker = []\n")
	e := &enforcer{o: n.a.enforcer.o, fw: trackless{firewall.NewFake(nil)}}
	if err := e.configure(t.Context()); err != nil {
		t.Fatalf("bans are not enforced: %v", err)
	}
	if _, err := e.fw.Address(t.Context(), "livepeer", netip.MustParseAddr("203.0.113.9")); !errors.Is(err, firewall.ErrNotRemembered) {
		t.Errorf("asking for a peer: %v", err)
	}
	warnings := e.Warnings(t.Context())
	if !slices.ContainsFunc(warnings, func(w control.Warning) bool { return w.Code == "no-tracking" }) || e.Untracked() == nil {
		t.Errorf("nobody is told: %+v", warnings)
	}
	if n.a.enforcer.Untracked() != nil {
		t.Error("where it can be, it is said not to be")
	}
}
