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
