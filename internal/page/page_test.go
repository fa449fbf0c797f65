package page

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/control"
	"banmesh/internal/detect"
	"banmesh/internal/doctor"
	"banmesh/internal/ledger"
	"banmesh/topics"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// evil is a text of a stranger's with everything that could do harm on a page.
const evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202egnp.\u200b\x1b[31m\x00"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fakeNode answers as an agent would, and remembers what it was told to do.
type fakeNode struct {
	mu     sync.Mutex
	status control.Status
	bans   []control.Ban
	peers  []control.Peer
	holds  []control.Hold
	events []control.Event
	posts  []string // path and body
	ask    bool     // the next post is answered with a question
}

func (n *fakeNode) handler() http.Handler {
	mux := http.NewServeMux()
	get := func(path string, f func(url.Values) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			n.mu.Lock()
			defer n.mu.Unlock()
			control.WriteJSON(w, http.StatusOK, f(r.URL.Query()))
		})
	}
	get("/v1/status", func(url.Values) any { return n.status })
	get("/v1/peers", func(url.Values) any { return n.peers })
	get("/v1/allow", func(url.Values) any {
		return []control.Exemption{{Target: ban.MustTarget("198.51.100.9"), Allow: true, Since: noon, Comment: evil}}
	})
	get("/v1/feeds", func(url.Values) any {
		return []control.Feed{{Topic: "sshd", Operator: n.status.Operator, Node: "node2", Name: evil, Status: "synced", Claims: 7, Issued: noon}}
	})
	get("/v1/hold", func(url.Values) any { return n.holds })
	get("/v1/documents", func(url.Values) any {
		return control.Documents{Lists: []control.WalletList{{By: evil, Name: evil, Topic: "gateway-spam", Entries: []control.ListedWallet{{Wallet: ban.MustTarget("0x52908400098527886E0F7030069857D2E4169EE7"), Note: evil}}}}}
	})
	get("/v1/history", func(url.Values) any {
		return control.EventPage{Events: n.events, Next: uint64(len(n.events)), Kept: len(n.events)}
	})
	get("/v1/bans/page", func(q url.Values) any {
		limit, _ := strconv.Atoi(q.Get("limit"))
		offset, _ := strconv.Atoi(q.Get("offset"))
		offset, limit = max(0, min(offset, len(n.bans))), max(limit, 0)
		return control.BanPage{Bans: n.bans[offset:min(offset+limit, len(n.bans))], Total: len(n.bans), Matching: len(n.bans), Offset: offset}
	})
	get("/v1/explain", func(q url.Values) any {
		t, _ := ban.ParseTarget(q.Get("target"))
		return control.Explanation{Target: t, Guest: evil, Standings: []control.Standing{{
			Topic: "sshd", Target: t, Action: control.ActionBan, Sentence: "the topic's ban rule is met", Rule: evil, Since: noon, Until: noon.Add(time.Hour),
			Claims: []control.Claimed{{Name: evil, On: t, Hits: 3, End: noon.Add(time.Hour), Counts: true, Evidence: &control.Evidence{By: "sshd", Sample: evil}}}, Lifts: []string{"agent unban " + t.String()},
		}}}
	})
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		n.mu.Lock()
		defer n.mu.Unlock()
		if n.ask && !bytes.Contains(b, []byte(`"yes":true`)) {
			control.WriteError(w, control.Refuse(control.CodeAsk, "", "this lifts 7 bans"))
			return
		}
		n.posts = append(n.posts, r.URL.Path+" "+string(b))
		control.WriteJSON(w, http.StatusOK, json.RawMessage(`{"count":3,"target":"203.0.113.7","topic":"sshd"}`))
	})
	return mux
}

func (n *fakeNode) did() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.posts
}

