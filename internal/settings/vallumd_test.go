package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func loadText(t *testing.T, text string) (*Settings, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "agent.toml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load(dir, "")
}

func TestFaultsOfVallumdsBrokersHaveTheirPlaces(t *testing.T) {
	t.Parallel()
	const entry = "[[vallumd]]\nname = \"home\"\nurl = \"tcp://198.51.100.20:1883\"\n"
	for text, want := range map[string]string{
		entry + "publish = [\"sshd\"]\n":                                "",
		entry + "accept = [\"sshd\"]\nrule = \"ban\"\nlive = 1000000\n": "",
		entry: "it does nothing",
		entry + "accept = [\"sshd\"]\nlive = 1000001\n":                                        "at most 1000000 claims",
		entry + "accept = [\"sshd\"]\nrule = \"drop\"\n":                                       "is no rule of an import",
		entry + "accept = [\"No Topic\"]\n":                                                    "vallumd",
		entry + "publish = [\"sshd\"]\ntimeout = \"59s\"\n":                                    "too short",
		entry + "publish = [\"sshd\"]\ntimeout = \"1m\"\n":                                     "",
		entry + "accept = [\"sshd\"]\nfor = \"91d\"\n":                                         "not between",
		entry + "accept = [\"sshd\"]\nfor = \"90d\"\n":                                         "",
		entry + "publish = [\"sshd\", \"nginx\"]\nsets = {sshd = \"b\", nginx = \"b\"}\n":      "have one set",
		entry + "publish = [\"sshd\"]\naccept = [\"sshd\"]\nsets = {sshd = \"b\"}\n":           "",
		entry + "publish = [\"sshd\"]\nsets = {sshd = \"a/b\"}\n":                              "no name of an ipset",
		entry + "publish = [\"sshd\"]\nsets6 = {nginx = \"six\"}\n":                            "in neither publish nor accept",
		entry + "publish = [\"sshd\"]\n" + entry + "publish = [\"nginx\"]\n":                   "two entries",
		entry + "publish = [\"no-such\"]\n":                                                    "no topic \"no-such\" is defined",
		entry + "accept = [\"broadcaster-addresses\"]\n":                                       "bans no addresses",
		entry + "publish = [\"sshd\"]\nca_file = \"/nowhere\"\n":                               "no such file",
		"[[vallumd]]\nname = \"A b\"\nurl = \"tcp://h:1\"\npublish = [\"sshd\"]\n":             "cannot be a name",
		"[[vallumd]]\nname = \"a\"\nurl = \"ws://h:1\"\npublish = [\"sshd\"]\n":                "want tcp://HOST:PORT",
		"[[vallumd]]\nname = \"a\"\nurl = \"tcp://h\"\npublish = [\"sshd\"]\n":                 "names no port",
		"[[brokers]]\nurl = \"tcp://198.51.100.20:1883\"\n" + entry + "publish = [\"sshd\"]\n": "a broker of the federation",
	} {
		_, err := loadText(t, text)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", text, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func TestAVallumdsBrokerIsNeverBanned(t *testing.T) {
	t.Parallel()
	s, err := loadText(t, "[[vallumd]]\nname = \"home\"\nurl = \"tcp://198.51.100.20:1883\"\npublish = [\"sshd\"]\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.NeverBanOptions(time.Now()).Brokers; len(got) != 1 || got[0] != "198.51.100.20" {
		t.Errorf("brokers that must stay reachable: %v", got)
	}
}
