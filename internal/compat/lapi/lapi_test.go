package lapi

import (
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/compat/credentials"

	"pgregory.net/rapid"

	"banmesh/internal/ban"
	"banmesh/internal/compat/usage"
	"banmesh/internal/export"
)

// clock is a time that tests move, of the wall and of the process apart.
type clock struct {
	wall    time.Time
	elapsed time.Duration
}

func (c *clock) move(d time.Duration) { c.wall, c.elapsed = c.wall.Add(d), c.elapsed+d }

// node is a server over a table, with a bouncer's key.
type node struct {
	*Server
	clock *clock
	table *export.Table
	key   string
}

func newNode(t testing.TB, change func(*Options)) *node {
	t.Helper()
	c := &clock{wall: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	table := export.NewTable(func() time.Time { return c.wall })
	keys, err := credentials.OpenKeys(filepath.Join(t.TempDir(), "bouncers.json"))
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Table: table, Keys: keys, Log: slog.New(slog.DiscardHandler),
		Now: func() time.Time { return c.wall }, Elapsed: func() time.Duration { return c.elapsed },
	}
	if change != nil {
		change(&o)
	}
	n := &node{Server: New(o), clock: c, table: table}
	n.key = n.add(t, "one")
	return n
}

func (n *node) add(t testing.TB, name string, topics ...ban.Topic) string {
	t.Helper()
	key, err := n.o.Keys.Add(name, topics, n.clock.wall)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (n *node) ban(target, topic string, d time.Duration) {
	n.table.Apply([]export.Entry{{Target: ban.MustTarget(target), Topic: ban.Topic(topic), Class: ban.ClassAuth, Until: n.clock.wall.Add(d), Here: true}}, nil)
}

func (n *node) lift(target, topic string) {
	n.table.Apply(nil, []export.Key{{Target: ban.MustTarget(target), Topic: ban.Topic(topic)}})
}

func (n *node) ask(method, path, key, userAgent, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("x-api-key", key)
	r.Header.Set("User-Agent", userAgent)
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w
}

const custom, firewall = "crowdsec-custom-bouncer/v0.0.15", "crowdsec-firewall-bouncer/v0.0.25"

// told is an answer of the stream.
type told struct {
	New, Deleted []toldDecision
}

type toldDecision struct {
	ID                                             int64
	Duration, Origin, Scenario, Scope, Type, Value string
}

func values(list []toldDecision) (out []string) {
	for _, d := range list {
		out = append(out, d.Value)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (n *node) poll(startup, key, userAgent string) (answer told, err error) {
	w := n.ask("GET", "/v1/decisions/stream?startup="+startup, key, userAgent, "")
	return answer, json.Unmarshal(w.Body.Bytes(), &answer)
}

func TestALiveAnswerIsTheLongestBanOrTheWordNull(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.ban("192.0.2.7", "sshd", time.Hour)
	n.ban("192.0.2.7", "nginx", 2*time.Hour)
	n.ban("203.0.113.0/24", "sshd", time.Hour)
	for path, want := range map[string]string{
		"/v1/decisions?ip=198.51.100.1":            "null", // four bytes: nginx's bouncer takes nothing else
		"/v1/decisions?ip=127.0.0.255":             "null",
		"/v1/decisions?ip=192.0.2.7":               `[{"duration":"2h0m0s","id":ID,"origin":"banmesh","scenario":"banmesh/nginx/auth","scope":"Ip","type":"ban","value":"192.0.2.7"}]`,
		"/v1/decisions?ip=::ffff:203.0.113.9":      `[{"duration":"1h0m0s","id":ID,"origin":"banmesh","scenario":"banmesh/sshd/auth","scope":"Range","type":"ban","value":"203.0.113.0/24"}]`,
		"/v1/decisions?ip=fe80::1%25eth0":          "null",
		"/v1/decisions?type=captcha":               "null",
		"/v1/decisions?ip=203.0.113.9&scopes=ip":   "null",
		"/v1/decisions?range=192.0.2.0/24":         "null",
		"/v1/decisions?origins=banmesh-net":        "null",
		"/v1/decisions?banned=true&ip=192.0.2.250": "null",
	} {
		w := n.ask("GET", path, n.key, custom, "")
		got := w.Body.String()
		if i := strings.Index(got, `"id":`); i >= 0 {
			got = got[:i+5] + "ID" + got[i+strings.IndexByte(got[i:], ','):]
		}
		if w.Code != 200 || got != want {
			t.Errorf("%s: %d %s, want %s", path, w.Code, w.Body, want)
		}
	}
	inside := n.ask("GET", "/v1/decisions?range=192.0.2.0/24&contains=false", n.key, custom, "").Body.String()
	if strings.Count(inside, "192.0.2.7") != 1 || strings.Contains(inside, "203.0.113") {
		t.Errorf("inside the range: %s", inside)
	}
	if w := n.ask("GET", "/v1/decisions?ip=nonsense", n.key, custom, ""); w.Code != 400 {
		t.Errorf("nonsense: %d", w.Code)
	}
}

func TestPagesByID(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	for i := range 10 {
		n.ban(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}).String(), "sshd", time.Hour)
	}
	seen, last := map[string]bool{}, json.Number("0")
	for range 5 {
		var page []struct {
			ID    json.Number
			Value string
		}
		if err := json.Unmarshal(n.ask("GET", "/v1/decisions?limit=3&id_gt="+last.String(), n.key, custom, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, d := range page {
			last, seen[d.Value] = d.ID, true
		}
	}
	if len(seen) != 10 {
		t.Errorf("%d of 10 seen", len(seen))
	}
}

func TestNobodyAsksWithoutAKey(t *testing.T) {
	t.Parallel()
	synctest.Test(t, nobodyAsksWithoutAKey)
}

func nobodyAsksWithoutAKey(t *testing.T) {
	n := newNode(t, nil)
	for _, path := range []string{"/v1/decisions", "/v1/decisions/stream?startup=true"} {
		for _, key := range []string{"", "wrong", n.key + "=", strings.ToLower(n.key)} {
			w := n.ask("GET", path, key, custom, "")
			if w.Code != 403 || w.Body.String() != `{"message":"access forbidden"}` {
				t.Errorf("%s with key %q: %d %s", path, key, w.Code, w.Body)
			}
		}
		if w := n.ask("HEAD", path, n.key, custom, ""); w.Code != 200 || w.Body.Len() != 0 {
			t.Errorf("HEAD %s: %d %s", path, w.Code, w.Body)
		}
		if w := n.ask("DELETE", path, n.key, custom, ""); w.Code != 405 {
			t.Errorf("DELETE %s: %d", path, w.Code)
		}
	}
	if w := n.ask("GET", "/health", "", "", ""); w.Code != 200 || w.Body.String() != `{"status":"up"}` {
		t.Errorf("health: %d %s", w.Code, w.Body)
	}
	if w := n.ask("GET", "/v1/alerts", n.key, custom, ""); w.Code != 404 {
		t.Errorf("alerts: %d", w.Code)
	}
	if err := n.o.Keys.Remove("one"); err != nil {
		t.Fatal(err)
	}
	if w := n.ask("GET", "/v1/decisions", n.key, custom, ""); w.Code != 403 {
		t.Errorf("a removed key: %d", w.Code)
	}
}

func TestAKeyIsOfSomeTopics(t *testing.T) {
	t.Parallel()
	observed := map[ban.Topic]bool{"seen": true}
	n := newNode(t, func(o *Options) { o.Observed = func(t ban.Topic) bool { return observed[t] } })
	web := n.add(t, "web", "nginx")
	n.ban("192.0.2.1", "sshd", time.Hour)
	n.ban("192.0.2.2", "nginx", time.Hour)
	n.ban("192.0.2.3", "seen", time.Hour)
	check := func(key, startup string, fresh, deleted []string) {
		t.Helper()
		answer, err := n.poll(startup, key, custom)
		if err != nil || !slices.Equal(values(answer.New), fresh) || !slices.Equal(values(answer.Deleted), deleted) {
			t.Errorf("told %v and %v, want %v and %v: %v", answer.New, answer.Deleted, fresh, deleted, err)
		}
	}
	check(web, "true", []string{"192.0.2.2"}, nil)
	check(n.key, "true", []string{"192.0.2.1", "192.0.2.2"}, nil)
	n.lift("192.0.2.1", "sshd")
	check(web, "false", []string{"192.0.2.2"}, nil)
	// To end an untold ban harms nobody.
	check(n.key, "false", []string{"192.0.2.2"}, []string{"192.0.2.1", "192.0.2.3"})
	observed["nginx"] = true
	n.recent.Touch("nginx")
	check(web, "false", nil, []string{"192.0.2.2"})
	check(web, "true", nil, []string{"192.0.2.2"})
}

func TestProgramsThatCutRangesAreToldAddresses(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	n.ban("203.0.113.16/28", "sshd", time.Hour)
	n.ban("198.51.100.0/24", "sshd", time.Hour)
	answer, err := n.poll("true", n.key, firewall)
	if err != nil || len(answer.New) != 17 {
		t.Errorf("%d decisions, want 16 addresses and the larger range: %v", len(answer.New), err)
	}
	n.ban("203.0.113.20", "sshd", time.Hour)
	n.lift("203.0.113.16/28", "sshd")
	answer, err = n.poll("false", n.key, firewall)
	if err != nil || len(values(answer.Deleted)) != 15 || slices.Contains(values(answer.Deleted), "203.0.113.20") {
		t.Errorf("an address that is banned by itself is told as ended: %v %v", answer, err)
	}
	if s := n.Clients()[0]; s.Kind != "crowdsec-firewall-bouncer" || s.Version != "v0.0.25" || !s.Flat {
		t.Errorf("%+v", s)
	}
}

func TestOnlyOriginsThatWereToldAreCounted(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	item := `{"name":"dropped","value":7,"unit":"request","labels":{"origin":"banmesh-net","ip_type":"ipv4"}}`
	for body, want := range map[string]int{
		`{"remediation_components":[{"type":"nginx","metrics":[{"meta":{},"items":[` + item + `,{"name":"dropped","value":1e300,"unit":"request","labels":{"origin":"banmesh"}},{"name":"dropped","value":1,"unit":"request","labels":{"origin":"stranger"}}]}]}],"log_processors":null}`: 201,
		`{"remediation_components":[]}`:  422,
		`{"remediation_components":"x"}`: 422,
		`{`:                              400,
		``:                               400,
		`"` + strings.Repeat("x", usage.MaxBody-2) + `"`: 422,
		`"` + strings.Repeat("x", usage.MaxBody-1) + `"`: 413,
	} {
		if got := n.ask("POST", "/v1/usage-metrics", n.key, custom, body).Code; got != want {
			t.Errorf("%.60s: %d, want %d", body, got, want)
		}
	}
	got := n.Clients()[0].Dropped
	if len(got) != 1 || got[OriginNetwork].Requests != 7 {
		t.Errorf("%+v", got)
	}
}

// The report of go-cs-bouncer 0.0.19, with which newer bouncers are made, as it came over
// the wire.
func TestTheReportOfANewerBouncerIsCounted(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	const body = `{"log_processors":null,"remediation_components":[{"feature_flags":[],"metrics":[{"items":[{"labels":{"origin":"banmesh"},"name":"dropped","unit":"request","value":7}],"meta":{"utc_now_timestamp":1795883240,"window_size_seconds":15}}],"os":{"family":"debian","name":"debian","version":"12.11"},"utc_startup_timestamp":1795883239,"version":"","type":"crowdsec-test-bouncer"}]}` + "\n"
	if w := n.ask("POST", "/v1/usage-metrics", n.key, "crowdsec-test-bouncer/v0.0.19", body); w.Code != http.StatusCreated || w.Body.Len() != 0 {
		t.Errorf("%d %q", w.Code, w.Body)
	}
	if c := n.Clients()[0]; c.Dropped[OriginHere].Requests != 7 || c.Kind != "crowdsec-test-bouncer" || c.Version != "v0.0.19" {
		t.Errorf("%+v", c)
	}
}

// bouncer is a program that keeps a copy, as CrowdSec's own do.
type bouncer struct {
	key      string
	started  bool
	newFirst bool                     // as Traefik's plugin, which applies what is new before what is deleted
	skips    bool                     // as the firewall's, which passes over what it still holds
	polled   time.Duration            // its last poll
	held     map[string]time.Duration // ends, of the process
}

func (b *bouncer) poll(t fataler, n *node) {
	startup := "true"
	// Processes that share a key are promised the changes of the last five
	// minutes; one that was away longer begins anew.
	if n.clock.elapsed-b.polled > windows[0] {
		b.started, b.held = false, map[string]time.Duration{}
	}
	b.polled = n.clock.elapsed
	if b.started {
		startup = "false"
	}
	answer, err := n.poll(startup, b.key, custom)
	if err != nil {
		t.Fatalf("%v", err)
	}
	b.started = true
	for value, end := range b.held {
		if end <= n.clock.elapsed {
			delete(b.held, value)
		}
	}
	in := map[string]bool{}
	for _, d := range answer.New {
		if in[d.Value] {
			t.Fatalf("%s is told twice", d.Value)
		}
		in[d.Value] = true
	}
	apply := []func(){func() {
		for _, d := range answer.Deleted {
			if in[d.Value] {
				t.Fatalf("%s is in both lists", d.Value)
			}
			delete(b.held, d.Value)
		}
	}, func() {
		for _, d := range answer.New {
			rest, err := time.ParseDuration(d.Duration)
			if err != nil || rest < time.Second || rest%time.Second != 0 {
				t.Fatalf("duration %q", d.Duration)
			}
			if _, has := b.held[d.Value]; !has || !b.skips {
				b.held[d.Value] = n.clock.elapsed + rest
			}
		}
	}}
	if b.newFirst {
		slices.Reverse(apply)
	}
	for _, f := range apply {
		f()
	}
}

type fataler interface {
	Fatalf(format string, args ...any)
}

// After each poll a bouncer holds the bans, whatever kind it is, however
// bans were extended, shortened, lifted and ended in between, and with several
// processes behind one key.
func TestABouncerHoldsWhatIsBanned(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		n := newNode(t, nil)
		second := n.add(t, "two", "sshd", "nginx")
		list := []*bouncer{
			{key: n.key, held: map[string]time.Duration{}},
			{key: n.key, held: map[string]time.Duration{}, newFirst: true},
			{key: second, held: map[string]time.Duration{}, skips: true},
		}
		targets := []string{"192.0.2.1", "192.0.2.2", "203.0.113.0/24", "2001:db8::/64"}
		topics := []string{"sshd", "nginx"}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 4).Draw(rt, "step") {
			case 0, 1:
				n.ban(rapid.SampledFrom(targets).Draw(rt, "target"), rapid.SampledFrom(topics).Draw(rt, "topic"), time.Duration(rapid.IntRange(1, 4000).Draw(rt, "length"))*time.Second)
			case 2:
				n.lift(rapid.SampledFrom(targets).Draw(rt, "target"), rapid.SampledFrom(topics).Draw(rt, "topic"))
			case 3:
				n.clock.move(time.Duration(rapid.IntRange(1, 400_000).Draw(rt, "wait")) * time.Millisecond)
				n.table.Expire()
			}
			n.recent.Newest() // as its Run does
			b := list[rapid.IntRange(0, 2).Draw(rt, "bouncer")]
			b.poll(rt, n)
			want := map[string]bool{}
			_, entries := n.table.Snapshot()
			for e := range entries {
				p, _ := e.Target.Prefix()
				want[decision{prefix: p}.value()] = true
			}
			for value := range want {
				if _, ok := b.held[value]; !ok {
					rt.Fatalf("%s is banned and not held: %v", value, b.held)
				}
			}
			for value := range b.held {
				if !want[value] {
					rt.Fatalf("%s is held and not banned", value)
				}
			}
		}
	})
}