// newFake has something of everything, foreign texts among it.
func newFake() *fakeNode {
	n := &fakeNode{status: control.Status{
		Version: "test", Started: noon.Add(-time.Hour), Operator: "aaaaaaaaaaaaaaaaaaaaaaaaaa", Node: "node1", Enforcement: "nftables", Bans: 12_345, Watched: 3, Waiting: 2,
		Topics: []control.TopicStatus{
			{Topic: "sshd", Detect: true, Subscribe: true, Policy: "any of alice", Own: 1, Bans: 2, Packets: 900},
			{Topic: "livepeer", Publish: true},
		},
		Sources:  []control.SourceStatus{{Name: evil, Kind: "file", Topics: []ban.Topic{"sshd"}, Found: 1, Read: 100, Matched: 3, LastLine: noon}, {Name: "/var/log/none", Topics: []ban.Topic{"sshd"}}},
		Brokers:  []control.BrokerStatus{{URL: "ssl://broker.example.org:8883", Error: evil}},
		Warnings: []control.Warning{{Code: "x", Severity: control.SeverityHigh, Text: evil, Fix: "agent check"}},
		Shielded: []control.Shielded{{Topic: "sshd", Target: ban.MustTarget("192.0.2.1"), Entry: evil, Offences: 3, Last: noon}},
	}}
	alice := ban.OperatorOf([]byte("alice"))
	n.peers = []control.Peer{{Operator: alice, Name: "alice", Claims: 1000, Banning: 40, Met: 12, Measured: 800, Guests: 2, Recent: []control.Strike{{Target: ban.MustTarget("192.0.2.1"), Topic: "sshd", At: noon, Why: evil}}}}
	n.holds = []control.Hold{{Feed: "f", Topic: "sshd", Operator: alice, Name: "alice", Why: control.HoldGuard, Claims: 9, Sample: []ban.Target{ban.MustTarget("203.0.113.77")}}}
	for i := range 250 {
		n.bans = append(n.bans, control.Ban{Target: ban.MustTarget(netip.AddrFrom4([4]byte{45, 1, byte(i / 250), byte(i)}).String()), Topic: "sshd", Until: noon.Add(time.Hour), Origin: []string{"here", evil}, Hits: 5})
		n.events = append(n.events, control.Event{Cursor: uint64(i + 1), At: noon.Add(-time.Duration(i) * 4 * time.Minute), Kind: "ban", Topic: "sshd", Target: n.bans[i].Target, Why: evil, Sample: evil, Peers: []string{"alice"}})
	}
	return n
}

// explained is the account of a shipped topic.
func explained(topic ban.Topic, line string) detect.Explanation {
	for _, d := range topics.Builtin() {
		if d.Name == topic && d.Detect != nil {
			if list, err := detect.Explain(detect.Options{Jails: []detect.Jail{{Definition: d}}}, []byte(line), false, ""); err == nil && len(list) > 0 {
				return list[0]
			}
		}
	}
	return detect.Explanation{}
}

func someTopics() []Topic {
	return []Topic{
		{Topic: "livepeer", Title: evil, Detectable: true, Publish: true},
		{Topic: "sshd", Title: "Failed logins", Detectable: true, Detect: true, Subscribe: true, Policy: "any of alice"},
		{Topic: "gateway-spam", Title: "Wallets", Wallets: true},
		{Topic: "nginx", Title: "Web", Detectable: true},
	}
}

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
		Doctor: func(context.Context) []doctor.Finding {
			return []doctor.Finding{{Check: "log", Level: doctor.LevelWrong, Text: evil, Fix: "agent check"}, {Check: "clock", OK: true, Level: doctor.LevelOK, Text: "well"}}
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
		Replay: func(context.Context, time.Duration) (ledger.Trial, error, error) {
			return ledger.Trial{From: noon.Add(-time.Hour), To: noon, Claims: 10, Offenders: 4, Stopped: 2, Caught: 1}, nil, nil
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

// Every page, with every text of a stranger's shown as text.
func TestPagesShowForeignWordsAsText(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	for path, want := range map[string]string{
		"/": "Mend:", "/bans": "1 to 100 of 250 bans", "/bans?offset=200": "201 to 250 of 250 bans", "/explain": "Why is an address banned", "/explain?target=45.1.0.1": "To end it:",
		"/explain?target=" + url.QueryEscape(evil): "not an IP address", "/history": "250 events", "/history?kind=ban&since=2d": "checked", "/history?since=" + url.QueryEscape(evil): "no length of time",
		"/peers": "0.25 %", "/holds": "9 claims wait", "/topics": `aria-checked="true"`, "/sources": "cannot be read", "/filters": "Paste lines",
		"/rules": "agent policy test", "/rules?last=7d": "75 %", "/rules?last=8d": "at most 7d", "/denylists": "Signed lists", "/invite": "no secret", "/nodes": "this node",
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

// read reads events of the stream until one has come, or it ended.
func event(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSpace(data), nil
		}
	}
}

func (x *site) follow(ctx context.Context) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.base+livePath, nil)
	if err != nil {
		return nil, err
	}
	return x.client.Do(r)
}

func TestChangesAreToldUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	resp, err := x.follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	if got, err := event(r); err != nil || !strings.Contains(got, `"bans":12345`) {
		t.Fatalf("first %q, %v", got, err)
	}
	x.node.mu.Lock()
	x.node.status.Bans++
	x.node.mu.Unlock()
	if got, err := event(r); err != nil || !strings.Contains(got, `"bans":12346`) {
		t.Fatalf("then %q, %v", got, err)
	}
	x.server.Close()
	if got, err := event(r); err == nil {
		t.Errorf("after the session's end: %q", got)
	}
}

func TestAThousandFollowAndOneMoreIsRefused(t *testing.T) {
	t.Parallel()
	h := newHub(nil, nil)
	var all []*reader
	for range MaxLive {
		r, ok := h.join()
		if !ok {
			t.Fatalf("refused with %d", len(all))
		}
		all = append(all, r)
	}
	if _, ok := h.join(); ok {
		t.Error("one more is let in")
	}
	h.leave(all[0])
	if _, ok := h.join(); !ok {
		t.Error("the place of one that left is not given away")
	}
}

