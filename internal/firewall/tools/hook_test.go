package tools

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

func TestAHookIsToldEverythingOnceAndOnlyFacts(t *testing.T) {
	testnet.Enter(t) // the lock is one a network
	dir := t.TempDir()
	program, told, broken := filepath.Join(dir, "hook"), filepath.Join(dir, "told"), filepath.Join(dir, "broken")
	testnet.Must(t, os.WriteFile(program, []byte("#!/bin/sh\n[ -e "+broken+" ] && exit 1\necho \"$@\" >> "+told+"\n"), 0o700))
	now := time.Unix(1_800_000_000, 0)
	sw := filepath.Join(dir, "off")
	h, err := NewHook(Options{Now: func() time.Time { return now }, Switch: sw}, []string{program, "first argument"})
	testnet.Must(t, err)
	ctx := testnet.Context(t)
	heard := func() string {
		b, err := os.ReadFile(told)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		_ = os.Remove(told)
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	testnet.Must(t, h.Configure(ctx, firewall.Config{Scopes: []firewall.Scope{{Topic: "sshd"}, {Topic: "watched", Observe: true}}, Never: testnet.Prefixes("203.0.113.0/24")}))
	testnet.Must(t, h.Replace(ctx, slices.Values(slices.Concat(bans("sshd", now.Add(time.Minute), "192.0.2.1", "203.0.113.9"), bans("watched", now.Add(time.Hour), "192.0.2.9"), bans("sshd", time.Time{}, "2001:db8::/32")))))
	want := "first argument ban sshd 192.0.2.1/32 60\nfirst argument ban sshd 2001:db8::/32 0\nfirst argument unban sshd 203.0.113.9/32 0\nfirst argument unban watched 192.0.2.9/32 0"
	if got := heard(); got != want {
		t.Errorf("told:\n%s\nwant:\n%s", got, want)
	}
	testnet.Must(t, os.WriteFile(broken, nil, 0o600))
	if err := h.Apply(ctx, bans("sshd", now.Add(time.Hour), "192.0.2.2"), nil); err == nil {
		t.Error("a failing hook is no error")
	}
	testnet.Must(t, os.Remove(broken))
	now = now.Add(2 * time.Minute)
	d, err := h.Check(ctx)
	testnet.Must(t, err)
	want = "first argument ban sshd 192.0.2.2/32 3480\nfirst argument unban sshd 192.0.2.1/32 0\nfirst argument unban sshd 203.0.113.9/32 0"
	if got := heard(); got != want || d.Pending != 0 {
		t.Errorf("told:\n%s\nwant:\n%s\n%+v", got, want, d)
	}
	if _, err := h.Check(ctx); err != nil || heard() != "" {
		t.Errorf("told again, %v", err)
	}
	// Switched off by hand, it is told that nothing is banned; and back again.
	testnet.Must(t, os.WriteFile(sw, nil, 0o600))
	if d, err := h.Check(ctx); err != nil || !d.Off {
		t.Errorf("%+v, %v", d, err)
	}
	want = "first argument unban sshd 192.0.2.2/32 0\nfirst argument unban sshd 2001:db8::/32 0\nfirst argument unban watched 192.0.2.9/32 0"
	if got := heard(); got != want {
		t.Errorf("switched off: told:\n%s", got)
	}
	testnet.Must(t, os.Remove(sw))
	if d, err := h.Check(ctx); err != nil || d.Off {
		t.Errorf("%+v, %v", d, err)
	}
	if got := heard(); !strings.Contains(got, "first argument ban sshd 192.0.2.2/32 3480") {
		t.Errorf("switched on: told:\n%s", got)
	}
	for _, argv := range [][]string{nil, {"hook"}, {filepath.Join(dir, "none")}, {dir}, {told}} {
		if _, err := NewHook(Options{}, argv); err == nil {
			t.Errorf("%q is a hook", argv)
		}
	}
}

func bans(topic ban.Topic, until time.Time, prefixes ...string) (out []firewall.Ban) {
	for _, p := range testnet.Prefixes(prefixes...) {
		out = append(out, firewall.Ban{Prefix: p, Topic: topic, Until: until})
	}
	return out
}
