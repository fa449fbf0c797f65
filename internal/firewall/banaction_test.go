package firewall

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/firewall/testnet"
)

func TestFail2bansNetfilterActionsMapOntoOurs(t *testing.T) {
	ctx := testnet.Context(t)
	for _, c := range []struct {
		action, port, protocol string
		want                   Scope
	}{
		{"nftables-multiport", "ssh", "tcp", Scope{Ports: []uint16{22}, Protocols: []string{"tcp"}}},
		{"nftables-allports", "ssh", "tcp", Scope{}},
		{"iptables[type=allports]", "ssh", "tcp", Scope{}},
		{`iptables-multiport[name=web, port="http,https", protocol=tcp]`, "ssh", "tcp", Scope{Ports: []uint16{80, 443}, Protocols: []string{"tcp"}}},
		{`nftables[type=multiport, protocol="tcp,udp", blocktype='reject with icmp port-unreachable']`, "53", "tcp", Scope{Ports: []uint16{53}, Protocols: []string{"tcp", "udp"}}},
		{"nftables", "2200:2202,22", "tcp", Scope{Ports: []uint16{22, 2200, 2201, 2202}, Protocols: []string{"tcp"}}},
		{"iptables-ipset-proto6", "0:65535", "tcp", Scope{Protocols: []string{"tcp"}}},
		{"ufw", "ssh", "tcp", Scope{}},
	} {
		b, err := ParseBanaction(c.action)
		testnet.Must(t, err)
		got, err := b.Scope(ctx, "sshd", c.port, c.protocol)
		testnet.Must(t, err)
		c.want.Topic = "sshd"
		if got.Topic != c.want.Topic || !slices.Equal(got.Ports, c.want.Ports) || !slices.Equal(got.Protocols, c.want.Protocols) {
			t.Errorf("%s: %+v, want %+v", c.action, got, c.want)
		}
	}
	for _, s := range []string{"sendmail", "", "cloudflare[cftoken=x]", "nftables[type", "nftables[type]", strings.Repeat("x", 5000)} {
		if b, err := ParseBanaction(s); err == nil {
			t.Errorf("%.40q is %+v", s, b)
		}
	}
	for _, port := range []string{"", "nosuchservice", "70000", "30:20", "-1", "1:60000", strings.Repeat("22,", 1_000), "1:1024,2000:3000"} {
		if s, err := (Banaction{}).Scope(ctx, "sshd", port, "tcp"); err == nil {
			t.Errorf("port %q: %+v", port, s)
		}
	}
	// Every such action that the installed fail2ban has.
	files, err := filepath.Glob("/etc/fail2ban/action.d/*.conf")
	testnet.Must(t, err)
	if len(files) == 0 {
		t.Skip("fail2ban is not installed")
	}
	netfilter := regexp.MustCompile(`^(nftables|iptables|firewallcmd|shorewall|ufw|route)`)
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".conf")
		if strings.HasSuffix(name, "-common") || !netfilter.MatchString(name) {
			continue
		}
		if _, err := ParseBanaction(name); err != nil {
			t.Error(err)
		}
	}
}

func FuzzBanactions(f *testing.F) {
	for _, s := range []string{"nftables", `iptables[type=allports, port="a,b"]`, "ufw[x=']"} {
		f.Add(s, "22,80:90", "tcp")
	}
	f.Fuzz(func(t *testing.T, s, port, protocol string) {
		b, err := ParseBanaction(s)
		if err != nil {
			return
		}
		if c, err := b.Scope(t.Context(), "x", port, protocol); err == nil {
			again := c
			if err := again.normalise(); err != nil || !slices.Equal(again.Ports, c.Ports) {
				t.Errorf("%+v is not normal: %v", c, err)
			}
		}
	})
}
