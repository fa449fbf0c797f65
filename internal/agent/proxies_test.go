package agent

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/neverban"
	"banmesh/internal/settings"
)

// A site behind a CDN whose web server logs the CDN's edges must not cut itself
// off from all of its visitors.
func TestAnEdgeThatAWebServerNamesIsHeldAndExplained(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	web, ssh := filepath.Join(dir, "error.log"), filepath.Join(dir, "auth.log")
	stamp := time.Now()
	var lines, logins strings.Builder
	for range 20 {
		for _, client := range []string{"172.71.210.9", "104.28.7.7", "2606:4700:10::7", "45.1.1.1"} {
			fmt.Fprintf(&lines, "%s [error] 4711#4711: *17 user \"admin\": password mismatch, client: %s, server: www.example.org, request: \"GET /private/ HTTP/1.1\", host: \"www.example.org\"\n", stamp.Format("2006/01/02 15:04:05"), client)
		}
		fmt.Fprintf(&logins, "%s host sshd[99]: Failed password for root from 172.71.210.9 port 5000 ssh2\n", stamp.Format(time.RFC3339))
	}
	for name, text := range map[string]string{web: lines.String(), ssh: logins.String()} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, fmt.Sprintf("[embedded_broker]\nlisten = \"127.0.0.1:0\"\n[topics.nginx]\ndetect = true\ncorroborate = \"off\"\nfiles = [%q]\njournal = []\ndocker = []\n[topics.sshd]\ndetect = true\ncorroborate = \"off\"\nfiles = [%q]\njournal = []\n", web, ssh))
	web443 := func(address string) bool { return n.fake.Packet(netip.MustParseAddr(address), "tcp", 443, 40) }
	n.eventually("another client is banned", func() bool { return web443("45.1.1.1") })
	// A relay speaks every protocol, so the address that sshd names is the offender.
	n.eventually("sshd's offender is banned", func() bool { return n.fake.Packet(netip.MustParseAddr("172.71.210.9"), "tcp", 22, 40) })
	for address, want := range map[string]string{"172.71.210.9": "an edge of a content delivery network (Cloudflare)", "104.28.7.7": "an exit of a relay", "2606:4700:10::7": "an edge"} {
		var x control.Explanation
		n.eventually(address+" is explained", func() bool {
			x = n.explain(address)
			return len(x.Held) > 0
		})
		if h := x.Held[0]; web443(address) || h.Topic != "nginx" || !strings.Contains(h.Why, want) || !strings.HasPrefix(h.From, "https://") {
			t.Errorf("%s: banned %v, %+v", address, web443(address), x.Held)
		}
	}
	var s control.Status
	if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(s.Warnings, func(w control.Warning) bool {
		return w.Code == "proxies" && strings.Contains(w.Text, "nginx: 3 addresses of proxies")
	}) {
		t.Errorf("nobody is told: %+v", s.Warnings)
	}
	if len(n.explain("45.1.1.1").Held) != 0 {
		t.Error("who is no proxy is held")
	}
}

// Whether proxies may stand before a service is a property of its topic: what it
// speaks, and not the number of its port. The operator's own lists count as the
// shipped one does, and who is behind a carrier's translator is banned here.
func TestWhoIsHeldDependsOnWhatAServiceSpeaksAndOnTheKindOfAddress(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	definition := func(name, protocol, port string) string {
		return fmt.Sprintf("name = %q\ntitle = \"x\"\ntarget = \"ip\"\nprotocol = %q\n[detect]\nmaxretry = 1\nfindtime = \"1m\"\nbantime = \"1m\"\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^no <ADDR>$']\n[enforce]\nports = [%q]\nprotocols = [\"tcp\"]\n", name, protocol, port)
	}
	for name, text := range map[string]string{
		"agent.toml":          "proxy = [\"192.0.2.10\"]\n[topics.door]\nproxy = [\"192.0.2.11\"]\n",
		"topics.d/shop.toml":  definition("shop", "http", "9000"),
		"topics.d/door.toml":  definition("door", "", "9001"),
		"topics.d/site.toml":  definition("site", "", "8443"),
		"shared.d/ours.list":  "[cdn] Our own edges\n203.0.113.0/24\n[nat] Our carrier\n198.51.100.0/24\n",
		"shared.d/other.list": "192.0.2.99 # of no kind\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := settings.Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	shared := neverban.NewSet(s.Shared(time.Now()))
	p := &proxies{settings: func() *settings.Settings { return s }, inside: shared.Inside, now: time.Now}
	for _, c := range []struct {
		topic   ban.Topic
		address string
		kind    string // "" is banned
	}{
		{"shop", "18.160.0.1", "cdn"},
		{"shop", "23.33.0.1", "cdn"},
		{"shop", "151.101.1.1", "cdn"},
		{"shop", "203.0.113.7", "cdn"},
		{"shop", "2a02:26f7::/64", "relay"},
		{"shop", "2600:1400:7::/64", "cdn"},
		{"site", "18.160.0.1", "cdn"},
		{"door", "18.160.0.1", ""},
		{"door", "203.0.113.7", ""},
		{"shop", "198.51.100.7", ""},
		{"shop", "100.64.0.1", ""},
		{"shop", "192.0.2.99", ""},
		{"shop", "8.8.8.8", ""},
		{"shop", "45.1.1.1", ""},
		{"shop", "192.0.2.10", "proxy"},
		{"door", "192.0.2.10", "proxy"},
		{"door", "192.0.2.11", "proxy"},
		{"shop", "192.0.2.11", ""},
	} {
		h, held, _ := p.hold(detect.Decision{Topic: c.topic, Target: ban.MustTarget(c.address), Hits: 1, Last: time.Now()})
		if held != (c.kind != "") || h.Kind != c.kind {
			t.Errorf("%s in %s: held %t as %q, want %q", c.address, c.topic, held, h.Kind, c.kind)
		}
	}
	for _, bad := range []string{"proxy = [\"example.org\"]\n", "[topics.sshd]\nproxy = [\"nat\"]\n"} {
		if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := settings.Load(dir, ""); err == nil || !strings.Contains(err.Error(), "proxy") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
