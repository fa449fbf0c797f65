package nft

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestTheKernelIsAskedAboutOneAddress(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	until := time.Now().Add(time.Hour)
	n := newTest(t, Options{})
	c := simple()
	topic := c.Scopes[0].Topic
	c.Never = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8:1::/48")}
	testnet.Must(t, n.Configure(ctx, c))
	if h, err := Holds(firewall.DefaultTable, netip.MustParsePrefix("198.51.100.7/32")); err != nil || h.Banned {
		t.Fatalf("nobody is banned: %+v, %v", h, err)
	}
	var bans []firewall.Ban
	for _, s := range []string{"198.51.100.7/32", "203.0.113.0/24", "2001:db8:2::7/128", "2001:db8:3::/64", "2001:db8:4::/48"} {
		bans = append(bans, firewall.Ban{Prefix: netip.MustParsePrefix(s), Topic: topic, Until: until})
	}
	bans = append(bans, firewall.Ban{Prefix: netip.MustParsePrefix("198.51.100.8/32"), Topic: topic})
	testnet.Must(t, n.Replace(ctx, slices.Values(bans)))
	for s, want := range map[string]firewall.Held{
		"198.51.100.7/32":     {Banned: true, Map: "deny4"},
		"198.51.100.8/32":     {Banned: true, Map: "deny4"},
		"198.51.100.9/32":     {},
		"203.0.113.77/32":     {Banned: true, Map: "deny4c"},
		"203.0.113.0/24":      {Banned: true, Map: "deny4c"},
		"192.0.2.1/32":        {Never: true},
		"2001:db8:2::7/128":   {Banned: true, Map: "deny6"},
		"2001:db8:2::8/128":   {},
		"2001:db8:3::9/128":   {Banned: true, Map: "deny6n"},
		"2001:db8:3::/64":     {Banned: true, Map: "deny6n"},
		"2001:db8:4:5::1/128": {Banned: true, Map: "deny6c"},
		"2001:db8:1::1/128":   {Never: true},
	} {
		h, err := Holds(firewall.DefaultTable, netip.MustParsePrefix(s))
		left := h.Left
		h.Left = 0
		if err != nil || h != want {
			t.Errorf("%s: %+v, %v; want %+v", s, h, err, want)
		}
		if lasting := s == "198.51.100.8/32"; want.Banned && want.Map != "deny4c" && want.Map != "deny6c" && (left <= 0 || left > time.Hour+2*time.Second) != lasting {
			t.Errorf("%s has %v left", s, left)
		}
	}
	if h, err := Holds("nosuchtable", netip.MustParsePrefix("198.51.100.7/32")); err != nil || h.Banned {
		t.Errorf("without a table: %+v, %v", h, err)
	}
}
