package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestADefinitionThatCannotBeUsedIsLeftOutAndNamed(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"agent.toml":           "[topics.broken]\ndetect = true\n[topics.sshd]\ndetect = true\n[topics.jellyfin]\ndetect = true\n",
		"topics.d/broken.toml": "name = \"broken\"\n[detect]\nfiles = [\"/x\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^(?:a from <ADDR>|b from <ADDR>)$']\n",
		"topics.d/sshd.toml":   "[detect]\nmaxretry = -1\nignoreip = [\"192.0.2.1\"]\n",
		"topics.d/loose.toml":  "name = \"loose\"\n[detect]\njournal = [\"_COMM=x\"]\n[[detect.rule]]\nclass = \"auth\"\nregex = ['^login of .* from <ADDR>: .*$']\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Load(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	// The shipped topic keeps its bans and looks for nobody: those that were to be
	// changed, whom to spare perhaps, nobody knows.
	if sshd, ok := s.Find("sshd"); !ok || sshd.Detect || len(sshd.Scope.Ports) == 0 {
		t.Errorf("sshd: %+v", sshd)
	}
	if jellyfin, ok := s.Find("jellyfin"); !ok || !jellyfin.Detect {
		t.Errorf("jellyfin: %+v", jellyfin)
	}
	if _, ok := s.Find("broken"); ok {
		t.Error("the broken topic is there")
	}
	said := strings.Join(s.Warnings(), "\n")
	for _, want := range []string{
		`left out: the definition of broken: `, `redefinition of group name "ip4"`, `left out: the definition of sshd: `, "detect.maxretry",
		`topic loose: journal match "_COMM=x": any user of this machine`, `topic loose: expression 1: a client can move the address: .* may hold`,
	} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing from:\n%s", want, said)
		}
	}
	if err := s.CheckFilters(); err == nil || !strings.Contains(err.Error(), "detect.maxretry") || !strings.Contains(err.Error(), "ip4") {
		t.Errorf("a check passes: %v", err)
	}
}