func TestAnExtensionIsToldAgainAtTheOldEnd(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	b := &bouncer{key: n.key, held: map[string]time.Duration{}, skips: true}
	n.ban("192.0.2.7", "sshd", 8*time.Second)
	b.poll(t, n)
	n.clock.move(time.Second)
	n.ban("192.0.2.7", "sshd", time.Hour)
	for range 60 {
		n.clock.move(10 * time.Second)
		n.table.Expire()
		b.poll(t, n)
		if _, ok := b.held["192.0.2.7"]; !ok {
			t.Fatal("the extended ban is not held")
		}
	}
}

// A process that begins does not take the changes of another one with its key.
func TestABeginningProcessTakesNothingFromAnotherWithItsKey(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	first := &bouncer{key: n.key, held: map[string]time.Duration{}}
	first.poll(t, n)
	n.ban("192.0.2.7", "sshd", time.Hour)
	n.recent.Newest() // as its Run does
	n.clock.move(400 * time.Second)
	second := &bouncer{key: n.key, held: map[string]time.Duration{}}
	second.poll(t, n)
	answer, err := n.poll("false", n.key, custom)
	if err != nil || !slices.Contains(values(answer.New), "192.0.2.7") {
		t.Errorf("the first is told %v: %v", answer, err)
	}
}

