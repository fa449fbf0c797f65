package page

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestWithoutASessionNothingIsSaidButThatThePageIsAlive(t *testing.T) {
	t.Parallel()
	x := show(t)
	if a := x.get("/alive"); a.StatusCode != http.StatusOK || a.text != "alive\n" {
		t.Errorf("alive: %s %q", a.Status, a.text)
	}
	for _, path := range []string{"/", "/bans", "/explain?target=45.1.1.1", "/static/page.css", "/static/page.js", livePath, "/no", "/sign-in", "/sign-in?link=AAAA"} {
		a := x.get(path)
		if a.StatusCode != http.StatusUnauthorized || strings.Contains(a.text, "sshd") || strings.Contains(a.text, "12,345") || !strings.Contains(a.text, "agent page open") {
			t.Errorf("%s: %s\n%s", path, a.Status, a.text)
		}
		checkHeaders(t, path, a)
	}
	for _, path := range []string{"/bans/unban", "/topics/switch", "/sign-out", "/filters"} {
		if a := x.do(x.client, http.MethodPost, path, url.Values{"target": {"45.1.1.1"}}, nil); a.StatusCode != http.StatusUnauthorized || len(x.node.did()) > 0 {
			t.Errorf("POST %s: %s", path, a.Status)
		}
	}
}

func TestALinkSignsOneBrowserInOnceAndSoon(t *testing.T) {
	t.Parallel()
	x := show(t)
	token := x.link()
	for range 3 { // a messenger looks at it before a person does
		if a := x.get("/sign-in?link=" + token); a.StatusCode != http.StatusOK || len(a.Cookies()) > 0 || !strings.Contains(a.text, token) {
			t.Fatalf("looking at the link: %s", a.Status)
		}
	}
	if a := x.do(x.client, http.MethodPost, "/sign-in", url.Values{"link": {token}}, http.Header{"Origin": {"http://evil.example"}}); a.StatusCode != http.StatusForbidden {
		t.Errorf("a form of another site: %s", a.Status)
	}
	a := x.do(x.client, http.MethodPost, "/sign-in", url.Values{"link": {token}}, nil)
	if a.StatusCode != http.StatusSeeOther || len(a.Cookies()) != 1 {
		t.Fatalf("signing in: %s", a.Status)
	}
	if c := a.Cookies()[0]; !c.HttpOnly || c.SameSite != http.SameSiteStrictMode || c.Secure || c.Path != "/" || c.MaxAge != int(sessionFor/time.Second) {
		t.Errorf("the cookie is %+v", c)
	}
	if a := x.get("/"); a.StatusCode != http.StatusOK || !strings.Contains(a.text, "12,345") {
		t.Errorf("the overview: %s", a.Status)
	}
	other := x.browser()
	if a := x.do(other, http.MethodPost, "/sign-in", url.Values{"link": {token}}, nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("the link a second time: %s", a.Status)
	}
	late := x.link()
	x.pass(linkFor)
	if a := x.do(other, http.MethodPost, "/sign-in", url.Values{"link": {late}}, nil); a.StatusCode != http.StatusUnauthorized {
		t.Errorf("an old link: %s", a.Status)
	}
	if a := x.do(other, http.MethodPut, "/sign-in", url.Values{}, nil); a.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("PUT: %s", a.Status)
	}
}

func TestASessionEndsByTimeAndByHand(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*site){
		"after a time":    func(x *site) { x.keepUp(sessionFor) },
		"without a look":  func(x *site) { x.pass(idleFor) },
		"by sign out":     func(x *site) { x.post("/sign-out", url.Values{}) },
		"by page close":   func(x *site) { x.server.Close() },
		"for newer ones":  func(x *site) { x.more(maxSessions) },
		"by no such name": func(x *site) { x.client.Jar.(*jar).list[0].Value = "AAAA" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := show(t).signIn()
			if a := x.get("/"); a.StatusCode != http.StatusOK {
				t.Fatalf("before: %s", a.Status)
			}
			end(x)
			if a := x.get("/"); a.StatusCode != http.StatusUnauthorized {
				t.Errorf("after: %s", a.Status)
			}
		})
	}
	x := show(t).signIn()
	x.pass(idleFor - time.Second)
	x.more(maxSessions - 1)
	if a := x.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("a session that fits ended: %s", a.Status)
	}
	for range maxLinks {
		x.link()
	}
	first := x.server.sessions.links[0]
	x.link()
	if n := len(x.server.sessions.links); n != maxLinks || x.server.sessions.links[0] == first {
		t.Errorf("%d links are kept, the oldest among them", n)
	}
	if c := x.server.Close(); c.Sessions != maxSessions || c.Links != maxLinks {
		t.Errorf("closed %+v", c)
	}
}

