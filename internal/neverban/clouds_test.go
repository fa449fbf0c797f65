package neverban

import (
	"net/netip"
	"strings"
	"testing"

	"banmesh/internal/ban"
)

// discovered is the never-ban list of a machine that finds nothing by itself.
func discovered(t *testing.T) []Entry {
	t.Helper()
	_, entries, err := Discover(t.Context(), Options{Root: t.TempDir(), Network: func() (Network, error) { return Network{}, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func TestNobodyBansACloudsServices(t *testing.T) {
	entries := discovered(t)
	// Neither a peer nor this node's own detection.
	for name, set := range map[string]Set{"peers": NewSet(entries), "own detection": NewSet(WithoutPrivate(entries))} {
		for _, s := range []string{
			"168.63.129.16", "169.254.169.254", "169.254.169.253", "fd00:ec2::254", "fd00:ec2::253", "fd20:ce::254", "fd00:c1::a9fe:a9fe",
			"100.100.100.200", "100.100.2.136", "100.100.2.138", "169.254.0.23", "183.60.83.19", "161.26.0.10", "fd00:42::42", "185.12.64.1", "2a01:4ff:ff00::add:1",
			// Nor a network around one.
			"168.63.129.0/24", "168.63.0.0/16", "fd00:ec2::/64", "2a01:4ff:ff00::/64",
		} {
			if why, ok := set.Protects(ban.MustTarget(s)); !ok {
				t.Errorf("%s may ban %s", name, s)
			} else if name == "own detection" && !strings.HasPrefix(why, "cloud ") && !strings.HasPrefix(why, "bogon ") {
				t.Errorf("%s: %s", s, why)
			}
		}
		for _, s := range []string{"168.63.129.17", "183.60.83.20", "2a01:4ff:ff01::1"} {
			if why, ok := set.Protects(ban.MustTarget(s)); ok {
				t.Errorf("%s: %s is protected: %s", name, s, why)
			}
		}
	}
	// Each stands below the page that says so.
	source := false
	for line := range strings.Lines(cloudList) {
		switch line = strings.TrimSpace(line); {
		case line == "":
			source = false
		case strings.HasPrefix(line, "# https://"):
			source = true
		case !strings.HasPrefix(line, "#") && !source:
			t.Errorf("no source: %s", line)
		}
	}
}

func TestAddressesThatCarryAnotherAreBogons(t *testing.T) {
	set := NewSet(WithoutPrivate(discovered(t)))
	for _, s := range []string{
		"::192.0.2.7", "::c612:7", "::/96", // IPv4-compatible
		"2002:c000:207::1", "2002:c000:207::/64", "2002::/16", // 6to4
		"2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001::/32", // Teredo
		"64:ff9b::c000:207", "2001:10::1", "2001:20::1", "2001:2::1", "5f00::1", "100:0:0:1::1",
	} {
		if _, ok := set.Protects(ban.MustTarget(s)); !ok {
			t.Errorf("%s can be banned", s)
		}
	}
	for _, s := range []string{"2001:470::1", "2001:67c::1", "2003::1", "2001:200::1", "2600::1"} {
		if why, ok := set.Protects(ban.MustTarget(s)); ok {
			t.Errorf("%s is protected: %s", s, why)
		}
	}
	// None of them covers all of IPv4, whatever becomes of its form.
	for _, p := range NewSet(Bogons(nil)).Prefixes() {
		if p.Contains(netip.MustParseAddr("8.8.8.8")) {
			t.Errorf("%s", p)
		}
	}
}
