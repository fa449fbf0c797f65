package commands

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/settings"
)

func TestTrustSaysWhatIsInForceAndNotWhatWasMeant(t *testing.T) {
	const id = "6otxxr3xmzvq3wmhdzurq6ssnm"
	for _, c := range []struct{ name, text, want string }{
		{"nothing is accepted", "", "its bans apply in no topic yet: `agent topics subscribe TOPIC`\n"},
		{"trusted", "[topics.sshd]\nsubscribe = true\n", "its bans count in: sshd\n"},
		{"watched by a rule", "[topics.sshd]\nsubscribe = true\nban = \"never\"\nwatch = \"any of carol\"\n", "its bans are only watched in: sshd\n"},
		{"on probation", "[topics.sshd]\nsubscribe = true\n[operators.carol]\nsince = " + time.Now().UTC().Format(time.RFC3339) + "\n", "its bans are only watched in: sshd, on probation until "},
	} {
		dir := t.TempDir()
		text := c.text
		if !strings.Contains(text, "[operators.carol]") {
			text += "[operators.carol]\n"
		}
		text += fmt.Sprintf("id = %q\n", id)
		if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := settings.Load(dir, "")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		o, _ := set.Policy().Operator("carol")
		var out strings.Builder
		printCounts(&out, set, "carol", o)
		if got := out.String(); got != c.want && !(strings.HasSuffix(c.want, "until ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestWhoIsNamedLaterCountsBesideTheRuleOfThoseBefore(t *testing.T) {
	for _, c := range []struct {
		name, text string
		before     []string
		more       []string
		want       string
	}{
		{"the quorum stays", "", []string{"a"}, []string{"b", "c"}, ""},
		{"the quorum rises", "", []string{"a", "b", "c"}, []string{"d"}, "any of a, b, c or 2 of everyone"},
		{"several at once", "", []string{"a", "b", "c"}, []string{"d", "e", "f"}, "any of a, b, c or 2 of a, b, c, d, e or 3 of everyone"},
		{"known already", "", []string{"a", "b", "c"}, []string{"c"}, ""},
		{"a person's rule", "ban = \"2 of a, b\"\n", []string{"a", "b", "c"}, []string{"d"}, ""},
	} {
		dir := t.TempDir()
		text := "[topics.sshd]\nsubscribe = true\n" + c.text
		for i, name := range c.before {
			text += fmt.Sprintf("[operators.%s]\nid = %q\n", name, ban.OperatorOf([]byte{byte(i)}))
		}
		if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		set, err := settings.Load(dir, "")
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := joined(set, c.more...)["sshd"].Ban; got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
