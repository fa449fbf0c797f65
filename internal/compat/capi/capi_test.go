package capi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/compat/credentials"

	"banmesh/internal/ban"
	"banmesh/internal/compat/usage"
	"banmesh/internal/export"
)

const password = "documentation-password"

// central is a server with one machine, at a time that the test sets.
type central struct {
	t       *testing.T
	table   *export.Table
	server  *Server
	now     time.Time
	taken   []Signal
	failing error
	path    string
	token   string
}

func newCentral(t *testing.T) *central {
	t.Helper()
	c := &central{t: t, now: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC), path: filepath.Join(t.TempDir(), "crowdsec.json")}
	c.table = export.NewTable(func() time.Time { return c.now })
	c.start()
	if err := c.server.o.Machines.Add("machine", password, c.now); err != nil {
		t.Fatal(err)
	}
	c.token = c.login()
	return c
}

func (c *central) start() {
	c.t.Helper()
	machines, err := credentials.OpenMachines(c.path)
	if err != nil {
		c.t.Fatal(err)
	}
	c.server = New(Options{
		Table: c.table, Machines: machines, Now: func() time.Time { return c.now }, Log: slog.New(slog.DiscardHandler),
		Scenarios: map[string]ban.Topic{"me/own": "nginx", "crowdsecurity/ssh-slow-bf": ""},
		NeverBan: func() []netip.Prefix {
			return []netip.Prefix{netip.MustParsePrefix("198.51.100.1/32"), netip.MustParsePrefix("10.0.0.0/8")}
		},
		Take: func(_ context.Context, list []Signal) error {
			c.taken = append(c.taken, list...)
			return c.failing
		},
	})
}

