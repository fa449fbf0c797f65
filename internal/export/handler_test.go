package export

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
)

// serve gives a server of a table and its address.
func serve(t *testing.T, o Options) (*Handler, string) {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	h, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	h.RegisterLocal(mux)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return h, s.URL
}

func get(t *testing.T, url string, header ...string) (int, http.Header, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

func TestCheckAnswersAProxyByStatus(t *testing.T) {
	table := at(
		entry("192.0.2.0/24", "sshd", time.Hour),
		entry("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "broadcaster-addresses", time.Hour),
	)
	_, plain := serve(t, Options{Bans: table})
	_, proxied := serve(t, Options{Bans: table, ClientHeader: "X-Forwarded-For", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}})
	_, elsewhere := serve(t, Options{Bans: table, ClientHeader: "X-Forwarded-For", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	for _, c := range []struct {
		claim, url string
		header     string
		want       int
	}{
		{"an address in a banned prefix", plain + "/v1/check?ip=192.0.2.7", "", 403},
		{"the same in IPv6", plain + "/v1/check?ip=::ffff:192.0.2.7", "", 403},
		{"an address outside", plain + "/v1/check?ip=192.0.3.7", "", 200},
		{"in another topic", plain + "/v1/check?ip=192.0.2.7&topic=spam", "", 200},
		{"in one of two topics", plain + "/v1/check?ip=192.0.2.7&topic=spam&topic=sshd", "", 403},
		{"a wallet, EIP-55", plain + "/v1/check?wallet=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "", 403},
		{"a wallet, lower case", plain + "/v1/check?wallet=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "", 403},
		{"another wallet", plain + "/v1/check?wallet=0x5Aaeb6053f3e94c9B9a09F33669435e7EF1BeAee", "", 200},
		{"no address", plain + "/v1/check?ip=localhost", "", 400},
		{"a prefix", plain + "/v1/check?ip=192.0.2.0/24", "", 400},
		{"an address for a wallet", plain + "/v1/check?wallet=192.0.2.7", "", 400},
		{"two questions", plain + "/v1/check?ip=192.0.2.7&wallet=0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "", 400},
		{"a bad topic", plain + "/v1/check?ip=192.0.2.7&topic=A/B", "", 400},
		{"nothing asked", plain + "/v1/check", "", 400},
		{"a header that nobody configured", plain + "/v1/check", "192.0.2.7", 400},
		{"the client that a trusted proxy names", proxied + "/v1/check", "192.0.2.7", 403},
		{"a client that is not banned", proxied + "/v1/check", "192.0.3.7", 200},
		{"with a port", proxied + "/v1/check", "192.0.2.7:4711", 403},
		{"what the client wrote before the proxy's own", proxied + "/v1/check", "192.0.3.7, 192.0.2.7", 403},
		{"what the client wrote to frame another", proxied + "/v1/check", "192.0.2.7, 192.0.3.7", 200},
		{"proxies behind each other", proxied + "/v1/check", "192.0.2.7, 10.1.2.3", 403},
		{"proxies only", proxied + "/v1/check", "10.1.2.3", 400},
		{"an empty header", proxied + "/v1/check", "", 400},
		{"a header with junk", proxied + "/v1/check", "192.0.3.7, unknown", 400},
		{"a peer that is no trusted proxy", elsewhere + "/v1/check", "192.0.2.7", 400},
	} {
		var header []string
		if c.header != "" {
			header = []string{"X-Forwarded-For", c.header}
		}
		status, _, body := get(t, c.url, header...)
		if status != c.want {
			t.Errorf("%s: %d, want %d: %s", c.claim, status, c.want, body)
			continue
		}
		if strings.HasPrefix(c.url, proxied) && status == 403 {
			if strings.Contains(body, "sshd") || strings.Contains(body, "192.0.2") || strings.Contains(body, "network") || !strings.Contains(body, `"banned":true`) {
				t.Errorf("%s: the visitor is told %s", c.claim, body)
			}
			continue
		}
		var answer checkAnswer
		if status != 400 && (json.Unmarshal([]byte(body), &answer) != nil || answer.Banned != (status == 403) || answer.Banned != (len(answer.Matches) == 1)) {
			t.Errorf("%s: the body does not say the same: %s", c.claim, body)
		}
	}
	if _, err := New(Options{ClientHeader: "X-Real-IP"}); err == nil {
		t.Error("a header of anybody's is believed")
	}
}

func TestListsAreSortedFilteredAndCached(t *testing.T) {
	table := at(
		entry("192.0.2.7", "sshd", time.Hour),
		entry("192.0.2.7", "spam", time.Hour),
		entry("2001:db8::/64", "sshd", time.Hour),
		entry("198.51.100.0/24", "spam", 90*time.Minute),
		entry("0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "broadcaster-addresses", time.Hour),
	)
	_, url := serve(t, Options{Bans: table})
	const wallet = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed\n"
	for path, want := range map[string]string{
		"/v1/bans.txt":                        "192.0.2.7\n2001:db8::/64\n198.51.100.0/24\n",
		"/v1/bans.txt?kind=ipv4":              "192.0.2.7\n198.51.100.0/24\n",
		"/v1/bans.txt?kind=ipv6":              "2001:db8::/64\n",
		"/v1/bans.txt?kind=wallet":            wallet,
		"/v1/bans.txt?kind=all&topic=sshd":    "192.0.2.7\n2001:db8::/64\n",
		"/v1/bans.txt?topic=nothing":          "",
		"/v1/bans.json?topic=nothing":         "[\n]\n",
		"/v1/bans.json?topic=spam&kind=ipv4":  "[{\"target\":\"192.0.2.7\",\"topic\":\"spam\",\"until\":1795266000,\"class\":\"auth\",\"origin\":\"network\"}\n,{\"target\":\"198.51.100.0/24\",\"topic\":\"spam\",\"until\":1795267800,\"class\":\"auth\",\"origin\":\"network\"}\n]\n",
		"/v1/bans.json?topic=spam&kind=bogus": "{\"error\":\"unknown kind \\\"bogus\\\"\",\"hint\":\"kind is ip, ipv4, ipv6, wallet or all\"}\n",
	} {
		_, _, got := get(t, url+path)
		if got != want {
			t.Errorf("%s gives\n%q, want\n%q", path, got, want)
		}
		if strings.HasPrefix(want, "[") && !json.Valid([]byte(got)) {
			t.Errorf("%s is no JSON", path)
		}
	}
	_, header, _ := get(t, url+"/v1/bans.txt")
	tag := header.Get("ETag")
	if status, _, body := get(t, url+"/v1/bans.txt", "If-None-Match", `"other", W/`+tag); status != 304 || body != "" {
		t.Errorf("a reader that has the list gets %d %q", status, body)
	}
	if status, _, _ := get(t, url+"/v1/bans.txt?kind=ipv4", "If-None-Match", tag); status != 200 {
		t.Errorf("another list has the same tag: %d", status)
	}
	table.Apply(nil, []Key{{ban.MustTarget("2001:db8::/64"), "sshd"}})
	if status, _, body := get(t, url+"/v1/bans.txt", "If-None-Match", tag); status != 200 || strings.Contains(body, "2001") {
		t.Errorf("after a change: %d %q", status, body)
	}
}

// follow opens a stream and gives a function that reads its next line.
func follow(t *testing.T, url string) (next func() streamLine, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	stop = func() { cancel(); resp.Body.Close() }
	t.Cleanup(stop)
	return func() (l streamLine) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the stream ended: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			t.Fatal(err)
		}
		return l
	}, stop
}

func TestAStreamBeginsWithASnapshotAndGoesOnWithChanges(t *testing.T) {
	table := at()
	for i := range snapshotEntries + 1 {
		table.Apply([]Entry{entry(fmt.Sprintf("10.0.%d.%d", i/256, i%256), "sshd", time.Hour)}, nil)
	}
	table.Apply([]Entry{entry("192.0.2.7", "spam", time.Hour)}, nil)
	_, url := serve(t, Options{Bans: table, Heartbeat: 20 * time.Millisecond})
	next, stop := follow(t, url+"/v1/stream?topic=sshd")
	first, last := next(), next()
	if first.Type != "snapshot" || !first.More || len(first.Bans) != snapshotEntries || last.More || len(last.Bans) != 1 || first.Run == "" {
		t.Fatalf("the snapshot came as %d and %d entries", len(first.Bans), len(last.Bans))
	}
	if l := next(); l.Type != "heartbeat" || l.Serial != last.Serial {
		t.Errorf("a silent stream says %+v", l)
	}
	change := func() streamLine {
		for {
			if l := next(); l.Type != "heartbeat" {
				return l
			}
		}
	}
	table.Apply([]Entry{entry("192.0.2.8", "sshd", time.Hour), entry("192.0.2.9", "spam", time.Hour)}, []Key{{ban.MustTarget("10.0.0.0"), "sshd"}})
	l := change()
	if l.Type != "change" || len(l.Bans) != 1 || l.Bans[0].Target != ban.MustTarget("192.0.2.8") || len(l.Lifted) != 1 {
		t.Errorf("the change reads %+v", l)
	}
	stop()

	table.Apply([]Entry{entry("192.0.2.10", "sshd", time.Hour)}, nil)
	next, stop = follow(t, fmt.Sprintf("%s/v1/stream?topic=sshd&since=%d&run=%s", url, l.Serial, first.Run))
	if l := next(); l.Type != "resumed" {
		t.Errorf("a reader that comes back gets %s", l.Type)
	}
	if l := change(); l.Type != "change" || len(l.Bans) != 1 || l.Bans[0].Target != ban.MustTarget("192.0.2.10") {
		t.Errorf("and then %+v", l)
	}
	stop()
	for claim, query := range map[string]string{
		"of another run": fmt.Sprintf("since=%d&run=x", l.Serial),
		"of the future":  "since=999999&run=" + first.Run,
	} {
		next, stop := follow(t, url+"/v1/stream?topic=sshd&"+query)
		if l := next(); l.Type != "snapshot" {
			t.Errorf("a serial %s gets %s", claim, l.Type)
		}
		stop()
	}
	if status, _, _ := get(t, url+"/v1/stream?since=-1"); status != 400 {
		t.Errorf("a serial that is no number: %d", status)
	}
}

func TestASlowReaderIsCutAndAThirdOneTurnedAway(t *testing.T) {
	table := at()
	var many []Entry
	for i := range 200_000 {
		many = append(many, entry(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), "sshd", time.Hour))
	}
	table.Apply(many, nil)
	h, url := serve(t, Options{Bans: table, WriteTimeout: 300 * time.Millisecond, MaxStreams: 2})
	var conns []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /v1/stream HTTP/1.1\r\nHost: agent\r\n\r\n")
		if _, err := conn.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	if status, _, _ := get(t, url+"/v1/bans.txt"); status != 503 {
		t.Errorf("a third reader gets %d", status)
	}
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(h.streams) > 0 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("readers that do not read are still served")
		}
	}
	for _, conn := range conns {
		conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, context.DeadlineExceeded) {
			t.Error("the connection is still open")
		}
	}
}

// reports collects reports, and refuses the topic "closed".
type reports struct{ got []Offence }

func (r *reports) Report(_ context.Context, o Offence) error {
	if o.Topic == "closed" {
		return fmt.Errorf("the topic %s: %w", o.Topic, ErrUnwelcome)
	}
	r.got = append(r.got, o)
	return nil
}

func TestReportsAreReadStrictly(t *testing.T) {
	r := &reports{}
	_, url := serve(t, Options{Bans: at(), Offences: r})
	_, none := serve(t, Options{Bans: at()})
	post := func(url, body string) (int, string) {
		resp, err := http.Post(url+"/v1/offences", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	const good = `{"topic":"livepeer","target":"192.0.2.7","class":"scan","age_ms":1000}`
	status, body := post(url, `{"offences":[`+good+`,{"topic":"closed","target":"192.0.2.8","class":"auth"}]}`)
	if status != 200 || body != `{"taken":1,"refused":[{"index":1,"error":"the topic closed: not taken"}]}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
	if len(r.got) != 1 || r.got[0].Target != ban.MustTarget("192.0.2.7") || r.got[0].Class != ban.ClassScan || time.Since(r.got[0].At) < time.Second {
		t.Errorf("the agent was told %+v", r.got)
	}
	for claim, body := range map[string]string{
		"nothing":            ``,
		"no offences":        `{"offences":[]}`,
		"an unknown field":   `{"offences":[` + good + `],"x":1}`,
		"two values":         `{"offences":[` + good + `]}{}`,
		"no target":          `{"offences":[{"topic":"livepeer","class":"scan"}]}`,
		"a bad target":       `{"offences":[{"topic":"livepeer","class":"scan","target":"x"}]}`,
		"no topic":           `{"offences":[{"target":"192.0.2.7","class":"scan"}]}`,
		"an unknown class":   `{"offences":[{"topic":"a","target":"192.0.2.7","class":"evil"}]}`,
		"a ban by hand":      `{"offences":[{"topic":"a","target":"192.0.2.7","class":"manual"}]}`,
		"an offence to come": `{"offences":[{"topic":"a","target":"192.0.2.7","class":"scan","age_ms":-1}]}`,
		"an old offence":     `{"offences":[{"topic":"a","target":"192.0.2.7","class":"scan","age_ms":600001}]}`,
		"too many":           `{"offences":[` + strings.Repeat(good+",", maxOffences) + good + `]}`,
		"too long":           `{"offences":[` + strings.Repeat(" ", maxReport) + good + `]}`,
	} {
		if status, _ := post(url, body); status != 400 {
			t.Errorf("%s: %d, want 400", claim, status)
		}
	}
	if len(r.got) != 1 {
		t.Errorf("%d offences were taken", len(r.got))
	}
	if status, _ := post(none, `{"offences":[`+good+`]}`); status != 404 {
		t.Errorf("an agent that takes no reports: %d", status)
	}
}

func FuzzAReportIsReadOrRefused(f *testing.F) {
	f.Add(`{"offences":[{"topic":"livepeer","target":"192.0.2.7","class":"scan","age_ms":1000}]}`)
	f.Add(`{"offences":[{"topic":"a","target":"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed","class":"payment"}]}`)
	f.Fuzz(func(t *testing.T, body string) {
		list, err := readReport(strings.NewReader(body), start)
		if err == nil && (len(list) == 0 || len(list) > maxOffences) {
			t.Fatalf("%d offences of %q", len(list), body)
		}
		for _, o := range list {
			if _, err := ban.ParseTopic(string(o.Topic)); err != nil || o.Target.IsZero() || o.At.After(start) || start.Sub(o.At) > maxAge {
				t.Fatalf("%q was read as %+v", body, o)
			}
		}
	})
}
