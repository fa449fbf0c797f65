package hosts

import (
	"strings"
	"testing"
)

// TestUfwBesideANode enables, reloads, resets and disables a real ufw beside a
// node, and boots with it.
func TestUfwBesideANode(t *testing.T) {
	h := boot(t, setup{debs: []string{"ufw"}})
	h.Must("agent ban " + offender + " --for 1h; ufw allow 8080/tcp")
	for _, step := range []string{"ufw --force enable", "ufw reload", "ufw deny 23/tcp", "systemctl restart ufw", "systemctl restart banmesh-agent"} {
		h.Must(step)
		h.holds(step, 8080)
		if got := h.Must("ufw status"); !strings.Contains(got, "Status: active") || !strings.Contains(got, "8080/tcp") {
			t.Errorf("after %s ufw has\n%s", step, got)
		}
	}
	h.well("all this")
	for _, step := range []string{"ufw disable", "ufw --force reset"} {
		h.Must(step)
		h.holds(step, 8080)
	}
	if got := h.Must("cat /etc/ufw/*.rules"); strings.Contains(got, offender) || strings.Contains(got, "banmesh") {
		t.Errorf("ufw saved rules of ours:\n%s", got)
	}
}
