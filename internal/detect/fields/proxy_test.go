package fields

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestAProxyLineReadsAsItsExpressionSays compares the reader with the one expression
// that a line is, on lines that are spoilt here and there. A quote before the request
// is none that nginx writes.
func TestAProxyLineReadsAsItsExpressionSays(t *testing.T) {
	t.Parallel()
	whole := regexp.MustCompile(`^\[(\d\d/[A-Z][a-z]{2}/\d{4}:[\d:]{8} [+-]\d{4})\] (?:[^\s"]+ [^\s"]+ )?(\d{3}) - ([A-Z]+) [^\s"]+ ([^\s"]+) "((?:[^"\\]|\\.)*)" \[Client ([0-9A-Fa-f.:]+)\] \[Length [\d-]+\] \[Gzip [\d.-]+\](?: \[Sent-to [^\s"]*\])? "((?:[^"\\]|\\.)*)" "((?:[^"\\]|\\.)*)"$`)
	const line = `[21/Nov/2026:09:14:02 +0000] - 401 401 - POST https cloud.example.org "/api/login" [Client 192.0.2.192] [Length 154] [Gzip -] [Sent-to x] "a\"b" "-"`
	rapid.Check(t, func(t *rapid.T) {
		s := line
		for range rapid.IntRange(0, 3).Draw(t, "changes") {
			from := rapid.IntRange(0, len(s)).Draw(t, "from")
			to := min(len(s), from+rapid.IntRange(0, 2).Draw(t, "cut"))
			s = s[:from] + rapid.SampledFrom([]string{"", `"`, `\`, " ", "x", `\"`, `" "`, "]", "[Client 192.0.2.1]"}).Draw(t, "piece") + s[to:]
		}
		m := whole.FindStringSubmatch(strings.TrimRight(s, " "))
		var r Record
		if err := r.proxy([]byte(s)); (m == nil) != (err != nil) {
			t.Fatalf("%q: %v, want %q", s, err, m)
		}
		if m == nil {
			return
		}
		for name, want := range map[string]string{"time": m[1], "status": m[2], "method": m[3], "host": m[4], "uri": unescape(m[5]), "address": m[6], "agent": unescape(m[7]), "referer": unescape(m[8])} {
			if got, _ := r.Get(name); got != want {
				t.Fatalf("%q: %s is %q, want %q", s, name, got, want)
			}
		}
	})
}

func TestTheAddressOfAProxysOrAVirtualHostsLineIsItsClients(t *testing.T) {
	for _, c := range []struct {
		format  Format
		line    string
		address string
		uri     string
		status  string
	}{
		{Access, `example.org:443 192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET /x?y HTTP/1.1" 404 19 "-" "-"`, "192.0.2.1", "/x?y", "404"},
		{Access, `192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET /a b c" 400 19`, "192.0.2.1", "/a b c", "400"},
		{Proxy, `[21/Nov/2026:09:14:02 +0000] - 404 404 - GET https example.org "/.env" [Client 192.0.2.2] [Length 5] [Gzip -] [Sent-to 10.0.0.2] "Mozilla" "-"`, "192.0.2.2", "/.env", "404"},
		{Proxy, `[21/Nov/2026:09:14:02 +0000] MISS 200 301 - GET http example.org "/x\" [Client 198.51.100.1] " [Client 192.0.2.3] [Length 5] [Gzip -] [Sent-to 10.0.0.2] "a" "b"`, "192.0.2.3", `/x" [Client 198.51.100.1] `, "301"},
	} {
		var r Record
		if err := r.Parse(c.format, []byte(c.line)); err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		got := r.Fields()
		if got["address"] != c.address || got["uri"] != c.uri || got["status"] != c.status {
			t.Errorf("%s: %q", c.line, got)
		}
	}
	var r Record
	for _, line := range []string{
		`[21/Nov/2026:09:14:02 +0000] - 404 404 - GET https example.org "/.env"`,
		`[21/Nov/2026:09:14:02 +0000] "/.env" [Client 192.0.2.2]`,
		`[x] - 4 4 - GET https example.org "/.env" [Client 192.0.2.2]`,
	} {
		if err := r.Parse(Proxy, []byte(line)); err == nil {
			t.Errorf("%s: %v", line, r.Fields())
		}
	}
}
