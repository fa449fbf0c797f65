package settings

import (
	"strings"
	"testing"

	"banmesh/internal/detect"
)

// The effect of a command is read from the whole of it: whose packets it is about, whether it
// adds or takes away, where it runs. Anything that is not understood is unknown.
func TestTheEffectOfAnOwnActionIsReadFromItsCommands(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		start, ban string
		kind       int
		said       string
	}{
		{"", "iptables -I INPUT -s <ip> -j DROP", effectBans, "iptables -I INPUT -s <ip> -j DROP"},
		{"", "iptables --insert=INPUT --source=<ip> --jump=REJECT", effectBans, "iptables --insert INPUT --source <ip> --jump REJECT"},
		{"", "iptables -I INPUT ! -s <ip> -j DROP", effectLets, ""},
		{"", "iptables -I INPUT -s ! <ip> -j DROP", effectLets, ""},
		{"", "iptables -D INPUT -s <ip> -j DROP", effectLets, ""},
		{"", "iptables -D INPUT -s <ip> -j ACCEPT", effectUnknown, ""},
		{"", "iptables -C INPUT -s <ip> -j DROP", effectUnknown, ""},
		{"", "iptables -C INPUT -s <ip> -j DROP 2>/dev/null || iptables -w 5 -I INPUT 1 -s <ip> -j DROP", effectBans, "iptables -I INPUT -s <ip> -j DROP"},
		{"", "if iptables -I INPUT -s <ip> -j DROP; then true; fi", effectUnknown, ""},
		{"", "iptables -I OUTPUT -d <ip> -j DROP", effectUnknown, ""},
		{"", "iptables -I INPUT -s <ip> -m hashlimit --hashlimit-above 5/s -j DROP", effectUnknown, ""},
		{"", "iptables -I INPUT -s <ip> -p tcp ! --dport 22 -j DROP", effectUnknown, ""},
		{"", "iptables -t nat -I PREROUTING -s <ip> -j REDIRECT", effectUnknown, ""},
		{"", "iptables -I INPUT -s <ip> -j LOG", effectUnknown, ""},
		{"", "iptables -I INPUT -s 192.0.2.0/24 -m comment --comment <ip> -j DROP", effectUnknown, ""},
		{"", "ssh router iptables -I INPUT -s <ip> -j DROP", effectUnknown, ""},
		{"", "ip netns exec x iptables -I INPUT -s <ip> -j DROP", effectUnknown, ""},
		{"", "echo iptables -I INPUT -s <ip> -j DROP", effectUnknown, ""},
		{"", "# iptables -I INPUT -s <ip> -j DROP\nlogger <ip>", effectUnknown, ""},
		{"", "logger '\niptables -I INPUT -s <ip> -j DROP\n'", effectUnknown, ""},
		{"", `sudo -n /sbin/iptables -I INPUT -s "<ip>" -m comment --comment 'the key 123' -j DROP`, effectBans, "iptables -I INPUT -s <ip> -j DROP"},
		{"", "for c in INPUT FORWARD; do iptables -I $c -s <ip>/32 -j DROP; done", effectBans, "iptables -I $c -s <ip>/32 -j DROP"},
		{"iptables -I INPUT -m set --match-set bad src -j DROP", "ipset add bad <ip> -exist", effectBans, "iptables -I INPUT --match-set bad -j DROP"},
		{"iptables -I INPUT -m set ! --match-set bad src -j DROP", "ipset add bad <ip>", effectLets, ""},
		{"iptables -I INPUT -m set --match-set bad src -j DROP", "ipset del bad <ip>", effectLets, ""},
		{"iptables -I INPUT -m set --match-set bad dst -j DROP", "ipset add bad <ip>", effectUnknown, ""},
		{"iptables -I INPUT -m set --match-set bad src -j DROP", "ipset add bad <ip> nomatch", effectUnknown, ""},
		{"iptables -I INPUT -m set --match-set bad src -j DROP", "ipset add bad 192.0.2.1", effectUnknown, ""},
		{"nft 'add rule inet f input ip saddr @bad counter drop'", `nft add element inet f bad '{ <ip> timeout 1h }'`, effectBans, "nft add rule f input saddr @bad drop"},
		{"nft add rule inet f input ip saddr != @bad drop", "nft add element inet f bad { <ip> }", effectLets, ""},
		{"nft add rule inet f input ip daddr @bad drop", "nft add element inet f bad { <ip> }", effectUnknown, ""},
		{"nft add rule inet f input ip saddr @bad limit rate 1/second drop", "nft add element inet f bad { <ip> }", effectUnknown, ""},
		{"nft add rule inet f input ip saddr @bad drop", "nft delete element inet f bad { <ip> }", effectLets, ""},
		{"", "nft insert rule inet f input ip saddr != <ip> tcp dport 22 drop", effectLets, ""},
		{"", "nft 'insert rule inet f input ip saddr { <ip> } tcp dport { 80, 443 } log prefix \"accept \" reject with tcp reset'", effectBans, "nft insert rule f input saddr <ip> dport 80,443 reject"},
		{"", "ufw insert 1 deny from <ip> to any", effectBans, "ufw deny from <ip>"},
		{"", "ufw delete deny from <ip>", effectLets, ""},
		{"", "ufw allow from <ip> to any port 22", effectLets, ""},
		{"", "ufw deny out from any to <ip>", effectUnknown, ""},
		{"", `firewall-cmd --add-rich-rule="rule family=ipv4 source address=<ip> drop"`, effectBans, "firewall-cmd rule source address=<ip> drop"},
		{"", `firewall-cmd --add-rich-rule="rule source NOT address='<ip>' drop"`, effectLets, ""},
		{"", `firewall-cmd --remove-rich-rule="rule source address='<ip>' drop"`, effectLets, ""},
		{"", `firewall-cmd --add-rich-rule="rule source address='<ip>' service name=ssh limit value=1/m accept"`, effectLets, ""},
		{"", "firewall-cmd --direct --add-rule ipv4 filter INPUT 0 -s <ip> -j DROP", effectBans, "firewall-cmd -A INPUT -s <ip> -j DROP"},
		{"", "firewall-cmd --zone drop --add-source <ip>", effectBans, "firewall-cmd --add-source --zone=drop"},
		{"", "firewall-cmd --add-source=<ip> --zone=trusted", effectLets, ""},
		{"firewall-cmd --zone=drop --add-source=ipset:bad", "firewall-cmd --ipset=bad --add-entry=<ip>", effectBans, "firewall-cmd --add-source=ipset:bad --zone=drop"},
		{"", "ip -6 route add blackhole <ip>", effectBans, "ip route add blackhole <ip>"},
		{"", "ip route del blackhole <ip>", effectLets, ""},
		{"", "ip rule add from <ip> prohibit", effectBans, "ip rule add from <ip> prohibit"},
		{"", "route add -host <ip> reject", effectBans, "route add -host <ip> reject"},
		{"", `iptables -I INPUT -s <ip> -j "DROP`, effectUnknown, ""},
		{"", "", effectUnknown, ""},
	} {
		if got := guessEffect(c.start, c.ban); got.kind != c.kind || c.said != "" && got.guessed != c.said {
			t.Errorf("%s / %s: got %d, %q; want %d, %q", c.start, c.ban, got.kind, got.guessed, c.kind, c.said)
		}
	}
}

