package tools

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"banmesh/internal/firewall/testnet"
)

// TestHelperProbeIPSet is no test: it asks as whoever runs it.
func TestHelperProbeIPSet(t *testing.T) {
	if os.Getenv("BANMESH_PROBE") == "" {
		t.Skip("a helper of TestTheIPSetEnforcerSaysWhatItLacks")
	}
	can := ProbeIPSet(testnet.Context(t), false)
	_, _ = os.Stdout.WriteString("reason: " + can.Reason + "\nfix: " + can.Fix + "\n")
}

func TestTheIPSetEnforcerSaysWhatItLacks(t *testing.T) {
	testnet.Enter(t)
	for caps, want := range map[string]string{"+net_admin": "lacks CAP_NET_RAW", "+net_raw": "AmbientCapabilities=CAP_NET_ADMIN and", "+net_admin,+net_raw": "reason: \nfix: \n"} {
		cmd := exec.Command("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--inh-caps="+caps, "--ambient-caps="+caps,
			"--bounding-set=-all,"+caps, "--no-new-privs", os.Args[0], "-test.run=^TestHelperProbeIPSet$")
		cmd.Env = append(os.Environ(), "BANMESH_PROBE=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("with %s: %v, want %q in\n%s", caps, err, want, out)
		}
	}
}
