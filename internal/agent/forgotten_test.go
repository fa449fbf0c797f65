package agent

import (
	"context"
	"slices"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/firewall"
)

// crowded is a memory that has forgotten so many packets.
type crowded struct {
	firewall.Memory
	packets map[ban.Topic]uint64
}

func (c crowded) Forgotten(_ context.Context, t ban.Topic) (uint64, error) {
	n, ok := c.packets[t]
	if !ok {
		return 0, firewall.ErrNotRemembered
	}
	return n, nil
}

func TestAFullMemoryOfConnectionsIsTold(t *testing.T) {
	t.Parallel()
	var f forgotten
	m := crowded{packets: map[ban.Topic]uint64{"sshd": 5, "nginx": 0}}
	now := time.Unix(1_800_000_000, 0)
	told := func() bool {
		return slices.ContainsFunc(f.warnings(), func(w control.Warning) bool { return w.Code == "memory-full" })
	}
	look := func() {
		f.look(t.Context(), now, m, []ban.Topic{"sshd", "nginx", "livepeer"})
		now = now.Add(time.Minute)
	}
	look()
	if told() {
		t.Error("nothing is known of when it was full")
	}
	look()
	if told() {
		t.Error("it is not full")
	}
	m.packets["sshd"] = 6
	if look(); !told() {
		t.Error("nobody is told")
	}
	if look(); told() {
		t.Error("it has room again")
	}
}
