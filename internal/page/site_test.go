package page

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/ledger"
	"banmesh/topics"
)

// site is a page that is shown, and a browser that knows it.
type site struct {
	t      *testing.T
	node   *fakeNode
	server *Server
	base   string
	client *http.Client
	stop   func()

	mu       sync.Mutex
	now      time.Time
	switched []SwitchRequest
}

func (x *site) clock() time.Time {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.now
}

func (x *site) pass(d time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.now = x.now.Add(d)
}

func show(t *testing.T) *site {
	t.Helper()
	x := &site{t: t, node: newFake(), now: noon}
	x.server = New(Options{
		Listen: "127.0.0.1:0", Now: x.clock,
		Topics: someTopics,
		Examine: func(context.Context) doctor.Facts {
			x.node.mu.Lock()
			defer x.node.mu.Unlock()
			return doctor.Facts{Now: noon, Clock: doctor.ClockState{Known: true, Synchronised: true}, Status: x.node.status, Peers: x.node.peers, Never: []control.NeverBan{{Prefix: netip.MustParsePrefix("198.51.100.9/32"), Source: "administrator"}}}
		},
		Trial: func(ctx context.Context, q TrialRequest) (*detect.TrialReport, []detect.TrialLine, error) {
			var lines []detect.TrialLine
			trial := detect.Trial{Spec: q.Spec, Rule: q.Rule, Topics: topics.Builtin(), Log: "-", In: strings.NewReader(q.Lines), Each: func(l detect.TrialLine) error {
				lines = append(lines, l)
				return nil
			}}
			r, err := trial.Run(ctx)
			return r, lines, err
		},
		Why: explained, Harmless: func(ban.Topic) []string {
			return []string{"Mar  1 11:59:02 web myapp[9]: login accepted for bob from 203.0.113.8", "Mar  1 11:59:02 web myapp[9]: refused by 203.0.113.8 for its load"}
		},
		Replay: func(_ context.Context, _ time.Duration, other *control.RulesRequest) (ledger.Trial, error, error) {
			t := ledger.Trial{From: noon.Add(-time.Hour), To: noon, Claims: 10, Offenders: 4, Stopped: 2, Caught: 1, Targets: []ban.Target{ban.MustTarget("45.1.1.1"), ban.MustTarget("45.1.1.2")}}
			switch {
			case other == nil:
				return t, nil, nil
			case other.Rules.Ban != "any of bob":
				return t, nil, errors.New("no operator is named " + evil)
			}
			t.Targets = []ban.Target{ban.MustTarget("45.1.1.2"), ban.MustTarget("45.1.1.3"), ban.MustTarget("45.1.1.4")}
			return t, nil, nil
		},
		Switch: func(_ context.Context, q SwitchRequest) (control.Effect, error) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.switched = append(x.switched, q)
			return control.Effect{End: 2}, nil
		},
		Invite: func(_ context.Context, q InviteRequest) (string, error) {
			return "banmesh:" + strings.Repeat("Ab1", 60) + q.Note, nil
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	l, err := x.server.listen(ctx)
	if err != nil {
		t.Fatal(err)
	}
	x.server.at = l.Addr().String()
	x.base = "http://" + l.Addr().String()
	over := make(chan error, 1)
	go func() { over <- x.server.serve(ctx, l, control.NewHandlerClient(x.node.handler())) }()
	x.client = x.browser()
	x.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		x.client.CloseIdleConnections()
	})
	t.Cleanup(x.stop)
	if a := x.get("/alive"); a.StatusCode != http.StatusOK { // from here on a test may change the server between requests
		t.Fatal(a.Status)
	}
	return x
}

// browser keeps cookies and follows nothing.
func (x *site) browser() *http.Client {
	return &http.Client{
		Jar: &jar{}, Transport: &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// jar keeps the cookies of one site as they were set.
type jar struct {
	mu   sync.Mutex
	list []*http.Cookie
}

func (j *jar) SetCookies(_ *url.URL, list []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.list = list
}

func (j *jar) Cookies(*url.URL) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.list
}

type answerOf struct {
	*http.Response
	text string
}

func (x *site) do(client *http.Client, method, path string, form url.Values, header http.Header) answerOf {
	x.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequestWithContext(x.t.Context(), method, x.base+path, body)
	if err != nil {
		x.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", x.base)
	}
	for k, v := range header {
		if k == "Host" {
			r.Host = v[0]
			continue
		}
		r.Header[k] = v
	}
	resp, err := client.Do(r)
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		x.t.Fatal(err)
	}
	return answerOf{resp, string(b)}
}

func (x *site) get(path string) answerOf {
	x.t.Helper()
	return x.do(x.client, http.MethodGet, path, nil, nil)
}

var formToken = regexp.MustCompile(`name="form" value="([A-Z2-7]+)"`)

// post posts a form of the page with its token.
func (x *site) post(path string, form url.Values) answerOf {
	x.t.Helper()
	m := formToken.FindStringSubmatch(x.get("/holds").text)
	if m == nil {
		x.t.Fatal("the page has no form")
	}
	form.Set("form", m[1])
	return x.do(x.client, http.MethodPost, path, form, nil)
}

// link makes a link and gives its token.
func (x *site) link() string {
	x.t.Helper()
	l, err := x.server.Open()
	if err != nil {
		x.t.Fatal(err)
	}
	u, err := url.Parse(l.URL)
	if err != nil || !strings.HasPrefix(l.URL, x.base+"/sign-in?link=") {
		x.t.Fatalf("the link is %q (%v)", l.URL, err)
	}
	return u.Query().Get("link")
}

func (x *site) signIn() *site {
	x.t.Helper()
	if a := x.do(x.client, http.MethodPost, "/sign-in", url.Values{"link": {x.link()}}, nil); a.StatusCode != http.StatusSeeOther {
		x.t.Fatalf("signing in: %s", a.Status)
	}
	return x
}

func checkHeaders(t *testing.T, path string, a answerOf) {
	t.Helper()
	csp := a.Header.Get("Content-Security-Policy")
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(csp, want) {
			t.Errorf("%s: the policy %q lacks %s", path, csp, want)
		}
	}
	if strings.Contains(csp, "unsafe") {
		t.Errorf("%s: the policy is %q", path, csp)
	}
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "Cache-Control": "no-store"} {
		if got := a.Header.Get(name); got != want {
			t.Errorf("%s: %s is %q", path, name, got)
		}
	}
}

func harmless(t *testing.T, path string, a answerOf) {
	t.Helper()
	checkHeaders(t, path, a)
	if strings.Contains(a.text, "<script>alert") || strings.Contains(a.text, "<img") || strings.ContainsAny(a.text, "\u202e\u200b\x1b\x00") {
		t.Errorf("%s: a foreign text is not shown as text", path)
	}
	if m := foreignURL.FindString(a.text); m != "" {
		t.Errorf("%s: it loads or links something elsewhere: %s", path, m)
	}
	if m := inline.FindString(strings.ReplaceAll(a.text, " onerror=alert", "")); m != "" {
		t.Errorf("%s: the policy would block %q", path, m)
	}
}
