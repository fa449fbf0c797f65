package page

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/ledger"
)

func TestFormsDoWhatTheySayAndTellIt(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	for _, c := range []struct {
		path, form, did, says string
	}{
		{"/bans/ban", "target=203.0.113.7&topic=sshd&for=1h&back=/bans", `/v1/bans {"target":"203.0.113.7","topic":"sshd","for":3600}`, "203.0.113.7 is banned in sshd until"},
		{"/bans/unban", "target=203.0.113.7&back=/bans?topic=sshd", `/v1/unban {"target":"203.0.113.7","comment":"on the page"}`, "203.0.113.7 is unbanned"},
		{"/bans/unban", "target=203.0.113.7&comment=guest&dispute=1&for=2d", `/v1/unban {"target":"203.0.113.7","for":172800,"dispute":true,"comment":"guest"}`, "203.0.113.7 is unbanned"},
		{"/bans/allow", "target=203.0.113.0/24&comment=office", `/v1/allow {"target":"203.0.113.0/24","comment":"office"}`, "no ban touches it"},
		{"/bans/allow/remove", "target=203.0.113.0/24", `/v1/allow/remove {"target":"203.0.113.0/24"}`, "no longer exempt"},
		{"/holds/approve", "peer=alice&topic=sshd&for=6h", `/v1/hold/approve {"peer":"alice","topic":"sshd","why":"on the page","for":21600}`, "Approved 3 claims of alice"},
		{"/holds/reject", "peer=alice&topic=sshd", `/v1/hold/reject {"peer":"alice","topic":"sshd","why":"on the page"}`, "they never count"},
		{"/peers/undo", "peer=alice&comment=wrong", `/v1/peers/undo {"peer":"alice","why":"wrong"}`, "3 bans lifted"},
		{"/peers/release", "peer=alice", `/v1/peers/release {"peer":"alice","why":"on the page"}`, "alice counts again"},
		{"/bans/ban", "target=nobody&topic=sshd", "", "not an IP address"},
		{"/bans/ban", "target=203.0.113.7&topic=sshd&for=soon", "", "no length of time"},
		{"/topics/switch", "topic=sshd&field=nonsense&value=on", "", "no switch of a topic"},
		{"/topics/switch", "topic=sshd&field=subscribe&value=off", "", "2 bans ended by that"},
	} {
		form, err := url.ParseQuery(c.form)
		if err != nil {
			t.Fatal(err)
		}
		if !form.Has("back") {
			form.Set("back", "/holds")
		}
		before := len(x.node.did())
		a := x.post(c.path, form)
		did := strings.Join(x.node.did()[before:], "\n")
		if a.StatusCode != http.StatusSeeOther || strings.TrimSpace(did) != c.did {
			t.Errorf("%s %s: %s, did %q", c.path, c.form, a.Status, did)
		}
		if next := x.get(a.Header.Get("Location")); !strings.Contains(next.text, c.says) {
			t.Errorf("%s %s: the next page does not say %q", c.path, c.form, c.says)
		}
		if again := x.get("/holds"); strings.Contains(again.text, c.says) && c.says != "they never count" {
			t.Errorf("%s: it is told twice", c.path)
		}
	}
	if len(x.switched) != 1 || x.switched[0] != (SwitchRequest{Topic: "sshd", Field: "subscribe"}) {
		t.Errorf("switched %+v", x.switched)
	}
	for in, want := range map[string]string{
		"/bans?topic=sshd": "/bans?topic=sshd", "//evil.example/": "/", "https://evil.example/bans": "/", "/bans/unban": "/", "javascript:alert(1)": "/", `/\evil.example`: "/", "": "/", "/peers#x": "/peers",
	} {
		if a := x.post("/bans/allow", url.Values{"target": {"203.0.113.7"}, "back": {in}}); a.Header.Get("Location") != want {
			t.Errorf("back to %q leads to %q", in, a.Header.Get("Location"))
		}
	}
}

func TestALargeChangeIsAskedForFirst(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	x.node.ask = true
	a := x.post("/bans/allow", url.Values{"target": {"203.0.113.0/24"}, "comment": {evil}, "back": {"/bans"}})
	if a.StatusCode != http.StatusConflict || len(x.node.did()) != 0 || !strings.Contains(a.text, "this lifts 7 bans") || !strings.Contains(a.text, `name="yes" value="1"`) {
		t.Fatalf("%s, did %q\n%s", a.Status, x.node.did(), a.text)
	}
	harmless(t, "the question", a)
	if a := x.post("/bans/allow", url.Values{"target": {"203.0.113.0/24"}, "yes": {"1"}}); a.StatusCode != http.StatusSeeOther || len(x.node.did()) != 1 {
		t.Errorf("%s, did %q", a.Status, x.node.did())
	}
}

