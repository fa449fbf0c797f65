package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Half of fail2ban's filters have an expression of which nobody can prove that a
// client's text never moves its address. That is one line in all, and a
// definition of one's own is named with its expression.
func TestDoubtsAboutFail2bansFiltersAreOneLine(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"fail2ban/filter.d/one.conf":   "[Definition]\nfailregex = user .* from <HOST>\n",
		"fail2ban/filter.d/two.conf":   "[Definition]\nfailregex = name .* at <HOST>\n",
		"fail2ban/filter.d/three.conf": "[Definition]\nfailregex = ^no <HOST>$\n",
		"fail2ban/jail.conf":           "[DEFAULT]\nlogpath = /var/log/x.log\n[one]\nenabled = true\nfilter = one\n[two]\nenabled = true\nfilter = two\n[three]\nenabled = true\nfilter = three\n",
		"topics.d/four.toml":           ImportHead + "\nname = \"four\"\ntitle = \"x\"\ntarget = \"ip\"\n[detect]\nmaxretry = 3\nfindtime = \"1m\"\nbantime = \"1m\"\n[[detect.rule]]\nclass = \"auth\"\nregex = ['at .* from <ADDR>']\n",
		"agent.toml":                   "include = \"" + filepath.Join(dir, "fail2ban") + "\"\n",
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
	var said []string
	for _, w := range s.Warnings() {
		if strings.Contains(w, "not proven") || strings.Contains(w, "move") {
			said = append(said, w)
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "3 of fail2ban's filters") || !strings.Contains(said[0], "(four, one, two)") {
		t.Errorf("said:\n%s", strings.Join(s.Warnings(), "\n"))
	}
}
