package neverban

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWhichTextsAreHostNames(t *testing.T) {
	for s, want := range map[string]bool{
		"office.example.org": true, "Office.Example.Org.": true, "localhost": true, "a-b.c1": true, "xn--bcher-kva.example": true,
		"": false, "192.0.2.1": false, "192.0.2.999": false, "2001:db8::1": false, "192.0.2.0/24": false, "-a.example": false, "a..b": false,
		"a b.example": false, "a_b.example": false, strings.Repeat("a", 64) + ".example": false, strings.Repeat("a.", 127) + "example": false,
	} {
		if IsName(s) != want {
			t.Errorf("%q is a name: %t", s, !want)
		}
	}
}

// TestNamesOfNeverBannedHosts: the addresses that a name has count, up to a bound, and
// those of the last answer where there is no newer one; a fault says so.
func TestNamesOfNeverBannedHosts(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	many := make([]netip.Addr, MaxNameAddresses+1)
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{9, 9, 9, byte(i)})
	}
	o := Options{
		Root: t.TempDir(), Now: now, Network: func() (Network, error) { return Network{}, nil },
		Names:    []Name{{Host: "office.example", Reason: "ours"}, {Host: "gone.example"}, {Host: "over.example", Until: now}, {Host: "many.example"}},
		Compared: []string{"compared.example"},
		Resolve: func(_ context.Context, name string) ([]netip.Addr, error) {
			switch name {
			case "office.example", "compared.example":
				return []netip.Addr{netip.MustParseAddr("9.1.1.1")}, nil
			case "gone.example":
				return []netip.Addr{netip.MustParseAddr("9.2.2.2")}, errors.New("no answer")
			case "many.example":
				return many, nil
			}
			return nil, fmt.Errorf("asked for %s", name)
		},
	}
	_, entries, err := Discover(t.Context(), o)
	manual := map[string]string{}
	for _, e := range entries {
		if e.Source == SourceManual {
			manual[e.Prefix.String()] = e.Reason
		}
	}
	if len(manual) != 2+MaxNameAddresses || manual["9.1.1.1/32"] != "the name office.example: ours" || manual["9.2.2.2/32"] != "the name gone.example" {
		t.Errorf("entries %v", manual)
	}
	if err == nil || !strings.Contains(err.Error(), "looking up gone.example: no answer") || !strings.Contains(err.Error(), "many.example has 17 addresses; the first 16 count") || strings.Contains(err.Error(), "over.example") {
		t.Errorf("faults: %v", err)
	}
	o.Names = make([]Name, MaxNames+1)
	for i := range o.Names {
		o.Names[i].Host = fmt.Sprintf("n%d.example", i)
	}
	if _, _, err = Discover(t.Context(), o); err == nil || !strings.Contains(err.Error(), "more than 64 names: n64.example") {
		t.Errorf("one name too many: %v", err)
	}
}