func TestFormsAreBounded(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	if a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {strings.Repeat("x", maxPasted)}}); a.StatusCode != http.StatusOK || strings.Contains(a.text, "more than 128 KiB") {
		t.Errorf("at the limit of lines: %s", a.Status)
	}
	if a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {strings.Repeat("x", maxPasted+1)}}); a.StatusCode != http.StatusOK || !strings.Contains(a.text, "more than 128 KiB") {
		t.Errorf("beyond the limit of lines: %s", a.Status)
	}
	if a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {strings.Repeat("x", maxBody)}}); a.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("beyond the limit of a form: %s", a.Status)
	}
}

func TestTheFilterWorkshopSaysWhyAndProposesARuleThatItTried(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	lines := "Mar  1 11:59:01 web sshd[7]: Failed password for root from 203.0.113.7 port 4001 ssh2\n" +
		"Mar  1 11:59:02 web myapp[9]: login refused for <b>eve</b> from 203.0.113.8 after 3 tries\n" +
		"Mar  1 11:59:03 web myapp[9]: login refused for bob from 2001:db8::9 after 12 tries\n" +
		"Mar  1 11:59:04 web sshd[7]: Failed password for root, from nowhere\n"
	a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {lines}})
	for _, want := range []string{"1 of 4 lines match", "names 203.0.113.7", "it has none of the texts that a rule of sshd needs", "the date is “Mar  1 11:59:04”, and no rule matches the rest", "Of 2 lines in the definition of sshd that are no offence it matches 0", `myapp(?:\[\d&#43;\])?:\s&#43;login refused for \S&#43; from &lt;HOST&gt; after \d&#43; tries$`, "it matches 2 of 3 that were missed", "Whether yours are offences"} {
		if !strings.Contains(a.text, want) {
			t.Errorf("the answer lacks %q", want)
		}
	}
	harmless(t, "the workshop", a)
	a = x.post("/filters", url.Values{"rule": {`login refused for \S+ from <HOST> after \d+ tries$`}, "lines": {lines}})
	if !strings.Contains(a.text, "2 of 4 lines match") {
		t.Errorf("a rule alone:\n%s", a.text)
	}
	// A rule that lines of the definition speak against is proposed with that word.
	if a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {"Mar  1 11:59:02 web myapp[9]: refused by 203.0.113.9 for its load\n"}}); !strings.Contains(a.text, "do not use it as it is") {
		t.Errorf("a rule that is wrong:\n%s", a.text)
	}
	for _, rule := range []string{"(", "^no host$"} {
		if a := x.post("/filters", url.Values{"rule": {rule}, "lines": {lines}}); a.StatusCode != http.StatusOK || !strings.Contains(a.text, `role="alert"`) {
			t.Errorf("the rule %q: %s", rule, a.Status)
		}
	}
	if a := x.post("/filters", url.Values{"spec": {"/etc/shadow"}, "lines": {lines}}); !strings.Contains(a.text, "A path is for agent filter test") {
		t.Errorf("a path is tried")
	}
}

// Where the date stands in a line is the engine's to say: a rule is proposed for what it
// leaves of the line.
func TestARuleIsProposedWhereverTheDateStands(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	for name, lines := range map[string]string{
		"an access log":         `203.0.113.9 - - [01/Mar/2026:11:59:02 +0000] "POST /login HTTP/1.1" 401 12` + "\n" + `2001:db8::9 - - [01/Mar/2026:11:59:03 +0000] "POST /admin HTTP/1.1" 401 7`,
		"behind a level":        "WARN 2026-03-01 11:59:02 refused 203.0.113.9 after 3 tries\nWARN 2026-03-01 11:59:04 refused 203.0.113.10 after 4 tries",
		"in brackets":           "[2026-03-01 11:59:02] app: refused 203.0.113.9\n[2026-03-01 11:59:03] app: refused 203.0.113.10",
		"at the end":            "refused 203.0.113.9 at 2026-03-01T11:59:02Z\nrefused 203.0.113.10 at 2026-03-01T11:59:03Z",
		"before a syslog's own": "<38>Mar  1 11:59:02 web app[9]: refused 203.0.113.9\n<38>Mar  1 11:59:03 web app[12]: refused 203.0.113.10",
		"nowhere":               "app: refused 203.0.113.9 after 3 tries\napp: refused 203.0.113.10 after 4 tries",
	} {
		a := x.post("/filters", url.Values{"spec": {"sshd"}, "lines": {lines}})
		if !strings.Contains(a.text, "it matches 2 of 2 that were missed") {
			t.Errorf("%s: nothing is proposed that matches both lines", name)
		}
	}
}

