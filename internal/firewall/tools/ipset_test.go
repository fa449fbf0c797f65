package tools

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestIPSetEnforcesAsNFTablesDoes(t *testing.T) {
	for _, legacy := range []bool{false, true} {
		t.Run(fmt.Sprintf("legacy=%v", legacy), func(t *testing.T) {
			testnet.Enter(t)
			ctx := testnet.Context(t)
			h := testnet.Attach(t, "veth0", []string{"10.9.0.1/24", "2001:db8:9::1/64"},
				[]string{"10.9.0.2/24", "10.9.0.3/24", "10.9.0.200/24", "2001:db8:9::2/64", "2001:db8:9:1::7/128"})
			testnet.Run(t, "ip", "route", "add", "2001:db8:9:1::7/128", "dev", "veth0")
			now := time.Now()
			sw := filepath.Join(t.TempDir(), "off")
			s := NewIPSet(Options{Now: func() time.Time { return now }, Switch: sw}, legacy)
			c := firewall.Config{
				Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22, 2222}}, {Topic: "all"}, {Topic: "watched", Observe: true}},
				Never:  testnet.Prefixes("10.9.0.3"),
			}
			testnet.Must(t, s.Configure(ctx, c))
			testnet.Must(t, s.Configure(ctx, c))
			until := now.Add(time.Hour)
			testnet.Must(t, s.Replace(ctx, slices.Values(slices.Concat(
				bans("sshd", until, "10.9.0.2", "2001:db8:9::/64"),
				bans("all", until, "10.9.0.3", "198.51.100.0/24"),
				bans("watched", until, "10.9.0.2")))))
			arrives := func(from, to string, port int) bool {
				t.Helper()
				h.Proof = "10.9.0.200"
				if strings.Contains(to, ":") {
					h.Proof = "2001:db8:9:1::7"
				}
				u, proof := testnet.ListenUDP(t, net.JoinHostPort(to, fmt.Sprint(port))), testnet.ListenUDP(t, net.JoinHostPort(to, "9999"))
				defer func() { _ = u.Close(); _ = proof.Close() }()
				return h.Arrives(from, u, proof)
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
			testnet.Must(t, err)
			if got["sshd"].Packets != 2 || got["watched"].Packets != 1 || got["all"].Packets != 0 {
				t.Errorf("counters %+v", got)
			}
			testnet.Must(t, s.Apply(ctx, nil, []firewall.Key{{Prefix: testnet.Prefix("10.9.0.2"), Topic: "sshd"}, {Prefix: testnet.Prefix("2001:db8:9::/64"), Topic: "sshd"}}))
			check("unbanned", true)
			testnet.Must(t, s.Apply(ctx, bans("sshd", until, "10.9.0.2", "2001:db8:9::2"), nil))
			check("banned again", false)
			for _, f := range families {
				testnet.Run(t, s.tool(f.iptables), "-t", "raw", "-F")
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
			// A set with one entry more and one with one less are found by counting.
			testnet.Run(t, "ipset", "add", s.setName("all", true, true), "10.9.0.9")
			testnet.Run(t, "ipset", "del", s.setName("sshd", true, true), "10.9.0.2")
			testnet.Run(t, "ipset", "add", s.neverName("4"), "10.9.0.2")
			now = now.Add(time.Minute)
			if d, err := s.Check(ctx); err != nil || !d.Cured || len(d.What) != 3 {
				t.Errorf("%+v, %v", d, err)
			}
			check("entries exchanged by another", false)
			now = now.Add(time.Minute)
			if d, err := s.Check(ctx); err != nil || d.Changed {
				t.Errorf("drift of nothing: %+v, %v", d, err)
			}
			sum, err := InspectIPSet(ctx, "", legacy, []ban.Topic{"sshd", "watched"})
			if err != nil || !sum.Present || sum.Maps[0].Elements != 3 || sum.Maps[2].Elements != 1 || sum.Counters["sshd"].Packets == 0 {
				t.Errorf("%+v, %v", sum, err)
			}
			if err := RemoveIPSet(ctx, "", legacy); !errors.Is(err, firewall.ErrBusy) {
				t.Errorf("removed under a running enforcer: %v", err)
			}
			testnet.Must(t, os.WriteFile(sw, nil, 0o600))
			testnet.Must(t, PanicIPSet(ctx, "", legacy))
			check("panic", true)
			if d, err := s.Check(ctx); err != nil || !d.Off {
				t.Errorf("%+v, %v", d, err)
			}
			testnet.Must(t, s.Configure(ctx, c))
			now = now.Add(time.Minute)
			_, err = s.Check(ctx)
			testnet.Must(t, err)
			check("still off", true)
			testnet.Must(t, os.Remove(sw))
			if d, err := s.Check(ctx); err != nil || d.Off {
				t.Errorf("%+v, %v", d, err)
			}
			check("resumed", false)
			testnet.Must(t, s.Close())
			testnet.Must(t, RemoveIPSet(ctx, "", legacy))
			testnet.Must(t, RemoveIPSet(ctx, "", legacy))
			if left := testnet.Run(t, "ipset", "list", "-name"); left != "" {
				t.Errorf("left: %s", left)
			}
		})
	}
}
