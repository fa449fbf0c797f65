package f2bconf

import (
	"strings"
	"testing"
)

// A fault is told with the place of the value, and without any option's value: it may be a key.
func TestFaultsOfAJailNameThePlaceAndNoKey(t *testing.T) {
	for text, want := range map[string]string{
		"action = cdn[token=\"SECRET\n":               `jail.conf:4: action: bad configuration: "cdn[…" is no name with options`,
		"action = cdn[SECRET]\n":                      `jail.conf:4: action: bad configuration: "cdn": option 1 is not written as name=value`,
		"action = cdn[zone=x, \"SECRET\"]\n":          `jail.conf:4: action: bad configuration: "cdn": option 2 is not written`,
		"action = cdn[token=\"a\"SECRET]\n":           `jail.conf:4: action: bad configuration: "cdn": unexpected text after option "token"`,
		"\nlogpath = /var/log/a /var/log/b\n":         `jail.conf:5: logpath: bad configuration: "/var/log/a /var/log/b": behind a path stands head or tail`,
		"logpath = /a\nmaxretry = %(not-there)s\n":    `jail.conf:5: option "maxretry"`,
		"logpath = /a\nfilter = not-there\n# more\n ": `jail.conf:5: filter: `,
	} {
		filter := "filter = f\n"
		if strings.Contains(text, "filter =") {
			filter = "\n"
		}
		_, err := ReadJails(tree(t, map[string]string{
			"jail.conf":       "[a]\nenabled = true\n" + filter + text,
			"filter.d/f.conf": "[Definition]\nfailregex = ^x <HOST>\n",
		}))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestAnActionThatCannotBeReadHasAFault(t *testing.T) {
	jails, err := ReadJails(tree(t, map[string]string{
		"jail.conf":         "[a]\nenabled = true\nfilter = f\nlogpath = /a tail\n  /b\naction = own\n",
		"filter.d/f.conf":   "[Definition]\nfailregex = ^x <HOST>\n",
		"action.d/own.conf": "[Definition]\nactionstart =\nactionban = iptables -I INPUT -s <ip> --dport %(not-there)s -j DROP\n",
	}))
	if err != nil || len(jails) != 1 {
		t.Fatal(jails, err)
	}
	if a := jails[0].Actions[0]; a.Ban != "" || a.Fault == nil || !strings.Contains(a.Fault.Error(), "own.conf:3: ") {
		t.Errorf("got %+v", a)
	}
	if w := jails[0].Warnings; len(w) != 1 || w[0].Place.Line != 4 || !strings.Contains(w[0].What, "tail is honoured") {
		t.Errorf("got %v", w)
	}
}
