package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// request is a request that a sink got.
type request struct {
	method, path string
	header       http.Header
	body         string
}

// sink receives messages as a service does. Its answers are those of its function,
// and success without one.
func sink(t testing.TB, answer http.HandlerFunc) (address string, last func() request) {
	got := make(chan request, 100)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got <- request{r.Method, r.URL.EscapedPath(), r.Header, string(b)}
		if answer != nil {
			answer(w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() request {
		t.Helper()
		select {
		case r := <-got:
			return r
		default:
			t.Fatal("the sink was sent nothing")
			return request{}
		}
	}
}

func secretFile(t testing.TB, text string) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(p, []byte(text+"\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	return p
}

const secret = "s3cret/of+enough=characters"

func exampleBan() Notice {
	target, _ := ban.TargetOfAddr(netip.MustParseAddr("203.0.113.7"))
	return Notice{Kind: Ban, At: noon, Topic: "sshd", Target: target, Peers: []string{"alice"}, Text: "203.0.113.7 is banned <b> & *more* @everyone", Mend: "agent explain 203.0.113.7", Detail: "Failed password for root"}
}

func example(e *Entry) Message {
	p := &pending{ID: "00112233445566778899aabbccddeeff", Since: noon}
	p.add(exampleBan())
	return p.message(Ban, e, Page{
		Show: func(Kind, ban.Target) string { return "https://node.example/explain?target=203.0.113.7" },
		Act:  func(a Action) string { return "https://node.example/act/" + a.Do },
	}, noon)
}

// Each service is sent the form of its documentation. Details are in none of it.
func TestEachServiceIsSentItsOwnForm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		typ          Type
		path         string
		to           []string
		method, want string
		header       map[string]string
		body         []string
	}{
		{Ntfy, "/alerts", nil, "POST", "/", map[string]string{"Authorization": "Bearer " + secret}, []string{
			`"topic":"alerts"`, `"title":"Banmesh: a ban by peers"`, `"priority":3`, `"click":"https://node.example/explain?target=203.0.113.7"`, `"actions":[{"action":"view","label":"Unban","url":"https://node.example/act/unban"}]`,
		}},
		{Gotify, "/push/", nil, "POST", "/push/message", map[string]string{"X-Gotify-Key": secret}, []string{`"title":"Banmesh: a ban by peers"`, `"priority":4`, `"client::notification":{"click":{"url":"https://node.example`}},
		{Matrix, "", []string{"!room:example.org"}, "PUT", "/_matrix/client/v3/rooms/%21room:example.org/send/m.room.message/00112233445566778899aabbccddeeff", map[string]string{"Authorization": "Bearer " + secret}, []string{
			`"msgtype":"m.text"`, `"format":"org.matrix.custom.html"`, `\u0026lt;b\u0026gt;`, `\u003ca href=\"https://node.example/act/unban\"\u003eUnban\u003c/a\u003e`,
		}},
		{Telegram, "", []string{"-10012"}, "POST", "/bot" + strings.ReplaceAll(secret, "/", "/") + "/sendMessage", nil, []string{
			`"chat_id":"-10012"`, `"is_disabled":true`, `"inline_keyboard":[[{"text":"Show","url":"https://node.example/explain?target=203.0.113.7"},{"text":"Unban"`,
		}},
		{Slack, "/services/T0/B0/x", nil, "POST", "/services/T0/B0/x", nil, []string{`"unfurl_links":false`, `banned \u0026lt;b\u0026gt; \u0026amp;`, `\u003chttps://node.example/act/unban|Unban\u003e`}},
		{Discord, "/api/webhooks/1/x", nil, "POST", "/api/webhooks/1/x", nil, []string{`"allowed_mentions":{"parse":[]}`, `\\*more\\*`, `"flags":4`}},
		{Webhook, "/in", nil, "POST", "/in", map[string]string{HeaderID: "00112233445566778899aabbccddeeff"}, []string{`"version":1`, `"kind":"ban"`, `"notices":[{"kind":"ban"`, `"target":"203.0.113.7"`, `"peers":["alice"]`}},
	} {
		t.Run(string(c.typ), func(t *testing.T) {
			t.Parallel()
			address, last := sink(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":"x","echo":"`+secret+`"}`) })
			e := &Entry{Name: "x", Type: c.typ, URL: address + c.path, To: c.to, TokenFile: secretFile(t, secret), On: []Kind{Ban}, Every: DefaultEvery}
			if secretURL(c.typ) {
				e.URL, e.TokenFile = "", secretFile(t, address+c.path)
			}
			if faults := e.Check(); len(faults) > 0 {
				t.Fatal(faults)
			}
			r, err := newReceiver(e)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := r.send(t.Context(), example(e))
			if err != nil || !strings.HasPrefix(answer, "200 OK: ") || strings.Contains(answer, secret) && !secretURL(c.typ) {
				t.Errorf("the answer is %q, %v", answer, err)
			}
			got := last()
			if got.method != c.method || got.path != c.want {
				t.Errorf("%s %s, want %s %s", got.method, got.path, c.method, c.want)
			}
			for k, v := range c.header {
				if got.header.Get(k) != v {
					t.Errorf("header %s is %q, want %q", k, got.header.Get(k), v)
				}
			}
			for _, part := range append(c.body, "203.0.113.7") {
				if !strings.Contains(got.body, part) {
					t.Errorf("the body lacks %s:\n%s", part, got.body)
				}
			}
			if strings.Contains(got.body, "Failed password") || strings.Contains(got.body, secret) || !json.Valid([]byte(got.body)) {
				t.Errorf("the body is %s", got.body)
			}
			if host, _ := os.Hostname(); host != "" && strings.Contains(fmt.Sprint(got), host) {
				t.Errorf("the machine's name is in it: %v", got)
			}
		})
	}
}

func TestAWebhookIsSignedOverTimeAndBody(t *testing.T) {
	t.Parallel()
	address, last := sink(t, nil)
	e := &Entry{Name: "x", Type: Webhook, URL: address, TokenFile: secretFile(t, secret), On: []Kind{Ban}, Every: DefaultEvery}
	r, err := newReceiver(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.send(t.Context(), example(e)); err != nil {
		t.Fatal(err)
	}
	got := last()
	if got.header.Get(HeaderTimestamp) != fmt.Sprint(noon.Unix()) || got.header.Get(HeaderSignature) != Signature(secret, noon, []byte(got.body)) {
		t.Errorf("headers are %v", got.header)
	}
	// A value that openssl gives too: printf '1000.{}' | openssl dgst -sha256 -hmac key
	if s := Signature("key", time.Unix(1000, 0), []byte("{}")); s != "v1=c32de42341dece79a1511c9e7f74a2734112edcfcf48943c976faf07047065db" {
		t.Errorf("the signature is %s", s)
	}
}

func TestARefusalIsSaidWithoutTheSecret(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
		after  time.Duration
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "bad token "+secret, http.StatusUnauthorized)
		}, "it answered 401 Unauthorized: bad token [secret]", 0},
		"slowly": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Retry-After", "90"); w.WriteHeader(429) }, "it answered 429 Too Many Requests", 90 * time.Second},
		"telegram": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(429)
			fmt.Fprint(w, `{"ok":false,"parameters":{"retry_after":7}}`)
		}, `it answered 429 Too Many Requests: {"ok":false,"parameters":{"retry_after":7}}`, 7 * time.Second},
		"for long": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1e300")
			w.WriteHeader(503)
		}, "it answered 503 Service Unavailable", longestPause},
		"moved": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.9/", http.StatusFound)
		}, "it answered 302 Found: a redirect, which is not followed: name the last address", 0},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(500)
			for range 1000 {
				fmt.Fprint(w, strings.Repeat("x\x1b", 1000))
			}
		}, "it answered 500 Internal Server Error: " + strings.Repeat("x?", 98) + "x…", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, _ := sink(t, c.answer)
			e := &Entry{Name: "x", Type: Gotify, URL: address, TokenFile: secretFile(t, secret)}
			r, err := newReceiver(e)
			if err != nil {
				t.Fatal(err)
			}
			_, err = r.send(t.Context(), example(e))
			refused, ok := errors.AsType[*RefusedError](err)
			if !ok || refused.After != c.after || err.Error() != c.want {
				t.Errorf("the error is %v (%v)", err, refused)
			}
		})
	}
	e := &Entry{Name: "x", Type: Telegram, URL: "http://127.0.0.1:1", To: []string{"1"}, TokenFile: secretFile(t, secret)}
	r, err := newReceiver(e)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = r.send(t.Context(), example(e)); err == nil || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "/bot") {
		t.Errorf("the error is %v", err)
	}
}

