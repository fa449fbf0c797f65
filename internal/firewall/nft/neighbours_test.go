package nft

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/firewall"

	"banmesh/internal/firewall/testnet"
)

// neighbour is another program's firewall: its set-up, and its steps when
// it is reloaded, and how one sees that it is still whole.
type neighbour struct {
	name, needs    string
	setUp, reload  func(t *testing.T)
	show           func(t *testing.T) string
	survivesFlush  bool
	reloadsRuleset bool // its reload flushes everybody's rules
}

func nftScript(script string) func(t *testing.T) {
	return func(t *testing.T) { testnet.Feed(t, script, "nft", "-f", "-") }
}

func shell(script string) func(t *testing.T) {
	return func(t *testing.T) { testnet.Run(t, "sh", "-ec", script) }
}

// dockerRules are the chains that Docker 27 writes with its iptables backend
// for one published port, in its own order.
const dockerRules = `
%[1]s -t filter -N DOCKER; %[1]s -t filter -N DOCKER-USER; %[1]s -t filter -N DOCKER-FORWARD
%[1]s -t filter -A DOCKER-USER -j RETURN
%[1]s -t filter -A FORWARD -j DOCKER-USER; %[1]s -t filter -A FORWARD -j DOCKER-FORWARD
%[1]s -t filter -A DOCKER-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
%[1]s -t filter -A DOCKER-FORWARD -j DOCKER
%[1]s -t filter -A DOCKER -d 10.8.0.2/32 -p tcp --dport 22 -j ACCEPT
%[1]s -t nat -N DOCKER; %[1]s -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
%[1]s -t nat -A DOCKER -p tcp --dport 2222 -j DNAT --to-destination 10.8.0.2:22
`

// ufwRules are the effect of ufw's before.rules: established is accepted first.
const ufwRules = `*filter
:INPUT ACCEPT [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
-A INPUT -j ufw-before-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -j ufw-user-input
-A ufw-user-input -p tcp --dport 22 -j ACCEPT
-A ufw-user-input -p udp -j ACCEPT
COMMIT
`

// firewalldRules are the shape of firewalld's nftables backend.
const firewalldRules = `table inet firewalld {
	chain filter_PREROUTING { type filter hook prerouting priority filter + 10; policy accept; }
	chain filter_INPUT { type filter hook input priority filter + 10; policy accept; ct state { established, related } accept; udp dport { 22, 9999 } accept; reject with icmpx admin-prohibited; }
	chain nat_PREROUTING { type nat hook prerouting priority dstnat + 10; policy accept; }
}
`

func neighbours() []neighbour {
	save := func(tool string) func(t *testing.T) string {
		return func(t *testing.T) string {
			return regexp.MustCompile(`(?m)^#.*$|\[\d+:\d+\]`).ReplaceAllString(testnet.Run(t, tool+"-save"), "")
		}
	}
	table := func(family, name string) func(t *testing.T) string {
		return func(t *testing.T) string { return testnet.Run(t, "nft", "-s", "list", "table", family, name) }
	}
	return []neighbour{
		{
			name: "fail2ban with nftables", needs: "/usr/bin/fail2ban-server",
			setUp: fail2banBans, reload: shell("nft delete element inet f2b-table addr-set-sshd { 203.0.113.77 }; nft add element inet f2b-table addr-set-sshd { 203.0.113.77 }"),
			show: table("inet", "f2b-table"),
		},
		{
			name: "docker with iptables-nft", needs: "/usr/sbin/iptables-nft",
			setUp: shell(fmt.Sprintf(dockerRules, "iptables-nft")), reload: shell("iptables-nft -t filter -F DOCKER-USER; iptables-nft -t filter -A DOCKER-USER -j RETURN"),
			show: save("iptables-nft"),
		},
		{
			name: "docker with iptables-legacy", needs: "/usr/sbin/iptables-legacy",
			setUp: shell(fmt.Sprintf(dockerRules, "iptables-legacy")), reload: shell("iptables-legacy -t filter -F DOCKER-USER; iptables-legacy -t filter -A DOCKER-USER -j RETURN"),
			show: save("iptables-legacy"), survivesFlush: true,
		},
		{
			name: "docker with nftables", needs: "/usr/sbin/nft",
			setUp: nftScript(`table ip docker-bridges {
				chain filter-FORWARD { type filter hook forward priority filter; policy accept; ct state established,related accept; }
				chain nat-PREROUTING { type nat hook prerouting priority dstnat; policy accept; fib daddr type local tcp dport 2222 dnat to 10.8.0.2:22; }
			}`), reload: nftScript("flush chain ip docker-bridges filter-FORWARD; add rule ip docker-bridges filter-FORWARD ct state established,related accept"),
			show: table("ip", "docker-bridges"),
		},
		{
			name: "ufw", needs: "/usr/sbin/iptables-restore",
			setUp:  func(t *testing.T) { testnet.Feed(t, ufwRules, "iptables-restore") },
			reload: func(t *testing.T) { testnet.Feed(t, ufwRules, "iptables-restore") },
			show:   save("iptables"),
		},
		{
			name: "firewalld", needs: "/usr/sbin/nft",
			setUp: nftScript(firewalldRules), reload: nftScript("delete table inet firewalld\n" + firewalldRules),
			show: table("inet", "firewalld"),
		},
		{
			name: "crowdsec's bouncer", needs: "/usr/sbin/nft",
			setUp: nftScript(`table ip crowdsec {
				set crowdsec-blacklists { type ipv4_addr; flags timeout; }
				chain crowdsec-chain-input { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists drop; }
			}`), reload: nftScript("delete table ip crowdsec; table ip crowdsec { set crowdsec-blacklists { type ipv4_addr; flags timeout; }; chain crowdsec-chain-input { type filter hook input priority filter - 10; policy accept; ip saddr @crowdsec-blacklists drop; }; }"),
			show: table("ip", "crowdsec"),
		},
		{
			name: "nftables.service", needs: "/usr/sbin/nft",
			setUp:  nftScript("flush ruleset; table inet filter { chain input { type filter hook input priority filter; policy accept; ct state established accept; }; }"),
			reload: nftScript("flush ruleset; table inet filter { chain input { type filter hook input priority filter; policy accept; ct state established accept; }; }"),
			show:   table("inet", "filter"), reloadsRuleset: true,
		},
	}
}

