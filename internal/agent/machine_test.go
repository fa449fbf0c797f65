package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/control"
	"banmesh/internal/keys"
)

func TestANodeOnACopyOfItsStateIsAnotherNode(t *testing.T) {
	n := newNode(t, quiet)
	n.stop()
	n.machine = strings.Repeat("1", 32)
	n.start()
	status := func() (s control.Status) {
		t.Helper()
		if err := n.client.Get(t.Context(), "/v1/status", nil, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	copied := func(w control.Warning) bool { return w.Code == "copied" }
	one := status()
	if slices.ContainsFunc(one.Warnings, copied) {
		t.Errorf("on its own machine: %+v", one.Warnings)
	}
	n.stop()
	n.machine = strings.Repeat("2", 32)
	n.start()
	two := status()
	if two.Node == one.Node || two.Operator != one.Operator || !slices.ContainsFunc(two.Warnings, copied) {
		t.Errorf("node %s after %s, %+v", two.Node, one.Node, two.Warnings)
	}
	n.restart()
	if again := status(); again.Node != two.Node || slices.ContainsFunc(again.Warnings, copied) {
		t.Errorf("after a restart: node %s, %+v", again.Node, again.Warnings)
	}
	n.stop()
	// Where the root key is elsewhere it stops, and says why.
	if err := os.Remove(filepath.Join(n.dir, "state", "operator.key")); err != nil {
		t.Fatal(err)
	}
	err := Run(context.Background(), Options{ConfigDir: filepath.Join(n.dir, "config"), StateDir: filepath.Join(n.dir, "state"), Socket: filepath.Join(n.dir, "s"), Machine: strings.Repeat("3", 32)})
	if !errors.Is(err, keys.ErrOtherMachine) {
		t.Errorf("%v", err)
	}
}
