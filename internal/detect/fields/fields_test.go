package fields

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestALineIsSplitByItsFormatsOwnRules(t *testing.T) {
	for _, c := range []struct {
		name   string
		format Format
		line   string
		want   map[string]string // nil for a line that is not of the format
	}{
		{"an object", JSON, `{"a":1,"b":"x","c":true,"d":null,"e":{"f":"y"},"g":["1",2]}`, map[string]string{"a": "1", "b": "x", "c": "true", "d": "", "e.f": "y", "g": "1, 2"}},
		{"escapes", JSON, `{"u":"x\",\"ip\":\"198.51.100.1","ip":"192.0.2.1"}`, map[string]string{"u": `x","ip":"198.51.100.1`, "ip": "192.0.2.1"}},
		{"a line break in a text", JSON, `{"u":"x\n{\"ip\":1}","ip":"192.0.2.1"}`, map[string]string{"u": "x\n{\"ip\":1}", "ip": "192.0.2.1"}},
		{"behind a header", JSON, `Nov 21 09:14:02 host caddy[17]: {"a":"x"}`, map[string]string{"a": "x"}},
		{"behind a text", JSON, `error in "x": {"a":"x"}`, nil},
		{"behind six words", JSON, `a b c d e f: {"a":"x"}`, nil},
		{"with text after it", JSON, `{"a":"x"} {"a":"y"}`, nil},
		{"cut off", JSON, `{"a":"x","b":"y`, nil},
		{"no object", JSON, `["a"]`, nil},
		{"too deep", JSON, strings.Repeat(`{"a":`, 20) + "1" + strings.Repeat("}", 20), nil},
		{"words", Logfmt, `Nov 21 host grafana[1]: a=1 b="x y" c= d="\"q\" \\ \n \x41"`, map[string]string{"a": "1", "b": "x y", "c": "", "d": "\"q\" \\ \n A"}},
		{"a value that would go on", Logfmt, `a="x" b="y"z`, nil},
		{"a quote that does not end", Logfmt, `a="x b=1`, nil},
		{"no field", Logfmt, `nothing here`, nil},
		{"an access log", Access, `192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET /a?b=1 HTTP/1.1" 404 153 "http://x/" "curl \"8\""`, map[string]string{
			"address": "192.0.2.1", "user": "-", "time": "21/Nov/2026:09:14:02 +0000", "method": "GET", "path": "/a", "query": "b=1", "status": "404", "size": "153", "referer": "http://x/", "agent": `curl "8"`,
		}},
		{"a user with a blank, a bracket, a date", Access, `192.0.2.1 - a [b] 2005-01-01T00 [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.0" 401 1`, map[string]string{
			"address": "192.0.2.1", "user": "a [b] 2005-01-01T00", "time": "21/Nov/2026:09:14:02 +0000", "status": "401",
		}},
		{"a request that is none", Access, `192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "\x22\x16 - - [x] \x22\x16\x22 400 " 400 157 "-" "-"`, map[string]string{"status": "400", "request": "\"\x16 - - [x] \"\x16\" 400 "}},
		{"behind a web server's header", Access, `Nov 21 09:14:02 web1.example.org nginx[4711]: 192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1`, map[string]string{"address": "192.0.2.1", "status": "404"}},
		{"behind another program's header", Access, `Nov 21 09:14:02 web1 app[4711]: 192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1`, nil},
		{"behind a virtual host", Access, `www.example.org 192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1 "-" "curl" "-"`, map[string]string{"host": "www.example.org", "address": "192.0.2.1", "agent": "curl"}},
		{"behind a virtual host of no name", Access, `_ 192.0.2.1 - a b [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1`, map[string]string{"address": "192.0.2.1", "user": "a b"}},
		{"a host that is an address, which the client chose", Access, `198.51.100.1 192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1`, nil},
		{"an ident that is an address, which the client chose", Access, `client.example.org 198.51.100.1 - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 1`, nil},
		{"a line of HAProxy", Access, `Nov 21 09:14:02 lb haproxy[760]: 192.0.2.1:58444 [21/Nov/2026:09:14:02.439] main~ app/app1 193/0/1/0/194 404 516 - - ---- 3/3/0/0/0 0/0 {example.org|curl #22 404 1} "GET /a?b=1 HTTP/1.1"`, map[string]string{
			"address": "192.0.2.1", "time": "21/Nov/2026:09:14:02.439", "method": "GET", "path": "/a", "query": "b=1", "status": "404", "size": "516",
		}},
		{"HAProxy's, of IPv6, with TLS behind it", Access, `2001:db8::1:58444 [21/Nov/2026:09:14:02.439] main main/<NOSRV> -1/-1/-1/-1/0 401 +248 - - PR-- 0/0/0/0/0 0/0 "GET / HTTP/1.1" 0/0/0/0/0 example.org/TLSv1.3/x`, map[string]string{"address": "2001:db8::1", "status": "401", "uri": "/"}},
		{"HAProxy's, cut off", Access, `192.0.2.1:58444 [21/Nov/2026:09:14:02.439] main app/app1 193/0/1/0/194 404 516 - - ---- 3/3/0/0/0 0/0 "GET /aaaa`, nil},
		{"HAProxy's, of a socket", Access, `unix:1 [21/Nov/2026:09:14:02.439] main app/app1 193/0/1/0/194 404 516 - - ---- 3/3/0/0/0 0/0 "GET / HTTP/1.1"`, nil},
		{"no time", Access, `192.0.2.1 - - "GET / HTTP/1.1" 404 153`, nil},
		{"a request that does not end", Access, `192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1 404 153`, nil},
		{"no status", Access, `192.0.2.1 - - [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" x 153`, nil},
	} {
		var r Record
		err := r.Parse(c.format, []byte(c.line))
		if c.want == nil {
			if !errors.Is(err, ErrLine) {
				t.Errorf("%s: %v, %q", c.name, err, r.Fields())
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		for name, want := range c.want {
			if got, ok := r.Get(name); got != want || !ok {
				t.Errorf("%s: %s = %q (%t), want %q", c.name, name, got, ok, want)
			}
		}
	}
}

func TestAKeyThatStandsTwiceIsNotThere(t *testing.T) {
	for _, c := range []struct {
		format Format
		line   string
		gone   []string
		there  []string
	}{
		{JSON, `{"ip":"198.51.100.1","a":"x","ip":"192.0.2.1"}`, []string{"ip"}, []string{"a"}},
		{JSON, `{"r":{"ip":"198.51.100.1"},"r":{"x":"1"},"a":"x"}`, []string{"r.ip", "r.x", "r"}, []string{"a"}},
		{JSON, `{"r.ip":"198.51.100.1","r":{"ip":"192.0.2.1","x":"1"}}`, []string{"r.ip"}, []string{"r.x"}},
		{Logfmt, `ip=198.51.100.1 a=x ip=192.0.2.1`, []string{"ip"}, []string{"a"}},
	} {
		var r Record
		if err := r.Parse(c.format, []byte(c.line)); err != nil {
			t.Fatal(err)
		}
		for _, name := range c.gone {
			if v, ok := r.Get(name); ok || !r.Twice(name) {
				t.Errorf("%s: %s = %q", c.line, name, v)
			}
		}
		for _, name := range c.there {
			if _, ok := r.Get(name); !ok {
				t.Errorf("%s: %s is gone", c.line, name)
			}
		}
	}
}

func TestALineHasLimits(t *testing.T) {
	object := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,"k%d":1`, i)
		}
		return "{" + b.String()[1:] + "}"
	}
	var r Record
	if err := r.Parse(JSON, []byte(object(maxFields))); err != nil {
		t.Errorf("%d fields: %v", maxFields, err)
	}
	if err := r.Parse(JSON, []byte(object(maxFields+1))); !errors.Is(err, ErrLine) {
		t.Errorf("%d fields: %v", maxFields+1, err)
	}
}

func TestAConditionHoldsOfFieldsThatStandOnce(t *testing.T) {
	var r Record
	if err := r.Parse(JSON, []byte(`{"status":401,"uri":"/login?next=/","h":{"Auth":["REDACTED"]},"user":"","twice":"1","twice":"1","msg":"a | b"}`)); err != nil {
		t.Fatal(err)
	}
	for condition, want := range map[string]bool{
		"status = 401": true, "status = 200 | 401": true, "status = 200": false, "missing = 401": false,
		"status != 200": true, "status != 401": false, "missing != 1": false,
		`uri ~ ^/login\b`: true, `uri ~ ^/logout`: false, `missing ~ .*`: false,
		"h.Auth": true, "user": false, "missing": false, "! user": true, "! missing": true, "! h.Auth": false,
		"twice = 1": false, "! twice": false, "twice ~ 1": false,
	} {
		c, err := ParseCondition(condition, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.Holds(&r); got != want {
			t.Errorf("%q: %t, want %t", condition, got, want)
		}
	}
	for _, bad := range []string{"", "a b", "a == b c", "~ x", "a ~ (", "! a b", " = 1", "a=1"} {
		if _, err := ParseCondition(bad, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestALiteralOfAConditionStandsInTheLineHoweverItIsEscaped(t *testing.T) {
	for condition, want := range map[string]string{
		"msg = Invalid username or password": "[username]", "status = 401 | 403": "[401 403]", "path = /users/sign_in": "[users]", "path = /": "[]",
		"path ~ ^/login$": "[login]", "! user": "[]", "h.Authorization": "[authorization]", "a != b": "[]",
	} {
		c, err := ParseCondition(condition, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(c.Literals()); got != want {
			t.Errorf("%q: %s, want %s", condition, got, want)
		}
	}
}

func TestTimesAsProgramsWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"1795252442.12": "2026-11-21T09:14:02.12Z", "1795252442": "2026-11-21T09:14:02Z", "1795252442123": "2026-11-21T09:14:02.123Z", "1795252442123456": "2026-11-21T09:14:02.123456Z",
		"1795252442123456789": "2026-11-21T09:14:02.123456789Z", "2026-11-21T09:14:02.123+01:00": "2026-11-21T08:14:02.123Z", "2026-11-21T09:14:02Z": "2026-11-21T09:14:02Z",
		"2026-11-21T09:14:02+0100": "2026-11-21T08:14:02Z", "21/Nov/2026:09:14:02 +0000": "2026-11-21T09:14:02Z", "2026-11-21 09:14:02": "2026-11-21T09:14:02Z",
		"": "", "x": "", "12": "", "99999999999999999999": "", "1795252442.12x": "",
	} {
		got := ""
		if at, ok := Time(text, time.UTC); ok {
			got = at.UTC().Format(time.RFC3339Nano)
		}
		if got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

// FuzzParse reads hostile lines in every format: a field that is there stands
// once, and an access log's client stands at the line's beginning.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"a":{"b":"x\n"},"c":[1,{"d":2}]}`))
	f.Add([]byte(`a=1 b="x \" y" c=`))
	f.Add([]byte(`Nov 21 09:14:02 web nginx[1]: www.example.org 192.0.2.1 - a b [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 153 "-" "-" "-"`))
	f.Add([]byte(`192.0.2.1:58444 [21/Nov/2026:09:14:02.439] main app/app1 193/0/1/0/194 404 516 - - ---- 3/3/0/0/0 0/0 {"} "GET / HTTP/1.1"`))
	f.Add([]byte(`192.0.2.1 - a b [21/Nov/2026:09:14:02 +0000] "GET / HTTP/1.1" 404 153 "-" "-"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		for _, format := range Formats {
			var r Record
			if r.Parse(format, line) != nil {
				continue
			}
			for name := range r.Fields() {
				if r.Twice(name) {
					t.Errorf("%q: %q stands twice", line, name)
				}
			}
			text := strings.TrimSpace(string(line))
			text = withoutHeader(text)
			if host, ok := r.Get("host"); ok && format == Access {
				text = text[strings.Index(text, " ")+1:]
				if isAddress(host) {
					t.Errorf("%q: the host may be the client", line)
				}
			}
			if address, ok := r.Get("address"); format == Access && (!ok || !strings.HasPrefix(text, address+" ") && !strings.HasPrefix(text, address+":")) {
				t.Errorf("%q: the client is %q", line, address)
			}
		}
	})
}

func TestASetsTextsAreFoundHoweverTheyAreWritten(t *testing.T) {
	set, err := NewSet("x", Texts{Texts: []string{"/.env$", "^/cgi-bin/", "../../../", "=http:/", "union select", "/two words"}})
	if err != nil {
		t.Fatal(err)
	}
	path, err := NewSet("x", Texts{Path: true, Texts: []string{"/.env$", "/.git/"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		set   *Set
		value string
		holds bool
	}{
		{set, "/.env", true},
		{set, "/app/.ENV?x=1", true},
		{set, "/.environment", false},
		{set, "/.environment/.env", true},
		{set, "/%2eenv", true},
		{set, "/%252e%65nv", true},
		{set, "//.env", true},
		{set, "/x/////.env#", true},
		{set, "/cgi-bin/x", true},
		{set, "//cgi-bin//x", true},
		{set, "/a/cgi-bin/x", false},
		{set, "/x?f=..%2f..%2F%2e%2e/etc", true},
		{set, "/x?u=http://example.org/", true},
		{set, "/x?u=https://example.org/", false},
		{set, "/x?q=1%20UNION%20SELECT%201", true},
		{set, "/two%20words", true},
		{set, "%", false},
		{set, "", false},
		{path, "/.env?x", true},
		{path, "/search?q=/.env", false},
		{path, "/search?q=/.git/", false},
	} {
		if got := c.set.Holds(c.value); got != c.holds {
			t.Errorf("%q: %t", c.value, got)
		}
	}
	for _, bad := range [][]string{nil, {"ab"}, {"^ab$"}, {"/%2e"}, {"//x"}, {strings.Repeat("x", 201)}} {
		if _, err := NewSet("x", Texts{Texts: bad}); err == nil {
			t.Errorf("%q is a set", bad)
		}
	}
	if _, err := ParseCondition("uri in other", map[string]*Set{"x": set}); err == nil {
		t.Error("a condition names a set that is not there")
	}
}

// FuzzSet holds that a set which finds a text in a line's field is a candidate
// for the line.
func FuzzSet(f *testing.F) {
	set, err := NewSet("x", Texts{Texts: []string{"/.env$", "../../", "union select", "..;/"}})
	if err != nil {
		f.Fatal(err)
	}
	literals := set.literals()
	f.Add("/a/.env?x")
	f.Add("/%2e%2e/..//../x")
	f.Fuzz(func(t *testing.T, value string) {
		if !set.Holds(value) {
			return
		}
		if !slices.ContainsFunc(literals, func(s string) bool { return strings.Contains(strings.ToLower(value), s) }) {
			t.Errorf("%q has none of %q", value, literals)
		}
	})
}
