// Package host boots a whole machine around the agent: systemd, journald and
// nftables for real, on an overlay of this one that is thrown away, with a
// network of its own.
package host

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"banmesh/test/booted"
)

//go:embed check.sh
var check string

//go:embed gate.sh
var gate string

// TestTheServiceRunsHardenedOnABootedHost boots, lets check.sh ask the service
// everything, and reads its answers.
func TestTheServiceRunsHardenedOnABootedHost(t *testing.T) {
	h := booted.New(t)
	build := exec.CommandContext(t.Context(), "make", "-C", "../..", "-s", "install", "DESTDIR="+h.Root, "GO="+goCommand(t))
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make install: %v\n%s", err, out)
	}
	build = exec.CommandContext(t.Context(), goCommand(t), "build", "-o", filepath.Join(h.Root, "usr/local/bin/hostile-peer"), "./hostile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the hostile peer: %v\n%s", err, out)
	}
	h.Write("usr/local/bin/gate.sh", gate, 0o755)
	h.Enable("banmesh-agent.service")
	out := h.Run(booted.Boot{Script: check, After: "multi-user.target banmesh-agent.service", Limit: 110 * time.Second})
	t.Logf("%s", out)
}

func goCommand(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("go")
	mustDo(t, err)
	return path
}

func mustDo(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
