package firewall

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

func TestIPSetEnforcesAsNFTablesDoes(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		t.Run(fmt.Sprintf("legacy=%v", legacy), func(t *testing.T) {
			inNamespace(t)
			ctx := testContext(t)
			h := attach(t, "veth0", []string{"10.9.0.1/24", "2001:db8:9::1/64"},
				[]string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.200/24", "2001:db8:9::2/64", "2001:db8:9:1::7/128"})
			run(t, "ip", "route", "add", "2001:db8:9:1::7/128", "dev", "veth0")
			now := time.Now()
			sw := filepath.Join(t.TempDir(), "off")
			s := NewIPSet(ToolOptions{Now: func() time.Time { return now }, Switch: sw}, legacy)
			c := Config{
				Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22, 2222}}, {Topic: "all"}, {Topic: "watched", Observe: true}},
				Never:  prefixes("10.9.0.3"),
			}
			mustDo(t, s.Configure(ctx, c))
			mustDo(t, s.Configure(ctx, c))
			until := now.Add(time.Hour)
			mustDo(t, s.Replace(ctx, slices.Values(slices.Concat(
				bans("sshd", until, "10.9.0.2", "2001:db8:9::/64"),
				bans("all", until, "10.9.0.3", "198.51.100.0/24"),
				bans("watched", until, "10.9.0.2")))))
			arrives := func(from, to string, port int) bool {
				t.Helper()
				h.proof = "10.9.0.200"
				if strings.Contains(to, ":") {
					h.proof = "2001:db8:9:1::7"
				}
				u, proof := listenUDP(t, net.JoinHostPort(to, fmt.Sprint(port))), listenUDP(t, net.JoinHostPort(to, "9999"))
				defer func() { _ = u.Close(); _ = proof.Close() }()
				return h.arrives(from, u, proof)
			}
			check := func(when string, wantSSH bool) {
				t.Helper()
				for _, x := range []struct {
					from, to string
					port     int
					want     bool
				}{
					{"10.9.0.2", "10.9.0.1", 22, wantSSH},
					{"10.9.0.2", "10.9.0.1", 80, true},
					{"10.9.0.3", "10.9.0.1", 22, true},
					{"2001:db8:9::2", "2001:db8:9::1", 22, wantSSH},
					{"2001:db8:9::2", "2001:db8:9::1", 80, true},
				} {
					if got := arrives(x.from, x.to, x.port); got != x.want {
						t.Errorf("%s: %s to %d arrives %v, want %v", when, x.from, x.port, got, x.want)
					}
				}
			}
			check("banned", false)
			got, err := s.Counters(ctx)
			mustDo(t, err)
			if got["sshd"].Packets != 2 || got["watched"].Packets != 1 || got["all"].Packets != 0 {
				t.Errorf("counters %+v", got)
			}
			mustDo(t, s.Apply(ctx, nil, []Key{{pfx("10.9.0.2"), "sshd"}, {pfx("2001:db8:9::/64"), "sshd"}}))
			check("unbanned", true)
			mustDo(t, s.Apply(ctx, bans("sshd", until, "10.9.0.2", "2001:db8:9::2"), nil))
			check("banned again", false)
			for _, f := range families {
				run(t, s.tool(f.iptables), "-t", "raw", "-F")
			}
			now = now.Add(time.Minute)
			if d, err := s.Check(ctx); err != nil || !d.Cured {
				t.Errorf("%+v, %v", d, err)
			}
			check("flushed by another", false)
			now = now.Add(time.Minute)
			if d, err := s.Check(ctx); err != nil || d.Changed {
				t.Errorf("drift of nothing: %+v, %v", d, err)
			}
			sum, err := InspectIPSet(ctx, "", legacy, []ban.Topic{"sshd", "watched"})
			if err != nil || !sum.Present || sum.Maps[0].Elements != 3 || sum.Maps[2].Elements != 1 || sum.Counters["sshd"].Packets == 0 {
				t.Errorf("%+v, %v", sum, err)
			}
			if err := RemoveIPSet(ctx, "", legacy); !errors.Is(err, ErrBusy) {
				t.Errorf("removed under a running enforcer: %v", err)
			}
			mustDo(t, os.WriteFile(sw, nil, 0o600))
			mustDo(t, PanicIPSet(ctx, "", legacy))
			check("panic", true)
			if d, err := s.Check(ctx); err != nil || !d.Off {
				t.Errorf("%+v, %v", d, err)
			}
			mustDo(t, s.Configure(ctx, c))
			now = now.Add(time.Minute)
			_, err = s.Check(ctx)
			mustDo(t, err)
			check("still off", true)
			mustDo(t, os.Remove(sw))
			if d, err := s.Check(ctx); err != nil || d.Off {
				t.Errorf("%+v, %v", d, err)
			}
			check("resumed", false)
			mustDo(t, s.Close())
			mustDo(t, RemoveIPSet(ctx, "", legacy))
			mustDo(t, RemoveIPSet(ctx, "", legacy))
			if left := run(t, "ipset", "list", "-name"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}

func TestAHookIsToldEverythingOnceAndOnlyFacts(t *testing.T) {
	dir := t.TempDir()
	program, told, broken := filepath.Join(dir, "hook"), filepath.Join(dir, "told"), filepath.Join(dir, "broken")
	mustDo(t, os.WriteFile(program, []byte("#!/bin/sh\n[ -e "+broken+" ] && exit 1\necho \"$@\" >> "+told+"\n"), 0o700))
	now := time.Unix(1_800_000_000, 0)
	sw := filepath.Join(dir, "off")
	h, err := NewHook(ToolOptions{Now: func() time.Time { return now }, Switch: sw}, []string{program, "first argument"})
	mustDo(t, err)
	ctx := testContext(t)
	heard := func() string {
		b, err := os.ReadFile(told)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		_ = os.Remove(told)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	mustDo(t, h.Configure(ctx, Config{Scopes: []Scope{{Topic: "sshd"}, {Topic: "watched", Observe: true}}, Never: prefixes("203.0.113.0/24")}))
	mustDo(t, h.Replace(ctx, slices.Values(slices.Concat(bans("sshd", now.Add(time.Minute), "192.0.2.1", "203.0.113.9"), bans("watched", now.Add(time.Hour), "192.0.2.9"), bans("sshd", time.Time{}, "2001:db8::/32")))))
	want := "first argument ban sshd 192.0.2.1/32 60\nfirst argument ban sshd 2001:db8::/32 0\nfirst argument unban sshd 203.0.113.9/32 0\nfirst argument unban watched 192.0.2.9/32 0"
	if got := heard(); got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	mustDo(t, os.WriteFile(broken, nil, 0o600))
	if err := h.Apply(ctx, bans("sshd", now.Add(time.Hour), "192.0.2.2"), nil); err == nil {
		t.Error("a failing hook is no error")
	}
	mustDo(t, os.Remove(broken))
	now = now.Add(2 * time.Minute)
	d, err := h.Check(ctx)
	mustDo(t, err)
	want = "first argument ban sshd 192.0.2.2/32 3480\nfirst argument unban sshd 192.0.2.1/32 0\nfirst argument unban sshd 203.0.113.9/32 0"
	if got := heard(); got != want || d.Owed != 0 {
		t.Errorf("told:\n%s\nwant:\n%s\n%+v", got, want, d)
	}
	if _, err := h.Check(ctx); err != nil || heard() != "" {
		t.Errorf("told again, %v", err)
	}
	// Switched off by hand, it is told that nothing is banned; and back again.
	mustDo(t, os.WriteFile(sw, nil, 0o600))
	if d, err := h.Check(ctx); err != nil || !d.Off {
		t.Errorf("%+v, %v", d, err)
	}
	want = "first argument unban sshd 192.0.2.2/32 0\nfirst argument unban sshd 2001:db8::/32 0\nfirst argument unban watched 192.0.2.9/32 0"
	if got := heard(); got != want {
		t.Errorf("switched off: told:\n%s", got)
	}
	mustDo(t, os.Remove(sw))
	if d, err := h.Check(ctx); err != nil || d.Off {
		t.Errorf("%+v, %v", d, err)
	}
	if got := heard(); !strings.Contains(got, "first argument ban sshd 192.0.2.2/32 3480") {
		t.Errorf("switched on: told:\n%s", got)
	}
	for _, argv := range [][]string{nil, {"hook"}, {filepath.Join(dir, "none")}, {dir}, {told}} {
		if _, err := NewHook(ToolOptions{}, argv); err == nil {
			t.Errorf("%q is a hook", argv)
		}
	}
}

func TestFail2bansNetfilterActionsMapOntoOurs(t *testing.T) {
	ctx := testContext(t)
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
		mustDo(t, err)
		got, err := b.Scope(ctx, "sshd", c.port, c.protocol)
		mustDo(t, err)
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
	mustDo(t, err)
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

// contract is what every enforcer does, whatever it enforces with.
func TestEveryEnforcerKeepsTheContract(t *testing.T) {
	inNamespace(t)
	hook, err := NewHook(ToolOptions{}, []string{"/bin/true"})
	mustDo(t, err)
	for name, f := range map[string]Firewall{"nftables": NewNFTables(Options{}), "ipset": NewIPSet(ToolOptions{}, false), "hook": hook, "fake": NewFake(nil)} {
		ctx := testContext(t)
		if err := f.Replace(ctx, func(func(Ban) bool) {}); !errors.Is(err, ErrNotConfigured) {
			t.Errorf("%s: Replace first: %v", name, err)
		}
		for _, c := range []Config{
			{Table: "UPPER"},
			{Table: "a b"},
			{Cap: -1},
			{Scopes: []Scope{{Topic: "x"}, {Topic: "x"}}},
			{Scopes: []Scope{{Topic: "X"}}},
			{Scopes: []Scope{{Topic: "x", Protocols: []string{"icmpx"}}}},
			{Scopes: []Scope{{Topic: "x", Ports: []uint16{0}}}},
			{Scopes: []Scope{{Topic: "x", MaxConnections: 1}}},
			{Never: make([]netip.Prefix, 1)},
		} {
			if err := f.Configure(ctx, c); err == nil {
				t.Errorf("%s: %+v passed", name, c)
			}
		}
		c := simple()
		c.Cap = 3
		mustDo(t, f.Configure(ctx, c))
		mustDo(t, f.Configure(ctx, c))
		until := time.Now().Add(time.Hour)
		if err := f.Apply(ctx, bans("sshd", until, "192.0.2.1"), nil); !errors.Is(err, ErrNoState) {
			t.Errorf("%s: Apply before Replace: %v", name, err)
		}
		if err := f.Replace(ctx, slices.Values(append(bans("sshd", until, "192.0.2.1", "2001:db8::/64"), bans("nobody", until, "192.0.2.2")...))); !errors.Is(err, ErrNoScope) {
			t.Errorf("%s: %v", name, err)
		}
		if err := f.Apply(ctx, bans("sshd", until, "192.0.2.3", "192.0.2.4"), nil); !errors.Is(err, ErrFull) {
			t.Errorf("%s: past the cap: %v", name, err)
		}
		mustDo(t, f.Apply(ctx, nil, []Key{{pfx("192.0.2.99"), "sshd"}, {pfx("192.0.2.1"), "sshd"}}))
		d, err := f.Check(ctx)
		if err != nil || d.Bans != 2 || d.Owed != 0 {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		counters, err := f.Counters(ctx)
		if err != nil || len(counters) == 1 {
			t.Errorf("%s: %v, %v", name, counters, err)
		}
		if _, err := f.Established(ctx, netip.MustParseAddr("192.0.2.1"), 22); !errors.Is(err, ErrNotRemembered) {
			t.Errorf("%s: Established: %v", name, err)
		}
		mustDo(t, f.Close())
		mustDo(t, f.Close())
		if _, err := f.Check(ctx); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: after Close: %v", name, err)
		}
	}
}

func TestTheFakeDecidesAboutPackets(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := NewFake(func() time.Time { return now })
	ctx := testContext(t)
	mustDo(t, f.Configure(ctx, Config{Scopes: []Scope{{Topic: "sshd", Ports: []uint16{22}, Remember: time.Minute}, {Topic: "watched", Observe: true}}, Never: prefixes("192.0.2.9")}))
	mustDo(t, f.Replace(ctx, slices.Values(slices.Concat(bans("sshd", now.Add(time.Minute), "192.0.2.0/24", "2001:db8::/64"), bans("watched", time.Time{}, "192.0.2.1")))))
	for _, c := range []struct {
		addr string
		port uint16
		want bool
	}{{"192.0.2.1", 22, true}, {"192.0.2.1", 80, false}, {"192.0.2.9", 22, false}, {"2001:db8::7", 22, true}, {"192.0.3.1", 22, false}} {
		if got := f.Packet(netip.MustParseAddr(c.addr), "tcp", c.port, 60); got != c.want {
			t.Errorf("%s:%d dropped %v", c.addr, c.port, got)
		}
	}
	counters, err := f.Counters(ctx)
	mustDo(t, err)
	if counters["sshd"] != (Counter{2, 120}) || counters["watched"] != (Counter{2, 120}) {
		t.Errorf("%+v", counters)
	}
	want := []Ban{{Prefix: pfx("192.0.2.0/24"), Topic: "sshd", Until: now.Add(time.Minute)}, {Prefix: pfx("192.0.2.1"), Topic: "watched"}, {Prefix: pfx("2001:db8::/64"), Topic: "sshd", Until: now.Add(time.Minute)}}
	if got := f.Bans(); !slices.EqualFunc(got, want, func(a, b Ban) bool { return a.Key() == b.Key() && a.Until.Equal(b.Until) }) {
		t.Errorf("%+v", got)
	}
	f.Peer(netip.MustParseAddr("192.0.2.1"), 22)
	if ok, err := f.Established(ctx, netip.MustParseAddr("192.0.2.1"), 22); err != nil || !ok {
		t.Errorf("%v, %v", ok, err)
	}
	now = now.Add(time.Minute)
	if ok, err := f.Established(ctx, netip.MustParseAddr("192.0.2.1"), 22); err != nil || ok {
		t.Errorf("still remembered: %v, %v", ok, err)
	}
	if f.Packet(netip.MustParseAddr("192.0.2.1"), "tcp", 22, 60) {
		t.Error("dropped past its end")
	}
	f.Fail(errors.New("kernel says no"))
	if err := f.Apply(ctx, bans("sshd", now.Add(time.Hour), "192.0.2.77"), nil); err == nil {
		t.Error("no failure")
	}
	f.Fail(nil)
	if d, err := f.Check(ctx); err != nil || d.Bans != 2 {
		t.Errorf("%+v, %v", d, err)
	}
}
