package packages

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"banmesh/internal/strict"
)

// TestUnitsAreHardened holds the exposure that systemd computes, and that no fault ends a
// service for good.
func TestUnitsAreHardened(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("systemd-analyze is not here")
	}
	exposure := regexp.MustCompile(`Overall exposure level for .*: ([0-9.]+)`)
	for unit, most := range map[string]float64{
		"systemd/banmesh-agent.service": 1.7, "systemd/banmesh-gate.service": 1.1, "broker/banmesh-broker.service": 1.1, "broker/banmesh-admit.service": 1.1,
		"systemd/banmesh-fetch.service": 1.1,
	} {
		path := filepath.Join("../../deploy", unit)
		out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "--no-pager", path).CombinedOutput()
		m := exposure.FindSubmatch(out)
		if m == nil {
			t.Fatalf("%s: %v\n%s", unit, err, out)
		}
		if n, err := strconv.ParseFloat(string(m[1]), 64); err != nil || n > most {
			t.Errorf("%s has the exposure %s, want at most %.1f", unit, m[1], most)
		}
		text, err := strict.Read(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		always := []string{"Restart=always", "StartLimitIntervalSec=0"}
		if unit == "systemd/banmesh-fetch.service" { // its timer starts it again
			always = []string{"Type=oneshot", "User=banmesh-fetch"}
		}
		for _, line := range always {
			if !regexp.MustCompile("(?m)^" + line + "$").Match(text) {
				t.Errorf("%s lacks %s", unit, line)
			}
		}
	}
}