func TestPortsOfSeveralRulesAreJoined(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ start, ban, port, protocol string }{
		{"", "iptables -I INPUT -p tcp --dport 80 -s <ip> -j DROP\niptables -I INPUT -p tcp --dport 443 -s <ip> -j DROP", "80,443", "tcp"},
		{"", "iptables -I INPUT -p tcp --dport 53 -s <ip> -j DROP; iptables -I INPUT -p udp --dport 53 -s <ip> -j DROP", "53", "all"},
		{"iptables -I INPUT -p tcp --dport 25 -j own\niptables -I FORWARD -p tcp --dport 143 -j own", "iptables -A own -s <ip> -j DROP", "25,143", "tcp"},
		{"", "iptables -I INPUT -p tcp --dport 80 -s <ip> -j DROP\niptables -I INPUT -s <ip> -j DROP", "", ""},
	} {
		got := guessEffect(c.start, c.ban).action
		if got.Port != c.port || got.Protocol != c.protocol || got.AllPorts != (c.port == "") {
			t.Errorf("%s / %s: got %+v", c.start, c.ban, got)
		}
	}
}

// A stock name says nothing where the operator wrote the action anew.
func TestAStockNameWithOtherCommandsIsReadByThose(t *testing.T) {
	t.Parallel()
	for name, kind := range map[string]int{"iptables-multiport": effectUnknown, "nftables": effectUnknown, "hostsdeny": effectUnknown, "mail": effectTells} {
		if got := effectOf(detect.JailAction{Name: name, Own: true, Ban: "/usr/local/bin/tell <ip>"}); got.kind != kind {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func FuzzAnActionThatNamesNoOffenderHasNoEffect(f *testing.F) {
	f.Add("iptables -I INPUT -m set --match-set bad src -j DROP", "ipset add bad <ip>")
	f.Add("", `nft 'insert rule inet f input ip saddr { <ip> } tcp dport != { 80, 443 } drop'`)
	f.Add("", `firewall-cmd --direct --add-rule ipv4 filter INPUT 0 -s <ip> -j "DROP\`)
	f.Fuzz(func(t *testing.T, start, ban string) {
		guessEffect(start, ban)
		without := strings.NewReplacer("<", "", ">", "").Replace(ban)
		if got := guessEffect(start, without); got.kind != effectUnknown {
			t.Errorf("%q / %q: got %+v", start, without, got)
		}
	})
}
