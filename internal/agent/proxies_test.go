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

	"banmesh/internal/control"
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