func (c *central) do(method, path, token, body string) (status int, answer string) {
	c.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	r.Header.Set("User-Agent", "crowdsec/v1.7.8-linux")
	w := httptest.NewRecorder()
	c.server.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

func (c *central) login() string {
	c.t.Helper()
	_, body := c.do("POST", "/v3/watchers/login", "", `{"machine_id":"machine","password":"`+password+`","scenarios":[]}`)
	var a struct{ Token string }
	if err := json.Unmarshal([]byte(body), &a); err != nil || strings.Count(a.Token, ".") != 2 {
		c.t.Fatalf("%s", body)
	}
	return a.Token
}

func (c *central) ban(target string, lasts time.Duration) {
	c.table.Apply([]export.Entry{{Target: ban.MustTarget(target), Topic: "sshd", Class: ban.ClassAuth, Until: c.now.Add(lasts), Here: true}}, nil)
}

// A pull of each age gives everything at first and then what changed; what is
// this machine's, private, or a wallet is never told.
func TestAPullGivesEverythingThenTheChanges(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	for _, target := range []string{"192.0.2.7", "203.0.113.0/24", "10.1.2.3", "127.0.0.1", "0x1111111111111111111111111111111111111111"} {
		c.ban(target, 26*time.Hour)
	}
	want := `{"deleted":[],"new":[{"duration":"26h0m0s","origin":"CAPI","scenario":"banmesh/sshd","scope":"Ip","type":"ban","value":"192.0.2.7"},` +
		`{"duration":"26h0m0s","origin":"CAPI","scenario":"banmesh/sshd","scope":"Range","type":"ban","value":"203.0.113.0/24"}]}`
	if status, got := c.do("GET", "/v2/decisions/stream?startup=true", c.token, ""); status != 200 || got != want {
		t.Errorf("%d %s", status, got)
	}
	c.table.Apply(nil, []export.Key{{Target: ban.MustTarget("203.0.113.0/24"), Topic: "sshd"}})
	c.ban("192.0.2.8", time.Hour)
	_, got := c.do("GET", "/v3/decisions/stream?startup=false&additional_pull=false", c.token, "")
	want = `{"deleted":[{"scope":"Range","decisions":["203.0.113.0/24"]}],"new":[{"scenario":"banmesh/sshd","scope":"Ip","decisions":[{"value":"192.0.2.8","duration":"1h0m0s"}]}]}`
	if got != want {
		t.Errorf("%s", got)
	}
	if _, got := c.do("GET", "/v3/decisions/stream?additional_pull=false", c.token, ""); got != `{"deleted":[],"new":[]}` {
		t.Errorf("%s", got)
	}
	if _, got := c.do("GET", "/v3/decisions/stream?startup=true&community_pull=false&additional_pull=false", c.token, ""); !strings.Contains(got, `"new":[]`) {
		t.Errorf("%s", got)
	}
	// One whose bans are all private is told nothing, and not a list of nothing.
	if c.server.Clients()[0].Told != 0 {
		t.Errorf("%+v", c.server.Clients())
	}
}

// Lists are fetched without credentials, by an address that cannot be guessed:
// a topic's bans with nothing but values, and who is never banned.
func TestListsOfATopicAndOfWhoIsNeverBanned(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	c.ban("192.0.2.7", time.Hour)
	c.ban("10.1.2.3", time.Hour)
	c.ban("203.0.113.0/24", time.Hour)
	_, body := c.do("GET", "/v3/decisions/stream?startup=true", c.token, "")
	var a struct {
		Links struct {
			Blocklists, Allowlists []struct{ Name, URL, Scope string }
		}
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil || len(a.Links.Blocklists) != 2 || len(a.Links.Allowlists) != 1 || a.Links.Blocklists[0].Name != "banmesh-sshd" || a.Links.Blocklists[1].Name != "banmesh_ranges-sshd" || a.Links.Blocklists[0].Scope+a.Links.Blocklists[1].Scope != "iprange" {
		t.Fatalf("%v %s", err, body)
	}
	path := func(url string) string { return strings.TrimPrefix(url, "http://example.com") }
	if status, got := c.do("GET", path(a.Links.Blocklists[0].URL), "", ""); status != 200 || got != "192.0.2.7" {
		t.Errorf("%d %q", status, got)
	}
	// CrowdSec 1.7 makes every line a decision of the list's scope.
	if status, got := c.do("GET", path(a.Links.Blocklists[1].URL), "", ""); status != 200 || got != "203.0.113.0/24" {
		t.Errorf("%d %q", status, got)
	}
	_, got := c.do("GET", path(a.Links.Allowlists[0].URL), "", "")
	if !strings.Contains(got, `"value":"198.51.100.1"`) || !strings.Contains(got, `"value":"10.0.0.0/8"`) || strings.Count(got, "\n") != 1 {
		t.Errorf("%s", got)
	}
	forged := path(a.Links.Blocklists[0].URL)
	forged = strings.Replace(forged, "banmesh-sshd", "never-ban", 1)
	if status, _ := c.do("GET", forged, "", ""); status != http.StatusNotFound {
		t.Errorf("a list by another's signature: %d", status)
	}
}

// Of a signal target, class, count and time are read; those of unknown, changed
// and manual origin are counted and left out.
func TestSignalsAreReadForTargetClassCountAndTime(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	signal := func(scenario, trust, scope, value string) string {
		return fmt.Sprintf(`{"scenario":%q,"scenario_trust":%q,"message":"user root at secret.example.org","machine_id":"host","events_count":6,"start_at":"2026-11-28T11:58:00Z","stop_at":"2026-11-28T11:59:00.5Z","source":{"scope":%q,"value":%q,"as_name":"x"},"context":[{"key":"target","value":"root"}]}`, scenario, trust, scope, value)
	}
	body := "[" + strings.Join([]string{
		signal("crowdsecurity/ssh-bf", "certified", "Ip", "192.0.2.7"),
		signal("crowdsecurity/http-cve-2021-41773", "certified", "ip", "2001:db8::7"),
		signal("me/own", "custom", "Range", "203.0.113.0/24"),
		signal("crowdsecurity/ssh-slow-bf", "certified", "Ip", "192.0.2.8"),
		signal("crowdsecurity/ssh-bf", "tainted", "Ip", "192.0.2.9"),
		signal("manual 'ban' from 'x'", "manual", "Ip", "192.0.2.10"),
		signal("crowdsecurity/ssh-bf", "certified", "Country", "DE"),
		signal("crowdsecurity/ssh-bf", "certified", "Ip", "not an address"),
	}, ",") + "]"
	if status, got := c.do("POST", "/v2/signals", c.token, body); status != 200 {
		t.Fatalf("%d %s", status, got)
	}
	at := time.Date(2026, 11, 28, 11, 59, 0, 5e8, time.UTC)
	want := []Signal{
		{ban.MustTarget("192.0.2.7"), "sshd", ban.ClassAuth, 6, at},
		{ban.MustTarget("2001:db8::7"), "web-probe", ban.ClassExploit, 6, at},
		{ban.MustTarget("203.0.113.0/24"), "nginx", ban.ClassOther, 6, at},
	}
	if fmt.Sprint(c.taken) != fmt.Sprint(want) {
		t.Errorf("%v", c.taken)
	}
	if x := c.server.Clients()[0]; x.Signals != 3 || x.Ignored != 5 {
		t.Errorf("%+v", x)
	}
	if status, _ := c.do("POST", "/v2/signals", c.token, "{"); status != http.StatusBadRequest {
		t.Errorf("%d", status)
	}
	if status, _ := c.do("POST", "/v2/signals", c.token, "["+strings.Repeat("{},", maxSignals)+"{}]"); status != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", status)
	}
	// A signal that could not be recorded is sent again.
	c.failing = errors.New("disk full")
	if status, _ := c.do("POST", "/v2/signals", c.token, body); status != http.StatusServiceUnavailable {
		t.Errorf("%d", status)
	}
}

// Tokens hold over a restart, end after an hour and with leave; passwords are
// not kept; guesses get nothing.
func TestTokensOutliveARestartAndEndWithLeaving(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	for _, x := range []string{"", "a.b.c", c.token + "x", strings.Replace(c.token, "eyJ", "eyK", 1), strings.Repeat("a", 1<<16) + ".b"} {
		if status, _ := c.do("GET", "/v3/decisions/stream", x, ""); status != http.StatusUnauthorized {
			t.Errorf("%.40q: %d", x, status)
		}
	}
	for _, x := range []string{`{"machine_id":"machine","password":"wrong-password-123"}`, `{"machine_id":"other","password":"` + password + `"}`} {
		if status, _ := c.do("POST", "/v3/watchers/login", "", x); status != http.StatusForbidden {
			t.Errorf("%s: %d", x, status)
		}
	}
	c.start()
	if status, _ := c.do("POST", "/v3/usage-metrics", c.token, "{}"); status != http.StatusOK {
		t.Errorf("after a restart: %d", status)
	}
	c.now = c.now.Add(credentials.TokenLasts)
	if status, _ := c.do("POST", "/v3/usage-metrics", c.token, "{}"); status != http.StatusUnauthorized {
		t.Errorf("after an hour: %d", status)
	}
	token := c.login()
	if err := c.server.o.Machines.Remove("machine"); err != nil {
		t.Fatal(err)
	}
	if status, _ := c.do("POST", "/v3/usage-metrics", token, "{}"); status != http.StatusUnauthorized {
		t.Errorf("after leaving: %d", status)
	}
	for _, login := range []string{"", "a b", "a/b", strings.Repeat("a", credentials.MaxLogin+1)} {
		if err := c.server.o.Machines.Add(login, password, c.now); !errors.Is(err, credentials.ErrLogin) {
			t.Errorf("%q: %v", login, err)
		}
	}
}

// Metrics are accepted and not read, however long they are, and of a report of
// traffic no more than a mebibyte is.
func TestHundredMegabytesOfMetricsAreNotRead(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	for path, most := range map[string]int{"/v3/metrics/": 0, "/v3/usage-metrics": usage.MaxBody + 1} {
		body := &counted{r: io.LimitReader(zeros{}, 100<<20)}
		r := httptest.NewRequest("POST", path, body)
		r.Header.Set("Authorization", "Bearer "+c.token)
		w := httptest.NewRecorder()
		c.server.ServeHTTP(w, r)
		if w.Code != http.StatusOK || body.n > most {
			t.Errorf("%s: %d, %d bytes read", path, w.Code, body.n)
		}
	}
}

// CrowdSec asks for a list with the time of its last fetch, others with a tag:
// an unchanged one costs nothing, and one that changed in the very second of the
// fetch is not missed.
func TestAnUnchangedListIsNotSentAgain(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	path := "/v3/lists/machine/" + c.server.o.Machines.Sign("list machine banmesh-sshd") + "/banmesh-sshd"
	get := func(name, value string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", path, nil)
		if name != "" {
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		c.server.ServeHTTP(w, r)
		return w
	}
	since := func(at time.Time) int { return get("If-Modified-Since", at.UTC().Format(http.TimeFormat)).Code }
	c.ban("198.51.100.9", 10*time.Hour)
	first := get("", "")
	if first.Code != http.StatusOK || first.Body.String() != "198.51.100.9\n" || first.Header().Get("Last-Modified") != "" {
		t.Errorf("%d %q %v", first.Code, first.Body, first.Header())
	}
	if w := get("If-None-Match", first.Header().Get("ETag")); w.Code != http.StatusNotModified || w.Body.Len() > 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if got := since(c.now); got != http.StatusOK {
		t.Errorf("within the second: %d", got)
	}
	c.now = c.now.Add(2 * time.Hour)
	if got := since(c.now.Add(-time.Hour)); got != http.StatusNotModified {
		t.Errorf("unchanged for two hours: %d", got)
	}
	if at := get("", "").Header().Get("Last-Modified"); at == "" || get("If-Modified-Since", at).Code != http.StatusNotModified {
		t.Errorf("its own time: %q", at)
	}
	c.ban("198.51.100.10", 10*time.Hour)
	if got := since(c.now); got != http.StatusOK {
		t.Errorf("it changed in the second in which it was fetched: %d", got)
	}
	if w := get("If-None-Match", first.Header().Get("ETag")); w.Code != http.StatusOK {
		t.Errorf("it changed: %d", w.Code)
	}
	for _, header := range []string{"nonsense", "", "Sat, 28 Nov 2026"} {
		if w := get("If-Modified-Since", header); w.Code != http.StatusOK {
			t.Errorf("%q: %d", header, w.Code)
		}
	}
}

// An installation's bouncers report by the list that a decision came from, or
// for all that came from here; its own decisions are nobody's.
func TestTrafficOfAnInstallationIsItsOperators(t *testing.T) {
	t.Parallel()
	c := newCentral(t)
	shared := &usage.Attribution{Elapsed: func() time.Duration { return 0 }, Bans: func(yield func(usage.Ban) bool) {
		_ = yield(usage.Ban{Topic: "sshd", Operator: "alice"}) && yield(usage.Ban{Topic: "nginx", Operator: "bob"})
	}}
	c.server.o.Shared = shared
	item := func(origin string, n int) string {
		return fmt.Sprintf(`{"name":"dropped","value":%d,"unit":"packet","labels":{"origin":%q}}`, n, origin)
	}
	status, _ := c.do("POST", "/v3/usage-metrics", c.token, `{"remediation_components":[{"metrics":[{"items":[`+
		item("CAPI", 20)+","+item("lists:banmesh-sshd", 3)+","+item("lists:banmesh_ranges-sshd", 2)+","+item("crowdsec", 1000)+","+item("lists:other", 1000)+`]}]}]}`)
	if alice, bob := shared.Of("alice"), shared.Of("bob"); status != http.StatusOK || alice != 15 || bob != 10 {
		t.Errorf("%d: %d %d", status, alice, bob)
	}
	if x := c.server.Clients()[0].Dropped; x != (usage.Dropped{Packets: 25}) {
		t.Errorf("%+v", x)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

type counted struct {
	r io.Reader
	n int
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += n
	return n, err
}

func FuzzSignals(f *testing.F) {
	f.Add([]byte(`[{"scenario":"crowdsecurity/ssh-bf","stop_at":"2026-11-28T11:59:00Z","source":{"scope":"Ip","value":"192.0.2.7"}}]`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var list []signal
		if json.Unmarshal(in, &list) != nil {
			return
		}
		s := New(Options{Table: export.NewTable(nil), Log: slog.New(slog.DiscardHandler)})
		for _, x := range list {
			if v, ok := s.read(&x); ok && (v.Target.IsZero() || v.Hits < 1 || v.Hits > ban.MaxHits) {
				t.Errorf("%+v", v)
			}
		}
	})
}
