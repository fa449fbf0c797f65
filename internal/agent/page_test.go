package agent

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"banmesh/internal/ban"
	"banmesh/internal/config"
	"banmesh/internal/control"
)

const paged = "[page]\nlisten = \"127.0.0.1:0\"\n" + quiet

// visitor is a browser that is signed in to a node's page.
type visitor struct {
	t      testing.TB
	base   string
	cookie *http.Cookie
}

func (n *node) visit() *visitor {
	n.t.Helper()
	n.eventually("the page is shown", func() bool { return !strings.HasSuffix(n.a.page.URL(), ":0") })
	var link control.PageLink
	n.post("/v1/page/open", struct{}{}, &link)
	u, err := url.Parse(link.URL)
	if err != nil {
		n.t.Fatal(err)
	}
	v := &visitor{t: n.t, base: "http://" + u.Host}
	resp := v.do(http.MethodPost, "/sign-in", url.Values{"link": {u.Query().Get("link")}})
	if resp.code != http.StatusSeeOther || len(resp.cookies) != 1 {
		n.t.Fatalf("signing in: %d", resp.code)
	}
	v.cookie = resp.cookies[0]
	return v
}

type visited struct {
	code    int
	text    string
	cookies []*http.Cookie
}

func (v *visitor) do(method, path string, form url.Values) visited {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), method, v.base+path, strings.NewReader(form.Encode()))
	if err != nil {
		v.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", v.base)
	if v.cookie != nil {
		r.AddCookie(v.cookie)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	if err != nil {
		v.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatal(err)
	}
	return visited{resp.StatusCode, string(b), resp.Cookies()}
}

var formToken = regexp.MustCompile(`name="form" value="([A-Z2-7]+)"`)

// post posts a form and gives the page that it leads to.
func (v *visitor) post(path string, form url.Values) string {
	v.t.Helper()
	form.Set("form", formToken.FindStringSubmatch(v.do(http.MethodGet, "/holds", nil).text)[1])
	if r := v.do(http.MethodPost, path, form); r.code != http.StatusSeeOther {
		return r.text
	}
	return v.do(http.MethodGet, "/holds", nil).text
}

var (
	tag   = regexp.MustCompile(`<[^>]*>`)
	space = regexp.MustCompile(`\s+`)
)

// words gives the text of a page without its marks.
func words(page string) string { return space.ReplaceAllString(tag.ReplaceAllString(page, " "), " ") }

// The page and the command line have every figure from the same answers.
func TestThePageAndTheCommandsSayTheSame(t *testing.T) {
	t.Parallel()
	n := newNode(t, paged+trusts("alice", alice)+"[topics.dovecot]\ndetect = false\n")
	v := n.visit()
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.1.1"), Topic: "sshd", For: 3600}, nil)
	n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget("45.1.2.0/24"), Topic: "dovecot"}, nil)
	var heard []string
	for i := range 40 {
		heard = append(heard, fmt.Sprintf("45.2.0.%d", i))
	}
	n.hear(alice, heard...)
	var s control.Status
	var bans []control.Ban
	var peers []control.Peer
	var holds []control.Hold
	var events control.EventPage
	for path, into := range map[string]any{"/v1/status": &s, "/v1/bans": &bans, "/v1/peers": &peers, "/v1/hold": &holds, "/v1/history": &events} {
		if err := n.client.Get(t.Context(), path, nil, into); err != nil {
			t.Fatal(err)
		}
	}
	if s.Bans != len(bans) || len(peers) != 1 {
		t.Fatalf("status says %d bans, the list has %d; peers %+v", s.Bans, len(bans), peers)
	}
	has := func(path string, wanted ...string) {
		t.Helper()
		text := words(v.do(http.MethodGet, path, nil).text)
		for _, w := range wanted {
			if !strings.Contains(text, w) {
				t.Errorf("%s does not say %q:\n%.1500s", path, w, text)
			}
		}
	}
	has("/", fmt.Sprintf("%d banned %d watched %d waiting", s.Bans, s.Watched, s.Waiting), fmt.Sprintf("alice %d %d %d %d", peers[0].Claims, peers[0].Banning, peers[0].Met, peers[0].Guests))
	has("/bans", fmt.Sprintf("1 to %d of %d bans", len(bans), len(bans)))
	list := v.do(http.MethodGet, "/bans", nil).text
	for _, b := range bans {
		if !strings.Contains(list, "/explain?target="+url.QueryEscape(b.Target.String())) && !strings.Contains(list, ">"+b.Target.String()+"<") {
			t.Errorf("%s is not in the table", b.Target)
		}
	}
	has("/peers", fmt.Sprintf("claims %d banning %d", peers[0].Claims, peers[0].Banning))
	for _, h := range holds {
		has("/holds", fmt.Sprintf("%d claims wait: %s", h.Claims, h.Why))
	}
	has("/history?kind=ban", fmt.Sprintf("%d are kept", events.Kept))
	x := n.explain("45.1.1.1")
	has("/explain?target=45.1.1.1", x.Standings[0].Sentence, x.Standings[0].Lifts[0])
	has("/nodes", s.Node)
	for _, b := range s.Topics {
		has("/topics", string(b.Topic))
	}
	for _, w := range s.Warnings {
		if w.Severity == control.SeverityHigh && w.Code != "not-enforcing" && w.Code != "no-broker" {
			has("/", w.Code)
		}
	}
}

