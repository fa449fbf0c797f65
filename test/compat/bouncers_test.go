// Package compat runs real programs of others against this node's protocols.
package compat

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/lapi"
	"banmesh/internal/export"
	"banmesh/internal/firewall/testnet"
)

// lapiNode is a server of bouncers on loopback, over a table that the test fills.
type lapiNode struct {
	table *export.Table
	url   string
	key   string
}

func newLAPI(t *testing.T) *lapiNode {
	t.Helper()
	table := export.NewTable(nil)
	keys, err := credentials.OpenKeys(filepath.Join(t.TempDir(), "bouncers.json"))
	testnet.Must(t, err)
	key, err := keys.Add("real", nil, time.Now())
	testnet.Must(t, err)
	server := lapi.New(lapi.Options{Table: table, Keys: keys, Log: slog.New(slog.DiscardHandler)})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testnet.Must(t, err)
	h := &http.Server{Handler: server, ReadHeaderTimeout: time.Second}
	go h.Serve(l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { h.Close() })
	return &lapiNode{table, "http://" + l.Addr().String() + "/", key}
}

func (n *lapiNode) ban(target string, d time.Duration) {
	n.table.Apply([]export.Entry{{Target: ban.MustTarget(target), Topic: "sshd", Class: ban.ClassAuth, Until: time.Now().Add(d), Here: true}}, nil)
}

func (n *lapiNode) lift(target string) {
	n.table.Apply(nil, []export.Key{{Target: ban.MustTarget(target), Topic: "sshd"}})
}

// start runs a program until the test ends.
func start(t *testing.T, name string, args ...string) {
	t.Helper()
	var out strings.Builder
	c := exec.CommandContext(t.Context(), name, args...)
	c.Stdout, c.Stderr = &out, &out
	c.Cancel = func() error { return c.Process.Signal(os.Interrupt) }
	c.WaitDelay = 10 * time.Second
	testnet.Must(t, c.Start())
	ctx, ended := context.WithCancel(context.Background())
	go func() { c.Wait(); ended() }() //nolint:errcheck // it is interrupted
	t.Cleanup(func() {
		<-ctx.Done()
		if t.Failed() {
			t.Logf("%s:\n%s", name, out.String())
		}
	})
}

// Debian's firewall bouncer enforces our bans in the kernel, in both of its
// modes: addresses, small ranges, extensions, unbans and ends.
func TestDebiansFirewallBouncerEnforcesOurBans(t *testing.T) {
	program, err := exec.LookPath("crowdsec-firewall-bouncer")
	if err != nil {
		t.Skip("crowdsec-firewall-bouncer is not installed")
	}
	for mode, list := range map[string][]string{
		"nftables": {"nft", "list", "ruleset"},
		"iptables": {"ipset", "list"},
	} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			testnet.Enter(t)
			n := newLAPI(t)
			n.ban("192.0.2.7", time.Hour)
			n.ban("192.0.2.8", 8*time.Second)
			n.ban("203.0.113.16/30", time.Hour)
			conf := filepath.Join(t.TempDir(), "bouncer.yaml")
			testnet.Must(t, os.WriteFile(conf, fmt.Appendf(nil, `mode: %s
pid_dir: %s
update_frequency: 1s
daemonize: false
log_mode: stdout
log_level: info
api_url: %s
api_key: %s
deny_action: DROP
supported_decisions_types: [ban]
blacklists_ipv4: crowdsec-blacklists
blacklists_ipv6: crowdsec6-blacklists
ipset_type: nethash
iptables_chains: [INPUT]
nftables:
  ipv4: {enabled: true, set-only: false, table: crowdsec, chain: crowdsec-chain}
  ipv6: {enabled: true, set-only: false, table: crowdsec6, chain: crowdsec6-chain}
prometheus: {enabled: false}
`, mode, t.TempDir(), n.url, n.key), 0o600))
			start(t, program, "-c", conf)
			// holds matches whole values: an address is not part of another's.
			holds := func(value string) bool {
				out := strings.NewReplacer(",", " ", "}", " ").Replace(testnet.Run(t, list[0], list[1:]...))
				return strings.Contains(out+" ", " "+value+" ") || strings.Contains(out, "\n"+value+" ")
			}
			all := func(want bool, values ...string) func() bool {
				return func() bool {
					for _, v := range values {
						if holds(v) != want {
							return false
						}
					}
					return true
				}
			}
			testnet.Eventually(t, all(true, "192.0.2.7", "192.0.2.8", "203.0.113.16", "203.0.113.17", "203.0.113.19"))
			// An extension is passed over while the element lives, and told again.
			n.ban("192.0.2.8", time.Hour)
			n.ban("192.0.2.9", time.Hour)
			n.lift("192.0.2.7")
			testnet.Eventually(t, func() bool { return all(false, "192.0.2.7")() && all(true, "192.0.2.9")() })
			ended := time.Now().Add(9 * time.Second)
			testnet.Eventually(t, func() bool { return time.Now().After(ended) && holds("192.0.2.8") })
			n.lift("203.0.113.16/30")
			testnet.Eventually(t, all(false, "203.0.113.16", "203.0.113.19"))
		})
	}
}