func TestAnInvitationIsDrawn(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	a := x.post("/invite", url.Values{"brokers": {"ssl://broker.example.org:8883"}, "days": {"30"}, "topic": {"sshd"}, "self": {"1"}})
	if !strings.Contains(a.text, `class="qr"`) || !strings.Contains(a.text, "banmesh:Ab1Ab1") {
		t.Errorf("%s\n%s", a.Status, a.text)
	}
	for _, days := range []string{"0", "366", "x"} {
		if a := x.post("/invite", url.Values{"brokers": {"ssl://b"}, "days": {days}}); !strings.Contains(a.text, "1 to 365 days") {
			t.Errorf("%s days are taken", days)
		}
	}
	if a := x.post("/invite", url.Values{"brokers": {"ssl://b"}, "days": {"3"}, "note": {strings.Repeat("Long", 1000)}}); !strings.Contains(a.text, "too long for a QR code") {
		t.Error("a text that no code holds is drawn")
	}
}

func FuzzForms(f *testing.F) {
	f.Add("/bans/unban", "target=203.0.113.7&back=//x")
	f.Add("/filters", "spec=sshd&lines=a%00b%ff&rule=%3CHOST%3E")
	f.Add("/bans", "search=%f0&sort=x&offset=-1")
	f.Add("/explain", "target=::ffff:1.2.3.4/96")
	f.Add("/history", "since=9999999999d&kind=x&limit=-7")
	f.Add("/invite", "days=99999999999999999999&brokers=+++&topic=%2e%2e")
	x := New(Options{
		Listen: "127.0.0.1:7938", Now: func() time.Time { return noon },
		Topics:  someTopics,
		Examine: func(context.Context) doctor.Facts { return doctor.Facts{} },
		Trial: func(ctx context.Context, q TrialRequest) (*detect.TrialReport, []detect.TrialLine, error) {
			var lines []detect.TrialLine
			trial := detect.Trial{Spec: q.Spec, Rule: q.Rule, Log: "-", In: strings.NewReader(q.Lines), Each: func(l detect.TrialLine) error {
				lines = append(lines, l)
				return nil
			}}
			r, err := trial.Run(ctx)
			return r, lines, err
		},
		Why: explained, Harmless: func(ban.Topic) []string { return []string{evil} },
		Replay: func(context.Context, time.Duration, *control.RulesRequest) (ledger.Trial, error, error) {
			return ledger.Trial{}, nil, nil
		},
		Switch: func(context.Context, SwitchRequest) (control.Effect, error) { return control.Effect{}, nil },
		Invite: func(_ context.Context, q InviteRequest) (string, error) { return "banmesh:" + q.Note, nil },
	})
	x.node, x.doors = control.NewHandlerClient(newFake().handler()), newDoors(x.URL())
	token, _ := x.sessions.link()
	secret, _ := x.sessions.begin(token)
	form := x.sessions.list[0].form
	f.Fuzz(func(t *testing.T, path, query string) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			u, err := url.ParseRequestURI((&url.URL{Path: path}).EscapedPath() + "?" + query)
			if err != nil || !strings.HasPrefix(u.Path, "/") {
				return // the HTTP server refuses it
			}
			var body io.Reader
			if method == http.MethodPost {
				body = strings.NewReader(query + "&form=" + form)
				u.RawQuery = ""
			}
			r := httptest.NewRequest(method, "/", body)
			r.URL, r.Host = u, "127.0.0.1:7938"
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("Origin", "http://127.0.0.1:7938")
			r.AddCookie(&http.Cookie{Name: x.cookieName(), Value: secret})
			if path == livePath || path == "/sign-out" {
				return
			}
			w := httptest.NewRecorder()
			x.ServeHTTP(w, r)
			text := w.Body.String()
			if w.Code == http.StatusInternalServerError && strings.Contains(text, "cannot be made") || strings.Contains(text, "<script>alert") || strings.ContainsAny(text, "\u202e\x1b\x00") {
				t.Errorf("%s %s?%s: %d\n%s", method, path, query, w.Code, text)
			}
			if l := w.Header().Get("Location"); strings.HasPrefix(l, "//") || strings.Contains(l, "://") {
				t.Errorf("%s %s?%s leads to %s", method, path, query, l)
			}
		}
	})
}