// A reader that takes nothing has so many messages waiting, and is let go.
func TestASlowReaderIsLetGo(t *testing.T) {
	t.Parallel()
	h := newHub(nil, nil)
	slow, _ := h.join()
	quick, _ := h.join()
	for i := range livePending {
		h.tell(fmt.Append(nil, i))
		<-quick.messages
	}
	select {
	case <-slow.gone:
		t.Fatal("let go at the limit")
	default:
	}
	h.tell([]byte("one more"))
	<-slow.gone
	if h.count() != 1 || string(<-quick.messages) != "one more" {
		t.Errorf("%d follow", h.count())
	}
	h.leave(slow)
}

// A thousand browsers, each with a connection of its own, cost little, and one
// more is told so.
func TestAThousandBrowsersFollowInBoundedMemory(t *testing.T) {
	x := show(t).signIn()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	open := make([]*http.Response, MaxLive)
	for i := range open {
		resp, err := x.follow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if open[i] = resp; resp.StatusCode != http.StatusOK {
			t.Fatalf("the %dth: %s", i+1, resp.Status)
		}
	}
	if resp, err := x.follow(ctx); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	x.server.hub.tell(message(state{Bans: 777_777}))
	for i, resp := range open {
		for r := bufio.NewReaderSize(resp.Body, 128); ; {
			got, err := event(r)
			if err != nil {
				t.Fatalf("the %dth ended: %v", i+1, err)
			}
			if strings.Contains(got, "777777") {
				break
			}
		}
	}
	// Both ends of a thousand connections are in this process.
	if used := heap() - before; used > 128<<20 {
		t.Errorf("they take %d MiB", used>>20)
	} else {
		t.Logf("they take %d KiB each, with the clients' ends", used>>10/MaxLive)
	}
	if a := x.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("meanwhile: %s", a.Status)
	}
	cancel()
	for _, r := range open {
		r.Body.Close()
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestASocketThatIsNotReadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open []*http.Response
	for range 50 {
		resp, err := x.follow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp) // and nothing is read of it
	}
	if n := x.server.hub.count(); n != 50 {
		t.Errorf("%d follow", n)
	}
	for i := range 2000 {
		x.server.hub.tell(message(state{Bans: i}))
	}
	if a := x.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("meanwhile: %s", a.Status)
	}
	cancel()
	for _, r := range open {
		r.Body.Close()
	}
}

func TestTheChartsAddUp(t *testing.T) {
	t.Parallel()
	var list []tally
	for i := range 9 {
		list = append(list, tally{i % 24, fmt.Sprintf("topic%d", i), i + 1})
	}
	c := draw("x", "t", "a", list, noon, time.Hour, 24)
	sum, series := 0, 0
	for _, s := range c.Slots {
		sum += s.Sum
	}
	for _, s := range c.Series {
		series += s.Total
	}
	if sum != 45 || series != 45 || c.Total != 45 || len(c.Series) != maxSeries || c.Series[0].Name != "topic8" || c.Series[maxSeries-1].Name != "4 others" {
		t.Errorf("%d, %d, %d: %+v", sum, series, c.Total, c.Series)
	}
	for _, b := range c.Bars {
		if b.Y < chartTop-0.1 || b.Y+b.H > chartBase+0.6 || b.X+b.W > chartWidth {
			t.Errorf("a bar beyond the chart: %+v", b)
		}
	}
	for n, want := range map[int]int{0: 2, 2: 2, 3: 4, 5: 10, 11: 20, 41: 100, 100_000_000: 100_000_000} {
		if got := roundUp(n); got != want {
			t.Errorf("roundUp(%d) = %d", n, got)
		}
	}
}

func TestCountersThatBeginAnewLoseNothing(t *testing.T) {
	t.Parallel()
	now := noon
	s := newSamples(func() time.Time { return now })
	for _, n := range []uint64{100, 150, 20} {
		s.take(control.Status{Topics: []control.TopicStatus{{Topic: "sshd", Packets: n, Operators: []control.OperatorCount{{Name: "alice", Packets: n}}}, {Topic: "nginx", Operators: []control.OperatorCount{{Name: "alice", Packets: n}}}}})
		now = now.Add(sampleEvery)
	}
	list, operators, since := s.met(noon.Add(time.Hour), time.Hour, 24)
	sum, by := 0, 0
	for _, x := range list {
		sum += x.count
	}
	for _, x := range operators {
		by += x.count
	}
	if sum != 70 || by != 140 || !since.Equal(noon) {
		t.Errorf("%d since %v", sum, since)
	}
	for range 2 * maxSamples {
		s.take(control.Status{})
	}
	if len(s.list) != maxSamples {
		t.Errorf("%d samples are kept", len(s.list))
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
		Topics: someTopics,
		Doctor: func(context.Context) []doctor.Finding { return nil },
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
		Replay: func(context.Context, time.Duration) (ledger.Trial, error, error) { return ledger.Trial{}, nil, nil },
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
