package page

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// Every page, with every text of a stranger's shown as text.
func TestPagesShowForeignWordsAsText(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	for path, want := range map[string]string{
		"/": "Mend:", "/bans": "1 to 100 of 250 bans", "/bans?offset=200": "201 to 250 of 250 bans", "/explain": "Why is an address banned", "/explain?target=45.1.0.1": "To end it:",
		"/explain?target=" + url.QueryEscape(evil): "not an IP address", "/history": "250 events", "/history?kind=ban&since=2d": "checked", "/history?since=" + url.QueryEscape(evil): "no length of time",
		"/peers": "0.25 %", "/holds": "9 claims wait", "/topics": `aria-checked="true"`, "/sources": "cannot be read", "/filters": "Paste lines",
		"/rules": "agent policy test", "/rules?last=7d": "75 %", "/rules?last=8d": "at most 7d", "/rules?last=1d&topic=sshd&ban=any+of+bob": "2 targets more banned, 1 fewer", "/rules?last=1d&topic=sshd&watch=x": "no operator is named", "/denylists": "Signed lists", "/invite": "no secret", "/nodes": "this node",
	} {
		a := x.get(path)
		if a.StatusCode != http.StatusOK || path != "/sources" && !strings.Contains(a.text, want) {
			t.Errorf("%s: %s, without %q", path, a.Status, want)
		}
		harmless(t, path, a)
	}
	for _, path := range []string{"/no", "/bans/x", "/static/../page.go", "/static/none.css"} {
		if a := x.get(path); a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusMovedPermanently && a.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("%s: %s", path, a.Status)
		}
	}
	for path, kind := range map[string]string{"/static/page.css": "text/css", "/static/page.js": "text/javascript", "/static/icon.svg": "image/svg+xml"} {
		if a := x.get(path); a.StatusCode != http.StatusOK || !strings.HasPrefix(a.Header.Get("Content-Type"), kind) {
			t.Errorf("%s: %s %s", path, a.Status, a.Header.Get("Content-Type"))
		}
	}
}

var (
	foreignURL = regexp.MustCompile(`(?i)(src|href|action)="(https?:)?//`)
	inline     = regexp.MustCompile(`(?i)<script>|<style|\sstyle=|\son[a-z]+=[^x]`)
)

// The row about the own address is the one of `agent doctor`: a proxy says from where
// a person looks, and a tunnel's end does not.
func TestTheOverviewSaysWhetherTheVisitorCouldBeLockedOut(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	for from, want := range map[string]string{
		"203.0.113.9":               "agent allow add 203.0.113.9",
		"9.9.9.9, 203.0.113.9":      "agent allow add 203.0.113.9", // what the proxy itself saw is last
		"198.51.100.9":              "",
		"":                          "",
		"127.0.0.1":                 "",
		"<script>alert(1)</script>": "",
	} {
		a := x.do(x.client, http.MethodGet, "/", nil, http.Header{"X-Forwarded-For": {from}})
		if got := strings.Contains(a.text, "could lock you out"); got != (want != "") || want != "" && !strings.Contains(a.text, want) {
			t.Errorf("from %q the overview says that a ban could lock out: %v", from, got)
		}
	}
}
