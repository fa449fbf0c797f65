package tools

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"banmesh/internal/firewall"
	"banmesh/internal/firewall/testnet"
)

// place writes a file below a root.
func place(t *testing.T, root, name, text string) {
	t.Helper()
	file := filepath.Join(root, name)
	testnet.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	testnet.Must(t, os.WriteFile(file, []byte(text), 0o644))
}

// What netfilter-persistent saved beside the agent loads after a boot, in the
// order of the units: the sets, the saved rules, the agent.
func TestSavedRulesLoadAtBoot(t *testing.T) {
	root := t.TempDir()
	c := firewall.Config{Scopes: []firewall.Scope{{Topic: "sshd", Ports: []uint16{22}}, {Topic: "all"}}, Never: testnet.Prefixes("192.0.2.9", "2001:db8::9")}
	wanted := bans("sshd", time.Now().Add(time.Hour), "192.0.2.1", "198.51.100.0/24", "2001:db8:9::/64", "2001:db8:7::7")
	run := func(do func(ctx context.Context, s *IPSet)) {
		testnet.Enter(t)
		s := NewIPSet(Options{}, false)
		do(testnet.Context(t), s)
		testnet.Must(t, s.Close())
	}
	run(func(ctx context.Context, s *IPSet) {
		testnet.Must(t, s.Configure(ctx, c))
		testnet.Must(t, s.Replace(ctx, slices.Values(wanted)))
		testnet.Run(t, "iptables", "-A", "INPUT", "-p", "tcp", "--dport", "23", "-j", "DROP")
		place(t, root, "/etc/iptables/rules.v4", testnet.Run(t, "iptables-save"))
		place(t, root, "/etc/iptables/rules.v6", testnet.Run(t, "ip6tables-save"))
	})
	run(func(ctx context.Context, s *IPSet) {
		if err := s.run(ctx, nil, "iptables-restore", filepath.Join(root, "/etc/iptables/rules.v4")); err == nil {
			t.Error("this iptables-restore needs no sets: is the unit needed?")
		}
		list := Restorers(root, "", true)
		if len(list) != 1 || !list[0].Fails || len(list[0].Files) != 2 || list[0].Fix == "" {
			t.Errorf("%+v", list)
		}
		made, err := PrepareSets(ctx, root, "")
		if err != nil || len(made) != 10 {
			t.Errorf("%v, %v", made, err)
		}
		testnet.Must(t, s.run(ctx, nil, "iptables-restore", filepath.Join(root, "/etc/iptables/rules.v4")))
		testnet.Must(t, s.run(ctx, nil, "ip6tables-restore", filepath.Join(root, "/etc/iptables/rules.v6")))
		if got := testnet.Run(t, "iptables-save"); !strings.Contains(got, "--dport 23 -j DROP") || !strings.Contains(got, "-A PREROUTING -j BANMESH") {
			t.Errorf("loaded:\n%s", got)
		}
		if made, err := PrepareSets(ctx, root, ""); err != nil || len(made) != 0 {
			t.Errorf("again: %v, %v", made, err)
		}
		// The agent starts upon that.
		testnet.Must(t, s.Configure(ctx, c))
		testnet.Must(t, s.Replace(ctx, slices.Values(wanted)))
		if what, err := s.differs(ctx); err != nil || len(what) > 0 {
			t.Errorf("%v, %v", what, err)
		}
		if n := strings.Count(testnet.Run(t, "iptables-save", "-t", "raw"), "-A PREROUTING -j BANMESH"); n != 1 {
			t.Errorf("%d jumps to our chain", n)
		}
		c.Cap = 1_000
		testnet.Must(t, s.Configure(ctx, c))
		if what, err := s.differs(ctx); err != nil || len(what) > 0 {
			t.Errorf("with room for others: %v, %v", what, err)
		}
	})
}