func TestASecretThatEveryUserMayReadIsRefused(t *testing.T) {
	t.Parallel()
	path := secretFile(t, secret)
	e := &Entry{Type: Gotify, TokenFile: path}
	for mode, ok := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o601: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	for text, ok := range map[string]bool{"": false, "x": true, "a\nb": false, strings.Repeat("x", maxSecret-1): true, strings.Repeat("x", maxSecret): false} {
		e.TokenFile = secretFile(t, text)
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("%.10q: %v", text, err)
		}
	}
	for text, ok := range map[string]bool{strings.Repeat("x", leastSecret-1): false, strings.Repeat("x", leastSecret): true} {
		e := &Entry{Type: Webhook, TokenFile: secretFile(t, text)}
		if _, err := e.Secret(); (err == nil) != ok {
			t.Errorf("a key of %d: %v", len(text), err)
		}
	}
}

func TestEntriesThatCannotWorkAreRefused(t *testing.T) {
	t.Parallel()
	file := "/x"
	for name, c := range map[string]struct {
		e    Entry
		keys string // of the faults
	}{
		"a mail":               {Entry{Type: Email, To: []string{"a@example.org"}, From: "b@example.org"}, ""},
		"a mail to nobody":     {Entry{Type: Email, From: "b@example.org"}, "to"},
		"a mail of nobody":     {Entry{Type: Email, To: []string{"a@example.org"}}, "from"},
		"a header":             {Entry{Type: Email, To: []string{"a@example.org\r\nBcc: x@example.org"}, From: "b@example.org"}, "to"},
		"a password alone":     {Entry{Type: Email, To: []string{"a@example.org"}, From: "b@example.org", TokenFile: file}, "user"},
		"an unknown type":      {Entry{Type: "pager"}, "type"},
		"no topic":             {Entry{Type: Ntfy, URL: "https://ntfy.sh/"}, "url"},
		"two topics":           {Entry{Type: Ntfy, URL: "https://ntfy.sh/a/b"}, "url"},
		"plain text":           {Entry{Type: Ntfy, URL: "http://ntfy.example/a"}, "url"},
		"plain text, allowed":  {Entry{Type: Ntfy, URL: "http://ntfy.example/a", Plain: true}, ""},
		"plain text, here":     {Entry{Type: Ntfy, URL: "http://127.0.0.1/a"}, ""},
		"a password in it":     {Entry{Type: Ntfy, URL: "https://a:b@ntfy.sh/a"}, "url"},
		"another scheme":       {Entry{Type: Ntfy, URL: "file:///etc/passwd"}, "url"},
		"an unsigned webhook":  {Entry{Type: Webhook, URL: "https://x.example/"}, "token_file"},
		"slack's address":      {Entry{Type: Slack, URL: "https://hooks.slack.com/services/x", TokenFile: file}, "url"},
		"slack":                {Entry{Type: Slack, TokenFile: file}, ""},
		"matrix nowhere":       {Entry{Type: Matrix, URL: "https://matrix.org", TokenFile: file}, "to"},
		"matrix":               {Entry{Type: Matrix, URL: "https://matrix.org", TokenFile: file, To: []string{"!a:b"}}, ""},
		"telegram":             {Entry{Type: Telegram, TokenFile: file, To: []string{"1"}}, ""},
		"a filter":             {Entry{Type: MQTT, URL: "ssl://b.example", To: []string{"home/#"}}, "to"},
		"mqtt":                 {Entry{Type: MQTT, URL: "ssl://b.example", To: []string{"home"}}, ""},
		"mqtt in plain text":   {Entry{Type: MQTT, URL: "tcp://b.example", To: []string{"home"}}, "url"},
		"a receiver of gotify": {Entry{Type: Gotify, URL: "https://g.example", TokenFile: file, To: []string{"x"}}, "to"},
		"too often":            {Entry{Type: Slack, TokenFile: file, Every: time.Second}, "every"},
	} {
		c.e.Name = "x"
		if c.e.Every == 0 {
			c.e.Every = DefaultEvery
		}
		var keys []string
		for _, f := range c.e.Check() {
			keys = append(keys, f.Key)
		}
		if got := strings.Join(keys, ","); got != c.keys {
			t.Errorf("%s: faults at %q, want %q", name, got, c.keys)
		}
	}
}