// keepUp passes time and looks at the page meanwhile.
func (x *site) keepUp(d time.Duration) {
	x.t.Helper()
	for ; d > idleFor/2; d -= idleFor / 2 {
		x.pass(idleFor / 2)
		if a := x.get("/holds"); a.StatusCode != http.StatusOK {
			x.t.Fatalf("the session ended early: %s", a.Status)
		}
	}
	x.pass(d)
}

// more signs other browsers in.
func (x *site) more(n int) {
	x.t.Helper()
	for range n {
		if _, ok := x.server.sessions.begin(x.link()); !ok {
			x.t.Fatal("a link begins no session")
		}
	}
}

func TestOtherHostsOriginsAndFormsAreRefused(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	port := x.base[strings.LastIndexByte(x.base, ':'):]
	for host, want := range map[string]int{
		"127.0.0.1" + port: http.StatusOK, "localhost" + port: http.StatusOK, "LOCALHOST" + port: http.StatusOK, "[::1]" + port: http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example" + port: http.StatusMisdirectedRequest, "127.0.0.1:1": http.StatusMisdirectedRequest, "127.0.0.1": http.StatusMisdirectedRequest,
	} {
		if a := x.do(x.client, http.MethodGet, "/alive", nil, http.Header{"Host": {host}}); a.StatusCode != want {
			t.Errorf("host %s: %s", host, a.Status)
		}
	}
	token := formToken.FindStringSubmatch(x.get("/holds").text)[1]
	form := func(token string) url.Values { return url.Values{"form": {token}, "target": {"45.1.0.1"}} }
	for name, c := range map[string]struct {
		form   url.Values
		header http.Header
		want   int
	}{
		"of the page":             {form(token), nil, http.StatusSeeOther},
		"by another name of it":   {form(token), http.Header{"Host": {"localhost" + port}, "Origin": {"http://localhost" + port}}, http.StatusSeeOther},
		"from another site":       {form(token), http.Header{"Origin": {"http://evil.example"}}, http.StatusForbidden},
		"from nowhere":            {form(token), http.Header{"Origin": {"null"}}, http.StatusForbidden},
		"without an origin":       {form(token), http.Header{"Origin": {""}}, http.StatusForbidden},
		"from another scheme":     {form(token), http.Header{"Origin": {"https://127.0.0.1" + port}}, http.StatusForbidden},
		"from another port":       {form(token), http.Header{"Origin": {"http://127.0.0.1:1"}}, http.StatusForbidden},
		"of two names":            {form(token), http.Header{"Origin": {"http://localhost" + port}}, http.StatusForbidden},
		"without a token":         {form(""), nil, http.StatusForbidden},
		"with another's token":    {form("AAAAAAAAAAAAAAAAAAAAAAAAAA"), nil, http.StatusForbidden},
		"with the session's name": {form(x.client.Jar.(*jar).list[0].Value), nil, http.StatusForbidden},
	} {
		before := len(x.node.did())
		a := x.do(x.client, http.MethodPost, "/bans/unban", c.form, c.header)
		if a.StatusCode != c.want {
			t.Errorf("a form %s: %s", name, a.Status)
		}
		if done := len(x.node.did()) > before; done != (c.want == http.StatusSeeOther) {
			t.Errorf("a form %s: done is %v", name, done)
		}
	}
	if a := x.do(x.client, http.MethodGet, "/bans/unban?form="+token+"&target=45.1.0.1", nil, nil); a.StatusCode != http.StatusMethodNotAllowed && a.StatusCode != http.StatusNotFound {
		t.Errorf("a link that unbans: %s", a.Status)
	}
}
