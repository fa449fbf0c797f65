package detect

import (
	"strings"
	"testing"

	"banmesh/topics"
)

func TestAJournalMatchNeedsAFieldThatNoUserChooses(t *testing.T) {
	for match, ok := range map[string]bool{
		"_SYSTEMD_UNIT=ssh.service":                  true,
		"_COMM=sshd _UID=0":                          true,
		"_COMM=sshd":                                 false,
		"_SYSTEMD_UNIT=ssh.service + _COMM=sshd":     false,
		"_SYSTEMD_UNIT=ssh.service + _UID=0 _COMM=x": true,
		"SYSLOG_IDENTIFIER=postfix/smtpd":            false,
		"_SYSTEMD_USER_UNIT=livepeer.service":        false,
		"CONTAINER_NAME=gitea":                       false,
		"CONTAINER_NAME=gitea _UID=0":                true,
		"":                                           false,
	} {
		if why := weakMatch(match); (why == "") != ok {
			t.Errorf("%q: %q", match, why)
		}
	}
}

func TestACheckNamesEveryFaultWithItsPlace(t *testing.T) {
	const text = `name = "x"
[detect]
journal = ["_COMM=x"]
format = "json"
address = "ip"
[[detect.rule]]
class = "auth"
regex = ['^a from <ADDR>|b from <ADDR>$']
[[detect.rule]]
class = "auth"
where = ["a == b"]
`
	d, err := topics.Parse("x.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	err = Check("x.toml", []byte(text), d)
	for _, want := range []string{`x.toml:3:13: detect.journal: "_COMM=x"`, "x.toml:8:11: rule 1: ", "ip4"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing from:\n%v", want, err)
		}
	}
	fixed := strings.NewReplacer("^a from <ADDR>|b from <ADDR>$", "^a from <ADDR>$", "_COMM=x", "_UID=0").Replace(text)
	d, err = topics.Parse("x.toml", []byte(fixed))
	if err != nil {
		t.Fatal(err)
	}
	if err = Check("x.toml", []byte(fixed), d); err == nil || !strings.Contains(err.Error(), `"a == b" is no condition`) {
		t.Errorf("a bad condition: %v", err)
	}
	// An expression in a condition can be moved, too.
	loose := strings.Replace(fixed, "a == b", "msg ~ ^login of .* from <ADDR>", 1)
	if d, err = topics.Parse("x.toml", []byte(loose)); err != nil {
		t.Fatal(err)
	}
	if err = Check("x.toml", []byte(loose), d); err == nil || !strings.Contains(err.Error(), "x.toml:11:11: a client can move the address") {
		t.Errorf("a condition that can be moved: %v", err)
	}
}

func TestAForeignFilterThatCanBeMovedIsWarnedOfWithItsField(t *testing.T) {
	d := &topics.Definition{Name: "x", Target: "ip", Detect: &topics.Detect{
		Journal: []string{"_COMM=x"}, Rules: []topics.Rule{{Regex: []string{`^login of <F-USER>.*</F-USER> from <HOST>`}}}, MaxRetry: 1,
	}}
	if err := Usable(d); err != nil {
		t.Fatal(err)
	}
	list, _ := Warnings(d, false)
	said := strings.Join(list, "\n")
	for _, want := range []string{`journal match "_COMM=x": any user`, "expression 1: a client can move the address: <user> may hold"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q is missing from:\n%s", want, said)
		}
	}
}