// Debian's custom bouncer is an exact record of each add and del: for a course
// of bans, extensions, lifts and ends it says no more and no less than happened.
func TestDebiansCustomBouncerIsToldEachChangeOnce(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("crowdsec-custom-bouncer")
	if err != nil {
		t.Skip("crowdsec-custom-bouncer is not installed")
	}
	n := newLAPI(t)
	dir := t.TempDir()
	record := filepath.Join(dir, "told")
	testnet.Must(t, os.WriteFile(filepath.Join(dir, "told.sh"), fmt.Appendf(nil, "#!/bin/sh\necho \"$1 $2\" >> %s\n", record), 0o755))
	conf := filepath.Join(dir, "bouncer.yaml")
	testnet.Must(t, os.WriteFile(conf, fmt.Appendf(nil, `bin_path: %[1]s/told.sh
piddir: %[1]s
update_frequency: 1s
cache_retention_duration: 1h
daemonize: false
log_mode: stdout
log_level: info
api_url: %[2]s
api_key: %[3]s
`, dir, n.url, n.key), 0o600))
	told := func() []string {
		b, err := os.ReadFile(record)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	count := func(line string) (count int) {
		for _, x := range told() {
			if x == line {
				count++
			}
		}
		return count
	}
	n.ban("192.0.2.7", time.Hour)
	n.ban("203.0.113.0/24", time.Hour)
	n.ban("2001:db8:5::/64", time.Hour)
	n.ban("192.0.2.8", 3*time.Second)
	start(t, program, "-c", conf)
	for _, x := range []string{"192.0.2.7", "203.0.113.0/24", "2001:db8:5::/64", "192.0.2.8"} {
		testnet.Eventually(t, func() bool { return count("add "+x) == 1 })
	}
	n.ban("192.0.2.9", time.Hour)
	n.ban("192.0.2.7", 2*time.Hour) // an extension is no second ban
	n.lift("203.0.113.0/24")
	testnet.Eventually(t, func() bool {
		n.table.Expire()
		return count("add 192.0.2.9") == 1 && count("del 203.0.113.0/24") > 0 && count("del 192.0.2.8") > 0
	})
	n.lift("192.0.2.7")
	n.lift("2001:db8:5::/64")
	n.lift("192.0.2.9")
	testnet.Eventually(t, func() bool {
		return count("del 192.0.2.7") > 0 && count("del 2001:db8:5::/64") > 0 && count("del 192.0.2.9") > 0
	})
	// Added addresses are deleted after that, and none that was never added.
	held := map[string]bool{}
	for _, line := range told() {
		switch word, value, _ := strings.Cut(line, " "); {
		case word == "add":
			held[value] = true
		case word == "del":
			if _, ever := held[value]; !ever {
				t.Errorf("%s is deleted and was never added", value)
			}
			held[value] = false
		default:
			t.Errorf("%q", line)
		}
	}
	for value, in := range held {
		if in {
			t.Errorf("%s is held and lifted: %v", value, told())
		}
	}
	if len(held) != 5 {
		t.Errorf("%v", held)
	}
}
