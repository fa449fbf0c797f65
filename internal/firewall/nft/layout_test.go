package nft

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/firewall"
	"banmesh/internal/firewall/desired"
	"banmesh/internal/firewall/testnet"
)

func exampleConfig() firewall.Config {
	return firewall.Config{
		Owner: firewall.OwnerNever, Honeyports: []uint16{23, 3389}, HoneyportTo: 4000,
		Scopes: []firewall.Scope{
			{Topic: "sshd", Ports: []uint16{22, 2222}, Protocols: []string{"tcp", "udp"}, MaxConnections: 10, Remember: time.Hour},
			{Topic: "livepeer"},
			{Topic: "everything", Ports: []uint16{8935}, All: true, Remember: time.Minute},
			{Topic: "watched", Observe: true},
			{Topic: "dns", Protocols: []string{"udp"}},
		},
		Never: testnet.Prefixes("192.0.2.1", "10.0.0.0/8", "10.1.0.0/16", "2001:db8::/64", "192.0.2.0", "255.255.255.255"),
	}
}

func TestTheKernelPrintsTheTableAsItIsDescribed(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	until := time.Now().Add(time.Hour)
	n := newTest(t, Options{})
	testnet.Must(t, n.Configure(ctx, exampleConfig()))
	testnet.Must(t, n.Replace(ctx, slices.Values(slices.Concat(
		bans("sshd", until, "198.51.100.1", "2001:db8:1::1", "2001:db8:2::/64", "203.0.113.0/24"),
		bans("livepeer", until.Add(time.Hour), "198.51.100.1", "2001:db8::/48"),
		[]firewall.Ban{{Prefix: testnet.Prefix("198.51.100.9"), Topic: "watched", Until: until, By: "carol,alice"}}, bans("dns", until, "198.51.100.7"), bans("everything", until, "198.51.100.8"), bans("watched", until, "198.51.100.7"),
	))))
	listed := testnet.Run(t, "nft", "-s", "-t", "list", "table", "inet", "banmesh")
	c, err := exampleConfig().Normal()
	testnet.Must(t, err)
	w4, _, err := n.state.Segments(true, desired.SecondOf(time.Now()))
	testnet.Must(t, err)
	w6, _, err := n.state.Segments(false, desired.SecondOf(time.Now()))
	testnet.Must(t, err)
	if want := build(c, n.state.Classes[1:], len(w4) > 0, len(w6) > 0, n.can, false).text(c.Table); blocks(listed) != blocks(want) {
		t.Errorf("nft lists:\n%s\nit is described as:\n%s", listed, want)
	}
	whole := testnet.Run(t, "nft", "list", "table", "inet", "banmesh")
	t.Log(whole)
	// nft reads back its own output.
	n.Close()
	testnet.Must(t, Remove("banmesh"))
	testnet.Feed(t, whole, "nft", "-f", "-")
	again := testnet.Run(t, "nft", "list", "table", "inet", "banmesh")
	left := regexp.MustCompile(`expires \S+`)
	if left.ReplaceAllString(again, "") != left.ReplaceAllString(whole, "") {
		t.Errorf("read back it is another table:\n%s", again)
	}
}

// blocks sorts the objects of a listed table, which the kernel gives in the
// order of their making.
func blocks(table string) string {
	head, rest, _ := strings.Cut(strings.TrimSuffix(table, "\n}\n"), "\n\t")
	comment, rest, _ := strings.Cut(rest, "\n") // with no empty line behind it
	head += "\n\t" + comment
	parts := strings.Split(rest, "\n\n")
	slices.Sort(parts)
	return head + "\n" + strings.Join(parts, "\n\n")
}

func TestBansDropByTopicPortAndFamily(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	h := testnet.Attach(t, "veth0", []string{"10.9.0.1/24", "2001:db8:9::1/64"},
		[]string{"10.9.0.2/24", "10.9.0.200/24", "2001:db8:9::2/64", "2001:db8:9:1::7/128"})
	testnet.Run(t, "ip", "route", "add", "2001:db8:9:1::7/128", "dev", "veth0")
	ssh4, web4, proof4 := testnet.ListenUDP(t, "10.9.0.1:22"), testnet.ListenUDP(t, "10.9.0.1:80"), testnet.ListenUDP(t, "10.9.0.1:9999")
	ssh6, web6, proof6 := testnet.ListenUDP(t, "[2001:db8:9::1]:22"), testnet.ListenUDP(t, "[2001:db8:9::1]:80"), testnet.ListenUDP(t, "[2001:db8:9::1]:9999")
	n := newTest(t, Options{})
	c := firewall.Config{Owner: firewall.OwnerNever, Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "all"}, {Topic: "watched", Observe: true}}}
	testnet.Must(t, n.Configure(ctx, c))
	until := time.Now().Add(time.Hour)
	for _, step := range []struct {
		name     string
		bans     []firewall.Ban
		never    []netip.Prefix
		ssh, web bool // whether .2 gets through
	}{
		{name: "nothing"},
		{name: "a port", bans: bans("sshd", until, "10.9.0.2", "2001:db8:9::2"), ssh: true},
		{name: "everything", bans: bans("all", until, "10.9.0.2", "2001:db8:9::2"), ssh: true, web: true},
		{name: "observed", bans: bans("watched", until, "10.9.0.2", "2001:db8:9::2")},
		{name: "observed and a port", bans: append(bans("watched", until, "10.9.0.2", "2001:db8:9::2"), bans("sshd", until, "10.9.0.2", "2001:db8:9::2")...), ssh: true},
		{name: "a prefix", bans: bans("all", until, "10.9.0.0/29", "2001:db8:9::/96"), ssh: true, web: true},
		{name: "a /64", bans: append(bans("all", until, "2001:db8:9::/64"), bans("all", until, "10.9.0.2")...), ssh: true, web: true},
		{name: "never banned", bans: bans("all", until, "10.9.0.2", "2001:db8:9::/64", "10.9.0.0/29"), never: testnet.Prefixes("10.9.0.2", "2001:db8:9::2")},
		{name: "host by port and prefix wholly", bans: append(bans("sshd", until, "10.9.0.2", "2001:db8:9::2"), bans("all", until, "10.9.0.0/29", "2001:db8:9::/96")...), ssh: true, web: true},
	} {
		c.Never = step.never
		testnet.Must(t, n.Configure(ctx, c))
		testnet.Must(t, n.Replace(ctx, slices.Values(step.bans)))
		proofFrom := func(from string, ssh, web, proof *net.UDPConn) {
			for _, x := range []struct {
				what string
				to   *net.UDPConn
				want bool
			}{{"ssh", ssh, step.ssh}, {"web", web, step.web}} {
				if got := !h.Arrives(from, x.to, proof); got != x.want {
					t.Errorf("%s: %s from %s: dropped %v, want %v\n%s", step.name, x.what, from, got, x.want, testnet.Run(t, "nft", "list", "ruleset"))
				}
			}
		}
		h.Proof = "10.9.0.200"
		proofFrom("10.9.0.2", ssh4, web4, proof4)
		h.Proof = "2001:db8:9:1::7"
		proofFrom("2001:db8:9::2", ssh6, web6, proof6)
	}
	got, err := n.Counters(ctx)
	testnet.Must(t, err)
	for topic, want := range map[ban.Topic]uint64{"watched": 6, "sshd": 6, "all": 14} {
		if got[topic].Packets != want {
			t.Errorf("%s counted %d packets, want %d", topic, got[topic].Packets, want)
		}
	}
}
