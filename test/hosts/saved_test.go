package hosts

import (
	"strings"
	"testing"
)

// TestSavedRulesBesideANode saves rules with netfilter-persistent beside each
// enforcer, reboots into them and restores them late: the rules that somebody
// saved are loaded whole, and the bans in force are the node's own.
func TestSavedRulesBesideANode(t *testing.T) {
	for _, enforcer := range []string{"nftables", "ipset"} {
		t.Run(enforcer, func(t *testing.T) { savedRules(t, enforcer) })
	}
}

func savedRules(t *testing.T, enforcer string) {
	s := setup{debs: []string{"iptables-persistent"}, config: "[firewall]\nenforcer = \"" + enforcer + "\"\n"}
	if enforcer == "ipset" {
		s.dropIn = "[Service]\nAmbientCapabilities=CAP_NET_RAW\nCapabilityBoundingSet=CAP_NET_RAW\n"
	}
	h := boot(t, s)
	h.Must("agent ban " + offender + " --for 1h; iptables -A INPUT -p tcp --dport 23 -j DROP")
	if enforcer == "ipset" {
		// Rules that name sets which are not there would not be loaded at boot, none of them.
		fix := "systemctl enable --now banmesh-ipsets.service"
		if got, code := h.Do("agent doctor"); code == 0 || !strings.Contains(got, fix) {
			t.Errorf("doctor does not tell of saved rules without sets:\n%s", got)
		}
		h.Must(fix)
	}
	h.Must("netfilter-persistent save")
	own := "-A INPUT -p tcp -m tcp --dport 23 -j DROP"
	if saved := h.Must("cat /etc/iptables/rules.v4 /etc/iptables/rules.v6"); strings.Contains(saved, offender) || !strings.Contains(saved, own) {
		t.Errorf("saved were\n%s", saved)
	}
	h.holds("netfilter-persistent save", 8080)
	for _, step := range []string{"netfilter-persistent reload", "systemctl restart netfilter-persistent", "netfilter-persistent flush", "netfilter-persistent start"} {
		h.Must(step)
		h.holds(step, 8080)
		if got := h.Must("iptables-save"); strings.Contains(got, own) == strings.HasSuffix(step, "flush") {
			t.Errorf("after %s iptables-save says\n%s", step, got)
		}
	}
	h.well("all this")
	h.reboot()
	h.Must("until agent status >/dev/null; do sleep 0.1; done")
	h.holds("a reboot", 8080)
	if got := h.Must("iptables-save; systemctl is-active netfilter-persistent"); !strings.Contains(got, own) || !strings.HasSuffix(got, "\nactive\n") {
		t.Errorf("after a reboot the host's own rules are\n%s", got)
	}
	h.well("a reboot")
}
