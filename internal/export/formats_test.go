package export

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	neturl "net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
)

var update = flag.Bool("update", false, "write testdata/formats.golden")

// bans is a table with a bit of everything.
func bans() *Table {
	here := entry("192.0.2.7", "sshd", time.Hour)
	here.Here = true
	return at(
		here,
		entry("192.0.2.7", "spam", 2*time.Hour),
		entry("198.51.100.0/24", "sshd", time.Hour),
		entry("198.51.100.9", "sshd", time.Minute),   // covered for as long
		entry("198.51.100.10", "sshd", 48*time.Hour), // covered for less
		entry("2001:db8::/64", "sshd", time.Hour),
		entry("2001:db8:1::7", "livepeer", 90*24*time.Hour),
		entry("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "broadcaster-addresses", time.Hour),
	)
}

func TestEveryFormatOfTheList(t *testing.T) {
	_, url := serve(t, Options{Bans: bans(), Now: func() time.Time { return start }, Identity: "op", Times: func(ban.Topic, ban.Target) (time.Time, time.Time) {
		return start.Add(-time.Hour), start.Add(-time.Minute)
	}})
	var got strings.Builder
	for _, path := range []string{
		"bans.txt", "bans.netset", "bans.pf", "bans.nft", "bans.ipset?name=edge", "bans.rsc", "bans.rsc?kind=ipv4&topic=livepeer", "bans.map", "bans.geo", "bans.iprep", "bans.csv", "bans.stix?kind=ipv6&topic=livepeer",
		"bans.netset?limit=2", "bans.netset?minprefix=25", "bans.netset?minprefix=0,65&limit=3", "bans.netset?topic=nothing", "bans.nft?topic=nothing", "bans.stix?topic=nothing",
	} {
		status, header, body := get(t, url+"/v1/"+path)
		bundle, _, _ := strings.Cut(body, `"objects"`)
		if strings.Contains(path, "stix") {
			if !json.Valid([]byte(body)) {
				t.Errorf("%s is no JSON: %s", path, body)
			}
			body = strings.TrimPrefix(body, bundle) // named by the process's own tag
		}
		fmt.Fprintf(&got, "== %s %d %s %s/%s\n%s", path, status, header.Get("Content-Type"), header.Get("X-Banmesh-Listed"), header.Get("X-Banmesh-Total"), strings.ReplaceAll(body, "\r", "\\r"))
	}
	if *update {
		if err := os.WriteFile("testdata/formats.golden", []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/formats.golden")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("-update writes testdata/formats.golden; got\n%s", got.String())
	}
}

func TestAListThatCannotBeMeantIsRefused(t *testing.T) {
	_, url := serve(t, Options{Bans: bans()})
	for _, q := range []string{"limit=0", "limit=-1", "limit=x", "limit=16777217", "minprefix=33", "minprefix=24,129", "minprefix=x", "minprefix=24,", "kind=x", "topic=A/B"} {
		if status, _, body := get(t, url+"/v1/bans.netset?"+q); status != 400 {
			t.Errorf("%s: %d %s", q, status, body)
		}
	}
	for _, name := range []string{"", "4x", "a b", "a;b", strings.Repeat("a", 25)} {
		if status, _, body := get(t, url+"/v1/bans.nft?name="+neturl.QueryEscape(name)); status != 400 {
			t.Errorf("name %q: %d %s", name, status, body)
		}
	}
	if status, _, _ := get(t, url+"/v1/bans.nft?limit=16777216&minprefix=32,128&name="+strings.Repeat("a", 24)); status != 200 {
		t.Errorf("the largest that is allowed: %d", status)
	}
}

// A target of the whole list is banned by the reduced one for as long, by
// itself or by a prefix around it, and the reduced one bans nobody else.
func TestAReducedListBansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var entries []Entry
		for range rapid.IntRange(0, 20).Draw(t, "entries") {
			bits := rapid.IntRange(24, 32).Draw(t, "bits")
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, rapid.Byte().Draw(t, "last")}), bits).Masked()
			entries = append(entries, entry(p.String(), "sshd", time.Duration(rapid.IntRange(1, 5).Draw(t, "hours"))*time.Hour))
		}
		end := func(list []Entry, a netip.Addr) (latest time.Time) {
			for _, e := range list {
				if p, _ := e.Target.Prefix(); p.Contains(a) && e.Until.After(latest) {
					latest = e.Until
				}
			}
			return latest
		}
		kept := reduce(slices.Clone(entries))
		for last := range 256 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(last)})
			if x, y := end(entries, a), end(kept, a); !x.Equal(y) {
				t.Fatalf("%s ends at %v, was %v", a, y, x)
			}
		}
	})
}