func TestSearchFindsWhatOverlapsAnAddress(t *testing.T) {
	t.Parallel()
	n := newNode(t, quiet+"[topics.dovecot]\ndetect = false\n")
	for target, topic := range map[string]ban.Topic{"45.1.1.1": "sshd", "45.1.1.0/24": "dovecot", "45.1.2.9": "sshd", "2a01:db8:1::/64": "sshd"} {
		n.post("/v1/bans", control.BanRequest{Target: ban.MustTarget(target), Topic: topic}, nil)
	}
	for query, want := range map[string]string{
		"search=45.1.1.1": "45.1.1.0/24 45.1.1.1", "search=45.1.1.7": "45.1.1.0/24", "search=45.1.0.0/16": "45.1.1.0/24 45.1.1.1 45.1.2.9", "search=45.1.2": "45.1.2.9", "search=2A01:DB8:1::7": "2a01:db8:1::/64",
		"search=%20": "2a01:db8:1::/64 45.1.1.0/24 45.1.1.1 45.1.2.9", "topic=dovecot": "45.1.1.0/24", "search=198.51.100.1": "", "search=0x": "", "origin=here&topic=sshd&search=45.": "45.1.1.1 45.1.2.9",
		"sort=target&limit=1&offset=1": "45.1.1.1", "sort=target&offset=99": "",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		var found control.BanPage
		if err := n.client.Get(t.Context(), "/v1/bans/page", q, &found); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		var got []string
		for _, b := range found.Bans {
			got = append(got, b.Target.String())
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want && !strings.HasPrefix(query, "sort") || found.Total != 4 {
			t.Errorf("%s: %v of %d, want %s", query, got, found.Total, want)
		}
		if strings.HasPrefix(query, "sort") && len(got) != strings.Count(want, ".1.1.1") {
			t.Errorf("%s: %v", query, got)
		}
	}
	for _, query := range []string{"limit=0", "limit=1001", "offset=-1", "sort=x", "topic=none", "topic=%00", "origin=nobody"} {
		q, _ := url.ParseQuery(query)
		if err := n.client.Get(t.Context(), "/v1/bans/page", q, nil); err == nil {
			t.Errorf("%s is answered", query)
		}
	}
	q := url.Values{"limit": {"1000"}}
	if err := n.client.Get(t.Context(), "/v1/bans/page", q, nil); err != nil {
		t.Errorf("the largest page: %v", err)
	}
}

func TestASwitchOnThePageIsWrittenAndFollowed(t *testing.T) {
	t.Parallel()
	n := newNode(t, paged+trusts("alice", alice)+"[topics.dovecot]\ndetect = false\n")
	v := n.visit()
	switches := filepath.Join(n.dir, "state", config.SwitchesFile)
	if text := v.post("/topics/switch", url.Values{"topic": {"dovecot"}, "field": {"publish"}, "value": {"on"}}); !strings.Contains(text, "dovecot: publishing this node") {
		t.Errorf("the page says\n%s", words(text))
	}
	if b, err := os.ReadFile(switches); err != nil || !strings.Contains(string(b), "publish = true") {
		t.Errorf("%v\n%s", err, b)
	}
	if x, _ := n.a.current().Find("dovecot"); !x.Publish || !slices.Equal(x.OnPage, []string{"publish"}) {
		t.Errorf("the agent does not follow: %+v", x)
	}
	if _, err := os.Stat(filepath.Join(n.dir, "config", "conf.d")); err == nil {
		t.Error("the configuration was written to, which the shipped unit forbids")
	}
	n.restart()
	if x, _ := n.a.current().Find("dovecot"); !x.Publish {
		t.Error("a restart forgets the switch")
	}
	v = n.visit()
	for name, form := range map[string]url.Values{
		"nothing such":   {"topic": {"none"}, "field": {"publish"}, "value": {"on"}},
		"without filter": {"topic": {"gateway-spam"}, "field": {"detect"}, "value": {"on"}},
	} {
		before, _ := os.ReadFile(switches)
		if text := v.post("/topics/switch", form); !strings.Contains(text, "Not all is well.") {
			t.Errorf("%s: the page says\n%s", name, words(text))
		}
		if after, _ := os.ReadFile(switches); string(after) != string(before) {
			t.Errorf("%s: the file is another one", name)
		}
	}
	// More than a handful of bans end: the page asks, and nothing has changed.
	n.configure(paged + trusts("alice", alice) + "[topics.dovecot]\ndetect = false\nsubscribe = true\n")
	if text := v.post("/topics/switch", url.Values{"topic": {"dovecot"}, "field": {"publish"}, "value": {"off"}}); !strings.Contains(text, "no longer publishing") {
		t.Errorf("the page says\n%s", words(text))
	}
	if b, err := os.ReadFile(switches); err == nil {
		t.Errorf("a switch as the files have it is kept:\n%s", b)
	}
	n.hearIn("dovecot", alice, "45.1.1.1", "45.1.1.2", "45.1.1.3", "45.1.1.4", "45.1.1.5", "45.1.1.6", "45.1.1.7")
	n.eventually("they are banned", func() bool { return n.a.ledger.Stats().Banned == 7 })
	off := url.Values{"topic": {"dovecot"}, "field": {"subscribe"}, "value": {"off"}}
	if text := v.post("/topics/switch", off); !strings.Contains(text, "the configuration ends 7 bans") || !strings.Contains(text, `name="yes"`) {
		t.Errorf("the page does not ask:\n%s", words(text))
	}
	if _, err := os.Stat(switches); err == nil || n.a.ledger.Stats().Banned != 7 {
		t.Errorf("it was done without a yes: %v, %d bans", err, n.a.ledger.Stats().Banned)
	}
	off.Set("yes", "1")
	if text := v.post("/topics/switch", off); !strings.Contains(text, "7 bans ended by that") {
		t.Errorf("after yes the page says\n%s", words(text))
	}
	if n.a.ledger.Stats().Banned != 0 {
		t.Error("after yes they are banned still")
	}
}

// BenchmarkTenThousandBansOnThePage asks for pages of the table and for the
// overview while ten thousand bans are in force.
func BenchmarkTenThousandBansOnThePage(b *testing.B) {
	n := newNode(b, paged)
	var q control.BanAllRequest
	for i := range 10_000 {
		q.Bans = append(q.Bans, control.BanRequest{Target: ban.MustTarget(fmt.Sprintf("45.1.%d.%d", i/256, i%256)), Topic: "sshd", For: int64(3600 + i)})
	}
	n.post("/v1/bans/all", q, nil)
	v := n.visit()
	for _, path := range []string{"/bans", "/bans?search=45.1.7.0%2F24", "/bans?sort=target&offset=9900", "/"} {
		b.Run(path, func(b *testing.B) {
			for b.Loop() {
				if r := v.do(http.MethodGet, path, nil); r.code != http.StatusOK {
					b.Fatal(r.code)
				}
			}
		})
	}
}

// Other rules are tried on the same events, and nothing is changed.
func TestOtherRulesAreTriedOnWhatHappened(t *testing.T) {
	t.Parallel()
	bob := ban.OperatorOf([]byte("bob"))
	n := newNode(t, paged+"ban = \"any of alice\"\n"+trusts("alice", alice)+fmt.Sprintf("[operators.bob]\nid = %q\n", bob))
	n.hear(alice, "45.1.1.1", "45.1.1.2")
	n.eventually("they are banned", func() bool { return n.a.ledger.Stats().Banned == 2 })
	v := n.visit()
	n.eventually("it is in the history", func() bool {
		return strings.Contains(words(v.do(http.MethodGet, "/rules?last=1d", nil).text), "claims of peers 2 ")
	})
	for rule, want := range map[string]string{"any of alice": "0 targets more banned, 0 fewer", "any of bob": "0 targets more banned, 2 fewer", "any of nobody": "nobody"} {
		text := words(v.do(http.MethodGet, "/rules?last=1d&topic=sshd&ban="+url.QueryEscape(rule), nil).text)
		if !strings.Contains(text, want) || want == "nobody" && strings.Contains(text, "Difference") {
			t.Errorf("%s: %s", rule, text)
		}
	}
	if got := n.a.ledger.Stats().Banned; got != 2 {
		t.Errorf("%d are banned after the trials", got)
	}
}
