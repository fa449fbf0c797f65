package settings

import (
	"strings"
	"testing"
)

func TestThePageIsForThisMachineUnlessItSpeaksTLS(t *testing.T) {
	t.Parallel()
	for text, fault := range map[string]string{
		"listen = \"127.0.0.1:7938\"":                                      "",
		"listen = \"[::1]:7938\"":                                          "",
		"listen = \"/run/banmesh/page.sock\"\nurl = \"https://x.example\"": "",
		"listen = \"/run/banmesh/page.sock\"":                              "nobody knows the page's address",
		"listen = \"192.0.2.1:7938\"":                                      "without TLS",
		"listen = \"192.0.2.1:7938\"\nplain = true":                        "",
		"listen = \"192.0.2.1:7938\"\ncertificate = \"/c\"\nkey = \"/k\"":  "",
		"listen = \"192.0.2.1:7938\"\ncertificate = \"/c\"":                "go together",
		"listen = \":7938\"\nplain = true":                                 "several addresses",
		"listen = \":7938\"\nplain = true\nurl = \"https://x.example\"":    "",
		"listen = \"x\"":              "want an address and a port",
		"url = \"https://x.example\"": "it needs listen",
		"listen = \"127.0.0.1:1\"\nurl = \"https://x.example/y\"":         "root of its host",
		"listen = \"127.0.0.1:1\"\nurl = \"https://u:p@x.example\"":       "root of its host",
		"listen = \"127.0.0.1:1\"\nurl = \"ftp://x.example\"":             "root of its host",
		"listen = \"127.0.0.1:1\"\nnodes = { a = \"/run/a.sock\" }":       "",
		"listen = \"127.0.0.1:1\"\nnodes = { a = \"a.sock\" }":            "no absolute path",
		"listen = \"127.0.0.1:1\"\nnodes = { \"A b\" = \"/run/a.sock\" }": "is no name",
	} {
		_, err := settingsOf(t, "[page]\n"+text+"\n")
		if (fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), fault) {
			t.Errorf("%s: %v, want %q", text, err, fault)
		}
	}
}