// fail2banBans starts the installed fail2ban with its nftables action and lets
// it ban somebody.
func fail2banBans(t *testing.T) {
	dir := t.TempDir()
	testnet.Run(t, "cp", "-r", "/etc/fail2ban", dir+"/etc")
	testnet.Must(t, os.RemoveAll(dir+"/etc/jail.d"))
	testnet.Must(t, os.WriteFile(dir+"/log", nil, 0o600))
	testnet.Must(t, os.WriteFile(dir+"/etc/jail.local", []byte("[DEFAULT]\nbanaction = nftables-multiport\nbackend = polling\n[sshd]\nenabled = true\nlogpath = "+dir+"/log\n"), 0o600))
	testnet.Must(t, os.WriteFile(dir+"/etc/fail2ban.local", []byte("[Definition]\nlogtarget = "+dir+"/out\ndbfile = None\n"), 0o600))
	common := []string{"-c", dir + "/etc", "-s", dir + "/sock", "-p", dir + "/pid"}
	server := exec.Command("fail2ban-server", append(common, "-f", "start")...)
	testnet.Must(t, server.Start())
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	client := func(args ...string) error { return exec.Command("fail2ban-client", append(common, args...)...).Run() }
	testnet.Eventually(t, func() bool { return client("status", "sshd") == nil })
	testnet.Must(t, client("set", "sshd", "banip", "203.0.113.77"))
	testnet.Eventually(t, func() bool {
		out, err := exec.Command("nft", "list", "table", "inet", "f2b-table").CombinedOutput()
		return err == nil && strings.Contains(string(out), "203.0.113.77")
	})
}

func TestWeLiveTogetherWithOtherFirewalls(t *testing.T) {
	for _, o := range neighbours() {
		t.Run(o.name, func(t *testing.T) {
			if _, err := os.Stat(o.needs); err != nil {
				t.Skip(o.needs + " is not installed")
			}
			testnet.Enter(t)
			ctx := testnet.Context(t)
			h := testnet.Attach(t, "veth0", []string{"10.9.0.1/24"}, []string{"10.9.0.2/24", "10.9.0.200/24"})
			h.Proof = "10.9.0.200"
			to, proof := testnet.ListenUDP(t, "10.9.0.1:22"), testnet.ListenUDP(t, "10.9.0.1:9999")
			n := newTest(t, Options{})
			dropped := func(when string, want bool) {
				t.Helper()
				if got := !h.Arrives("10.9.0.2", to, proof); got != want {
					t.Errorf("%s: dropped %v, want %v\n%s", when, got, want, testnet.Run(t, "nft", "list", "ruleset"))
				}
			}
			o.setUp(t)
			before := o.show(t)
			dropped("theirs alone", false)
			testnet.Must(t, n.Configure(ctx, simple()))
			testnet.Must(t, n.Replace(ctx, slices.Values(bans("sshd", time.Now().Add(time.Hour), "10.9.0.2"))))
			dropped("both", true)
			if now := o.show(t); now != before {
				t.Errorf("we changed theirs:\n%s\nbefore:\n%s", now, before)
			}
			o.reload(t)
			if !o.reloadsRuleset {
				dropped("reloaded", true)
			}
			d, err := n.Check(ctx)
			if err != nil || d.Changed != o.reloadsRuleset {
				t.Errorf("%+v, %v", d, err)
			}
			dropped("reloaded and checked", true)
			all, err := Neighbours("banmesh")
			testnet.Must(t, err)
			if i := slices.IndexFunc(all, func(n firewall.Neighbour) bool { return n.Ours }); i != 0 || len(all) < 2 && !o.survivesFlush {
				t.Errorf("we are not the first: %+v", all)
			}
			testnet.Must(t, n.Close())
			testnet.Must(t, Remove("banmesh"))
			if now := o.show(t); now != before {
				t.Errorf("after Remove theirs is:\n%s\nbefore:\n%s", now, before)
			}
			dropped("without us", false)
			// Started after theirs or before, the order of packets is the same.
			if !o.survivesFlush && !o.reloadsRuleset {
				testnet.Run(t, "nft", "flush", "ruleset")
				n = newTest(t, Options{})
				testnet.Must(t, n.Configure(ctx, simple()))
				testnet.Must(t, n.Replace(ctx, slices.Values(bans("sshd", time.Now().Add(time.Hour), "10.9.0.2"))))
				if !strings.Contains(o.name, "fail2ban") {
					o.setUp(t)
				}
				dropped("ours first", true)
			}
		})
	}
}