func TestAClockSetBackForgetsNothing(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	b := &bouncer{key: n.key, held: map[string]time.Duration{}}
	b.poll(t, n)
	n.clock.wall = n.clock.wall.Add(-30 * 24 * time.Hour)
	n.ban("192.0.2.7", "sshd", time.Hour)
	b.poll(t, n)
	if len(b.held) != 1 {
		t.Fatalf("%v", b.held)
	}
	n.lift("192.0.2.7", "sshd")
	n.clock.wall = n.clock.wall.Add(60 * 24 * time.Hour)
	b.poll(t, n)
	if len(b.held) != 0 {
		t.Fatalf("%v", b.held)
	}
}

func TestAnswersAreRenderedOnceForAll(t *testing.T) {
	t.Parallel()
	renderings := 0
	render := func() ([]byte, int) { renderings++; return nil, 0 }
	var a answers
	for range 100 {
		a.get(answerKey{filter: "x"}, 1, 1, 0, render)
	}
	a.get(answerKey{filter: "x"}, 2, 1, 0, render)
	if renderings != 2 {
		t.Errorf("%d renderings", renderings)
	}
}

func TestAKeyOutlivesARestartAndIsToldOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "bouncers.json")
	k, err := credentials.OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	key, err := k.Add("nginx", []ban.Topic{"nginx"}, time.Now())
	if err != nil || len(key) != 43 || strings.ContainsAny(key, "=+/ ") {
		t.Fatalf("%q %v", key, err)
	}
	if _, err := k.Add("nginx", nil, time.Now()); err != credentials.ErrTaken {
		t.Errorf("twice: %v", err)
	}
	for _, name := range []string{"", "a b", "ä", strings.Repeat("x", 65), "../x"} {
		if _, err := k.Add(name, nil, time.Now()); err != credentials.ErrName {
			t.Errorf("%q: %v", name, err)
		}
	}
	again, err := credentials.OpenKeys(path)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := again.Of(key); !ok || b.Name != "nginx" || !slices.Equal(b.Topics, []ban.Topic{"nginx"}) {
		t.Errorf("after a restart: %+v %v", b, ok)
	}
	if err := again.Remove("apache"); err != credentials.ErrUnknown {
		t.Errorf("%v", err)
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("startup=true&scopes=ip,range&scenarios_containing=ssh")
	f.Add("ip=192.0.2.1&contains=false&limit=1&offset=2&id_gt=3")
	n := newNode(f, nil)
	n.ban("192.0.2.7", "sshd", time.Hour)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/v1/decisions", nil)
		r.URL.RawQuery = query
		r.Header.Set("X-Api-Key", n.key)
		w := httptest.NewRecorder()
		n.ServeHTTP(w, r)
		if body, _ := io.ReadAll(w.Body); !json.Valid(body) || w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("%d %s", w.Code, body)
		}
	})
}

func FuzzUsage(f *testing.F) {
	f.Add(`{"remediation_components":[{"metrics":[{"items":[{"name":"dropped","value":7,"unit":"request","labels":{"origin":"banmesh"}}]}]}]}`)
	n := newNode(f, nil)
	f.Fuzz(func(t *testing.T, body string) {
		n.ask("POST", "/v1/usage-metrics", n.key, custom, body)
		for _, s := range n.Clients() {
			if len(s.Dropped) > 2 {
				t.Errorf("origins: %v", s.Dropped)
			}
		}
	})
}
