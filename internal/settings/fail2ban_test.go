package settings

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/detect"
	"banmesh/topics"
)

// tree writes files below a new directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const jailHead = "[DEFAULT]\nfilter = any\naction = nftables[port=\"%(port)s\", protocol=tcp]\nport = 0:65535\nlogpath = /var/log/x\nenabled = true\n"

func TestIncludedJailsAreTopicsAndWhatIsLeftOutIsSaid(t *testing.T) {
	filter := "[Definition]\nfailregex = ^bad <HOST>$\n"
	first := tree(t, map[string]string{
		"filter.d/any.conf": filter, "filter.d/broken.conf": "[Definition]\nfailregex = ^bad (<HOST>$\n",
		"jail.conf": jailHead + "[sshd]\nport = 2222\nmaxretry = 2\n[web]\nport = 80,8000:8002\nbantime = -1\n[mine]\n[torn]\nfilter = broken\n",
	})
	second := tree(t, map[string]string{"filter.d/any.conf": filter, "jail.conf": jailHead + "[web]\n"})
	dir := tree(t, map[string]string{
		"agent.toml":         "include = [\"" + first + "\", \"" + second + "\"]\n[topics.web]\nmaxretry = 9\n[topics.sshd]\ndetect = false\n",
		"topics.d/mine.toml": "name = \"mine\"\ntitle = \"my own\"\n[detect]\nfiles = [\"/own\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^own <ADDR>$']\n",
	})
	s, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	web, _ := s.Find("web")
	if !web.Detect || web.Definition.Detect.MaxRetry != 9 || !slices.Equal(web.Scope.Ports, []uint16{80, 8000, 8001, 8002}) || s.Included("web") != first {
		t.Errorf("web: %+v, %+v, %q", web, web.Scope, s.Included("web"))
	}
	sshd, _ := s.Find("sshd")
	if sshd.Detect || sshd.Definition.Detect.MaxRetry != 2 || !slices.Equal(sshd.Scope.Ports, []uint16{2222}) {
		t.Errorf("sshd: %+v, %+v", sshd, sshd.Scope)
	}
	mine, _ := s.Find("mine")
	if mine.Title != "my own" || s.Included("mine") != "" || mine.Detect {
		t.Errorf("mine: %+v", mine)
	}
	if _, ok := s.Find("torn"); ok {
		t.Error("a jail with a broken filter is a topic")
	}
	all := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{
		"left out: jail mine: " + filepath.Join(dir, "topics.d", "mine.toml") + " defines the topic",
		"left out: jail web of " + second + ": the topic web is jail web of " + first + " already",
		"left out: jail torn: ",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("the warnings lack %q:\n%s", want, all)
		}
	}
	if err := s.CheckFilters(); err != nil {
		t.Error(err)
	}
}

func TestAnIncludeThatCannotBeReadIsAFaultWithItsPlace(t *testing.T) {
	for text, want := range map[string]string{
		"include = \"relative\"":     `agent.toml:1:1: include: "relative" is no absolute path`,
		"include = [\"/nowhere/x\"]": "agent.toml:1:1: include: /nowhere/x is no configuration of fail2ban",
		"include = 3":                "agent.toml:1:1: include: it is a directory's name or a list of them",
		"include = [3]":              "agent.toml:1:1: include: 3 is no directory's name",
	} {
		_, err := Load(tree(t, map[string]string{"agent.toml": text + "\n"}))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
}

func TestWhatActionsClose(t *testing.T) {
	for name, c := range map[string]struct {
		actions  []string
		want     topics.Enforce
		warnings int
	}{
		"ports by name and range": {[]string{`nftables[port="ssh,8000:8002", protocol="tcp"]`}, topics.Enforce{Ports: []string{"22", "8000-8002"}, Protocols: []string{"tcp"}}, 0},
		"all ports":               {[]string{`iptables-allports[port="22"]`}, topics.Enforce{AllPorts: true}, 0},
		"all ports by type":       {[]string{`nftables[type="allports", port="22"]`}, topics.Enforce{AllPorts: true}, 0},
		"every port":              {[]string{`nftables[port="0:65535"]`}, topics.Enforce{AllPorts: true}, 0},
		"an unknown port":         {[]string{`nftables[port="no-such-service"]`}, topics.Enforce{AllPorts: true}, 1},
		"udp":                     {[]string{`nftables[port="53", protocol="udp"]`}, topics.Enforce{Ports: []string{"53"}, Protocols: []string{"udp"}}, 0},
		"two actions":             {[]string{`nftables[port="80", protocol="tcp"]`, `nftables[port="443", protocol="tcp"]`, `sendmail[dest="x"]`}, topics.Enforce{Ports: []string{"80", "443"}, Protocols: []string{"tcp"}}, 1},
		"no packet filter":        {[]string{`cloudflare[cfuser="x"]`}, topics.Enforce{AllPorts: true}, 2},
		"a chain of Docker's":     {[]string{`nftables[port="80", protocol="tcp", chain="DOCKER-USER"]`}, topics.Enforce{Ports: []string{"80"}, Protocols: []string{"tcp"}}, 1},
	} {
		got, warnings := closes(&detect.Imported{Definition: &topics.Definition{Name: "x"}, Actions: c.actions})
		if !slices.Equal(got.Ports, c.want.Ports) || !slices.Equal(got.Protocols, c.want.Protocols) || got.AllPorts != c.want.AllPorts || len(warnings) != c.warnings {
			t.Errorf("%s: got %+v with %q, want %+v", name, got, warnings, c.want)
		}
	}
}