func TestEachEntryOfASetThatAnotherExchangedIsFound(t *testing.T) {
	testnet.Enter(t)
	ctx := testnet.Context(t)
	start := time.Now()
	var later time.Duration
	s := NewIPSet(Options{Now: func() time.Time { return start.Add(later) }}, false)
	testnet.Must(t, s.Configure(ctx, firewall.Config{Scopes: []firewall.Scope{{Topic: "sshd"}}, Never: testnet.Prefixes("192.0.2.9", "0.0.0.0/0")}))
	testnet.Must(t, s.Replace(ctx, slices.Values(append(bans("sshd", start.Add(24*time.Hour), "192.0.2.1", "192.0.2.2", "198.51.100.0/24", "2001:db8::1", "2001:db8:9::/64"), bans("sshd", time.Time{}, "192.0.2.3")...))))
	hosts, nets := s.setName("sshd", true, true), s.setName("sshd", true, false)
	check := func(when string, changed bool) {
		t.Helper()
		s.looked, s.compared = time.Time{}, time.Time{}
		if d, err := s.Check(ctx); err != nil || d.Changed != changed || d.Cured != changed {
			t.Errorf("%s: %+v, %v", when, d, err)
		}
	}
	check("untouched", false)
	for name, edit := range map[string][][]string{
		"one more, one less":   {{"del", hosts, "192.0.2.1"}, {"add", hosts, "192.0.2.7", "timeout", "86000"}},
		"one for ever":         {{"-exist", "add", hosts, "192.0.2.2", "timeout", "0"}},
		"one for a minute":     {{"-exist", "add", hosts, "192.0.2.2", "timeout", "60"}},
		"another prefix":       {{"del", nets, "198.51.100.0/24"}, {"add", nets, "203.0.113.0/24", "timeout", "86000"}},
		"never-ban, exchanged": {{"del", s.neverName("4"), "192.0.2.9"}, {"add", s.neverName("4"), "192.0.2.1"}},
	} {
		for _, args := range edit {
			testnet.Run(t, "ipset", args...)
		}
		check(name, true)
		check(name+", afterwards", false)
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("add banmesh-x 192.0.2.0/24 timeout 100")
	f.Add("add banmesh-x 2001:db8::1 timeout")
	f.Fuzz(func(t *testing.T, line string) {
		if p, left, ok := parseEntry(line); ok && (!p.IsValid() || left < 0) {
			t.Errorf("%q: %v, %d", line, p, left)
		}
	})
}

func TestWhoLoadsSavedRulesAtBootIsKnown(t *testing.T) {
	const ours = "*raw\n-A BANMESH -m set --match-set banmesh-never-4 src -j RETURN\nCOMMIT\n"
	for name, x := range map[string]struct {
		files    map[string]string
		enforces bool
		want     string // name, whether it fails, the files
	}{
		"nothing":                             {map[string]string{"/etc/iptables/rules.v4": "*filter\nCOMMIT\n"}, true, ""},
		"installed, nothing saved":            {map[string]string{"/etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": ""}, true, "netfilter-persistent true;"},
		"the same with another enforcer":      {map[string]string{"/etc/systemd/system/multi-user.target.wants/netfilter-persistent.service": ""}, false, ""},
		"saved, and another enforcer since":   {map[string]string{"/etc/iptables/rules.v4": ours}, false, "netfilter-persistent true /etc/iptables/rules.v4;"},
		"iptables-services":                   {map[string]string{"/etc/sysconfig/iptables": ours}, true, "iptables-services true /etc/sysconfig/iptables;"},
		"prepared":                            {map[string]string{"/etc/iptables/rules.v4": ours, "/etc/systemd/system/sysinit.target.wants/banmesh-ipsets.service": ""}, true, "netfilter-persistent false /etc/iptables/rules.v4;"},
		"ufw":                                 {map[string]string{"/etc/systemd/system/multi-user.target.wants/ufw.service": ""}, true, "ufw false;"},
		"ufw, with our sets written into it":  {map[string]string{"/etc/ufw/before.rules": ours}, true, "ufw true /etc/ufw/before.rules;"},
		"another table's sets are not ours":   {map[string]string{"/etc/iptables/rules.v4": strings.ReplaceAll(ours, "banmesh-never", "other-never")}, false, ""},
		"a line that ends behind --match-set": {map[string]string{"/etc/iptables/rules.v4": "-A BANMESH -m set --match-set"}, true, ""},
	} {
		root := t.TempDir()
		for file, text := range x.files {
			place(t, root, file, text)
		}
		got := ""
		for _, r := range Restorers(root, "", x.enforces) {
			got += r.Name + " " + map[bool]string{true: "true", false: "false"}[r.Fails]
			for _, f := range r.Files {
				got += " " + f
			}
			got += ";"
			if r.Fails != (r.Fix != "") || r.Text == "" {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if got != x.want {
			t.Errorf("%s: %q, want %q", name, got, x.want)
		}
	}
}

func FuzzNamesInSavedRules(f *testing.F) {
	f.Add([]byte("-A BANMESH -m set --match-set banmesh-0a0b0c0d-4n src -j DROP\n"))
	f.Add([]byte("--match-set"))
	ours := ownSets("banmesh")
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range namesIn(b, ours) {
			if !ours.MatchString(name) || strings.ContainsAny(name, " \n") {
				t.Errorf("%q", name)
			}
		}
	})
}
