package hosts

import (
	"strings"
	"testing"
)

// TestFirewalldBesideANode starts, reloads and stops a real firewalld beside a
// node: bans are in force after each step, and firewalld's own rules are.
func TestFirewalldBesideANode(t *testing.T) {
	h := boot(t, setup{debs: []string{"firewalld"}})
	h.Must("systemctl start firewalld; firewall-cmd --permanent --add-port=8080/tcp")
	h.Must("agent ban " + offender + " --for 1h")
	for _, step := range []string{
		"firewall-cmd --reload",
		"firewall-cmd --complete-reload",
		"systemctl restart firewalld",
		"firewall-cmd --runtime-to-permanent",
		"systemctl restart banmesh-agent",
	} {
		h.Must(step)
		h.holds(step, 8080)
		if got := h.Must("firewall-cmd --list-ports; nft list tables"); !strings.Contains(got, "8080/tcp") || !strings.Contains(got, "inet firewalld") {
			t.Errorf("after %s firewalld has\n%s", step, got)
		}
	}
	// Panic mode drops everybody's packets; afterwards all is as it was before.
	h.Must("firewall-cmd --panic-on")
	if h.ask(other, 8080) != "" {
		t.Error("firewalld's panic mode lets packets in")
	}
	h.Must("firewall-cmd --panic-off")
	h.holds("firewall-cmd --panic-off", 8080)
	h.well("all this")
	if got := h.Must("agent firewall check"); !strings.Contains(got, "firewalld") {
		t.Errorf("agent firewall check does not name firewalld:\n%s", got)
	}
	h.Must("systemctl stop firewalld")
	h.holds("systemctl stop firewalld", 8080)
	if got := h.Must("cat /etc/firewalld/zones/*.xml /etc/firewalld/direct.xml 2>/dev/null; true"); strings.Contains(got, offender) {
		t.Errorf("firewalld saved a ban:\n%s", got)
	}
}