func FuzzNoTextOfAPeerLeavesItsPlace(f *testing.F) {
	f.Add("alice", "claims wait", "web 1")
	f.Add("<!channel>", "a\r\nBcc: x\u202e", "x\x00\x1b[31m")
	f.Fuzz(func(t *testing.T, peer, text, label string) {
		n := exampleBan()
		n.Peers, n.Text = []string{peer}, text
		n.bound()
		e := &Entry{Name: "x", Type: Email, On: []Kind{Ban}, Label: label, From: "b@example.org", To: []string{"a@example.org"}}
		p := &pending{ID: newID(), Since: noon}
		p.add(n)
		m := p.message(Ban, e, Page{}, noon)
		if len(m.Title) > 200 || len(m.Text()) > 4*maxText {
			t.Errorf("%d bytes of title, %d of text", len(m.Title), len(m.Text()))
		}
		if strings.ContainsAny(m.Text()+m.Title, "\r\x00\x1b\u202e") {
			t.Errorf("a character steers: %q %q", m.Title, m.Text())
		}
		l, err := (&email{entry: e}).letter(m)
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		if _, err := l.WriteTo(&b); err != nil {
			t.Fatal(err)
		}
		head, _, _ := strings.Cut(b.String(), "\r\n\r\n")
		for _, line := range strings.Split(head, "\r\n") {
			if strings.HasPrefix(strings.ToLower(line), "bcc:") {
				t.Errorf("a header of its own: %q", head)
			}
		}
		if s := slackText.Replace(text); strings.ContainsAny(s, "<>") {
			t.Errorf("slack is sent %q", s)
		}
	})
}
