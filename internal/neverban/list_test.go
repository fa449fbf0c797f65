package neverban

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestListsOfPrefixesAreRead(t *testing.T) {
	list, err := ReadList(strings.NewReader(`
# crawlers
66.249.64.0/19          # a crawler
2001:4860:4801::/48 until 2026-04-01T00:00:00Z # for a month
203.0.113.7
`), SourcePack)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != 3 || list[0].Reason != "a crawler" || list[0].Source != SourcePack || list[1].Until.IsZero() || list[2].Prefix != netip.MustParsePrefix("203.0.113.7/32") {
		t.Errorf("read %+v", list)
	}
	if got := Alive(list, time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC)); len(got) != 2 {
		t.Errorf("alive are %v", got)
	}
}

func TestAListOfSharedAddressesHasSections(t *testing.T) {
	const text = "192.0.2.1\n[nat] My carrier\n198.51.100.0/24\n203.0.113.0/24 # its old pool\n[cdn] A network, https://example.net/ips, 2026-11-21\n2001:db8::/32\n"
	list, err := ReadList(strings.NewReader(text), SourceCaution)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range list {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s", e.Prefix, string(e.Kind), e.Reason, e.From))
	}
	want := []string{"192.0.2.1/32|||", "198.51.100.0/24|nat|My carrier|", "203.0.113.0/24|nat|its old pool|", "2001:db8::/32|cdn|A network|https://example.net/ips, 2026-11-21"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for _, bad := range []string{"[cdn\n", "[friend] x\n", "[cdn] x, y\n", "[cdn] x, y, yesterday\n"} {
		if _, err := ReadList(strings.NewReader(bad), SourceCaution); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if _, err := ReadList(strings.NewReader("[cdn] x\n"), SourceManual); err == nil {
		t.Error("a list of another source has sections")
	}
}

func TestAFaultyListIsRefusedWithItsLines(t *testing.T) {
	_, err := ReadList(strings.NewReader("1.2.3.4\n0.0.0.0/0\nhello\n1.2.3.4 until soon\n::/0\n0x52908400098527886E0F7030069857D2E4169EE7\n1.2.3.4 5.6.7.8\n"), SourcePack)
	if err == nil {
		t.Fatal("it was read")
	}
	for _, want := range []string{"line 2: 0.0.0.0/0 is too wide", "line 3: ", "line 4: ", "line 5: ", "line 6: ", "line 7: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func FuzzReadList(f *testing.F) {
	f.Add("[cdn] x, https://example.net/, 2026-11-21\n192.0.2.0/24")
	f.Add("1.2.3.4 until 2026-03-01T00:00:00Z # x\n2001:db8::/32")
	f.Fuzz(func(t *testing.T, s string) {
		for _, source := range []Source{SourcePack, SourceCaution} {
			list, err := ReadList(strings.NewReader(s), source)
			if err != nil && list != nil {
				t.Fatal("a faulty list is used")
			}
			for _, e := range list {
				if e.Prefix.Bits() < shortest4 || len(e.Reason) > 400 {
					t.Fatalf("%+v", e)
				}
			}
		}
	})
}
