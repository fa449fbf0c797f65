package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestOneBanFromARealAttackOnOneHostToADroppedPacketOnAnother is the demo: it
// fails unless every step of it happened.
func TestOneBanFromARealAttackOnOneHostToADroppedPacketOnAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	dir := t.TempDir()
	for _, name := range []string{"agent", "broker"} {
		build := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), "../../cmd/"+name)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("building %s: %v\n%s", name, err, out)
		}
	}
	r, err := demo(t.Context(), t.Output(), filepath.Join(dir, "agent"), filepath.Join(dir, "broker"))
	if err != nil {
		t.Fatal(err)
	}
	if r.packets == 0 || r.drop <= 0 {
		t.Errorf("got %+v", r)
	}
}