func TestAnIndicatorKeepsItsNameWhileTheBanLasts(t *testing.T) {
	h, _ := serve(t, Options{Bans: bans(), Identity: "op", Times: func(ban.Topic, ban.Target) (time.Time, time.Time) { return start, start.Add(time.Minute) }})
	a, b := h.indicator(entry("192.0.2.7", "sshd", time.Hour), "id", start), h.indicator(entry("192.0.2.7", "sshd", 2*time.Hour), "id", start.Add(time.Hour))
	other := h.indicator(entry("192.0.2.7", "spam", time.Hour), "id", start)
	if a.ID != b.ID || a.Created != b.Created || a.ValidUntil == b.ValidUntil || a.ID == other.ID {
		t.Errorf("%+v\n%+v\n%+v", a, b, other)
	}
	if a.ID[len("indicator--")+14] != '5' {
		t.Errorf("no UUID of version 5: %s", a.ID)
	}
}

func TestOnlyReadersWithTokenOrFromANetworkGetLists(t *testing.T) {
	const token = "0123456789abcdef"
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	for _, c := range []struct {
		claim  string
		access Access
		change func(*http.Request)
		want   int
	}{
		{"nothing is asked for", Access{}, func(*http.Request) {}, 200},
		{"from an allowed network", Access{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, func(*http.Request) {}, 200},
		{"from an allowed network, in IPv6's form", Access{Networks: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}, func(r *http.Request) { r.RemoteAddr = "[::ffff:192.0.2.9]:1" }, 200},
		{"from elsewhere", Access{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, func(*http.Request) {}, 401},
		{"a header cannot say from where", Access{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, func(r *http.Request) { r.Header.Set("X-Forwarded-For", "198.51.100.1") }, 401},
		{"no token", Access{Token: token}, func(*http.Request) {}, 401},
		{"an empty token", Access{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}, func(r *http.Request) { r.Header.Set("Authorization", "Bearer ") }, 401},
		{"a wrong one", Access{Token: token}, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token+"0") }, 401},
		{"bearer", Access{Token: token}, func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, 200},
		{"password", Access{Token: token}, func(r *http.Request) { r.SetBasicAuth("anybody", token) }, 200},
		{"in the query", Access{Token: token}, func(r *http.Request) { r.URL.RawQuery = "token=" + token }, 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/v1/bans.txt", nil)
		r.RemoteAddr = "192.0.2.1:4711"
		c.change(r)
		w := httptest.NewRecorder()
		if c.access.Only(ok).ServeHTTP(w, r); w.Code != c.want {
			t.Errorf("%s: %d, want %d", c.claim, w.Code, c.want)
		}
	}
}

func TestTheTokenIsNoPartOfTheTagAndReadersAreRemembered(t *testing.T) {
	h, url := serve(t, Options{Bans: bans()})
	_, header, _ := get(t, url+"/v1/bans.netset?token=a")
	if status, _, _ := get(t, url+"/v1/bans.netset?token=b", "If-None-Match", header.Get("ETag")); status != 304 {
		t.Errorf("another token makes another list: %d", status)
	}
	if list := h.Readers(); len(list) != 1 || list[0].Format != "netset" || list[0].Listed != 5 || !list[0].From.IsLoopback() {
		t.Errorf("%+v", list)
	}
	for i := range 2 * maxReaders {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1", i)
		h.readers.note("txt", r, 1, start)
	}
	if n := len(h.Readers()); n != maxReaders {
		t.Errorf("%d readers are remembered", n)
	}
}
