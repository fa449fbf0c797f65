package page

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
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

// fakeNode answers as an agent would, and remembers its orders.
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
	get("/v1/events", func(q url.Values) any {
		after, _ := strconv.Atoi(q.Get("after"))
		limit, _ := strconv.Atoi(q.Get("limit"))
		rest := n.events[min(after, len(n.events)):]
		page := control.EventPage{Events: rest[:min(limit, len(rest))], More: len(rest) > limit, Next: uint64(len(n.events))}
		if page.More {
			page.Next = page.Events[limit-1].Cursor
		}
		return page
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
