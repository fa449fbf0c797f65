package enforcers

import (
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestEveryEnforcerIsFoundByItsName(t *testing.T) {
	s := firewall.Setup{Table: "mine", Hook: []string{"/bin/true"}}
	for _, e := range All(s) {
		got, err := Find(e.Name(), s)
		if err != nil || got.Name() != e.Name() || got.Check() != nil {
			t.Errorf("%s: %v, %v", e.Name(), got, err)
		}
	}
	if e, err := Find("", s); err != nil || e.Name() != "nftables" {
		t.Errorf("the default is %v, %v", e, err)
	}
	if _, err := Find("iptables", s); err == nil || !strings.Contains(err.Error(), "none of nftables, ipset, hook") {
		t.Errorf("error %v", err)
	}
}

// Each can be asked without an agent, and names the facts that it cannot know.
func TestEveryEnforcerAnswersWithoutAnAgent(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	dir := t.TempDir()
	for _, e := range All(firewall.Setup{Hook: []string{"/bin/true"}, Switch: dir + "/off"}) {
		if can, err := e.Probe(ctx); err != nil || !can.Enforce {
			t.Errorf("%s: %+v, %v", e.Name(), can, err)
		}
		if s, err := e.Inspect(ctx, nil); err != nil && !errors.Is(err, firewall.ErrUnseen) || s.Present {
			t.Errorf("%s: %+v, %v", e.Name(), s, err)
		}
		if h, err := e.Holds(ctx, netip.MustParsePrefix("192.0.2.1/32")); err != nil && !errors.Is(err, firewall.ErrUnseen) || h.Banned {
			t.Errorf("%s: %+v, %v", e.Name(), h, err)
		}
		if err := e.Remove(ctx); err != nil && !errors.Is(err, firewall.ErrUnseen) {
			t.Errorf("%s: %v", e.Name(), err)
		}
		if _, err := e.Neighbours(); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
		when, err := e.Panic(ctx)
		if err != nil || when == "" {
			t.Errorf("%s: panic: %q, %v", e.Name(), when, err)
		}
		fw, err := e.Open(firewall.Options{})
		testnet.Must(t, err)
		testnet.Must(t, fw.Configure(ctx, firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "x"}}}))
		if d, err := fw.Check(ctx); err != nil || !d.Off {
			t.Errorf("%s: the switch is not obeyed: %+v, %v", e.Name(), d, err)
		}
		testnet.Must(t, e.Resume(ctx))
		if _, err := os.Stat(dir + "/off"); err == nil {
			t.Errorf("%s: the switch is still there", e.Name())
		}
		testnet.Must(t, fw.Close())
		if err := e.Remove(ctx); err != nil && !errors.Is(err, firewall.ErrUnseen) {
			t.Errorf("%s: %v", e.Name(), err)
		}
		if e.Where() == "" || e.Stays() == "" {
			t.Errorf("%s says nothing to people", e.Name())
		}
	}
}
