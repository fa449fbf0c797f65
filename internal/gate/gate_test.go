package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"banmesh/internal/ban"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	path = "0123456789abcdef0123456789abcdef"
	bad  = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	good = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
)

// denied lists wallets that are denied for a day.
func denied(wallets ...string) (list []Entry) {
	for _, s := range wallets {
		w, _ := ban.MustTarget(s).Wallet()
		list = append(list, Entry{w, time.Now().Add(24 * time.Hour), Reason{Topic: "broadcaster-addresses", Class: "manual"}})
	}
	return list
}

func newList(t *testing.T, h Header, entries []Entry) *List {
	t.Helper()
	if h.Path == "" {
		h.Path = path
	}
	if h.Written.IsZero() {
		h.Written = time.Now()
	}
	b, err := Encode(h, entries)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newGate gives a gate that denies bad.
func newGate(t *testing.T, h Header, log *strings.Builder) *Gate {
	t.Helper()
	handler := slog.DiscardHandler
	if log != nil {
		handler = slog.NewTextHandler(log, nil)
	}
	g := New(slog.New(handler))
	g.Take(newList(t, h, denied(bad)))
	t.Cleanup(g.http.CloseIdleConnections)
	return g
}

// call posts a body as the orchestrator does.
func call(t *testing.T, g *Gate, body string) (int, string) {
	t.Helper()
	a := g.Answer(t.Context(), http.MethodPost, "/"+path, []byte(body))
	return a.Status, string(a.Body)
}

func TestEveryBodyHasItsAnswer(t *testing.T) {
	const refused = "not served by this orchestrator\n"
	id := func(s string) string { return fmt.Sprintf(`{"id":%q}`, s) }
	for _, c := range []struct {
		claim, body string
		status      int
		answer      string
	}{
		{"a denied wallet", id(bad), 403, refused},
		{"in lower case", id(strings.ToLower(bad)), 403, refused},
		{"with members of a later version", `{"session":{"id":"x"},"id":"` + bad + `","n":[1,{"id":2}]}`, 403, refused},
		{"another wallet", id(good), 200, "{}"},
		{"the zero address of an off-chain node", id("0x" + strings.Repeat("0", 40)), 200, "{}"},
		{"a gateway's call of another kind", `{"url":"rtmp://192.0.2.1/x"}`, 200, ""},
		{"an empty object", `{}`, 200, ""},
		{"nothing", ``, 200, "{}"},
		{"an array", `[]`, 200, "{}"},
		{"null", `null`, 200, "{}"},
		{"cut off", `{"id":"` + bad + `"`, 200, "{}"},
		{"two objects", id(bad) + id(good), 200, "{}"},
		{"two ids", `{"id":"` + good + `","id":"` + bad + `"}`, 200, "{}"},
		{"an id in capitals is another member", `{"ID":"` + bad + `"}`, 200, ""},
		{"an id that is a number", `{"id":1}`, 200, "{}"},
		{"an id without 0x", id(bad[2:] + "00"), 200, "{}"},
		{"an id too long", id(bad + "0"), 200, "{}"},
		{"an id with another letter", id(bad[:41] + "g"), 200, "{}"},
	} {
		g := newGate(t, Header{}, nil)
		if status, answer := call(t, g, c.body); status != c.status || answer != c.answer {
			t.Errorf("%s: %d %q, want %d %q", c.claim, status, answer, c.status, c.answer)
		}
		n := g.Status()
		if n.Allowed+n.Refused+n.Unread != 1 || (n.Refused == 1) != (c.status == 403) {
			t.Errorf("%s is counted as %+v", c.claim, n)
		}
	}
}

func TestWhoIsNotTheOrchestratorGetsNothing(t *testing.T) {
	g := newGate(t, Header{}, nil)
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/", "{}", 404},
		{"POST", "/" + strings.Repeat("0", 32), "{}", 404},
		{"GET", "/" + strings.Repeat("0", 32), "", 404},
		{"POST", "/" + path + "/", "{}", 404},
		{"POST", "/" + strings.ToUpper(path), "{}", 404},
		{"PUT", "/" + path, "", 405},
		{"POST", "/" + path, `{"id":"` + bad + `","x":"` + strings.Repeat("x", maxBody) + `"}`, 413},
	} {
		if a := g.Answer(t.Context(), c.method, c.path, []byte(c.body)); a.Status != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, a.Status, c.want)
		}
	}
	if n := g.Status(); n.Stray != 7 || n.Allowed != 0 {
		t.Errorf("counted %+v", n)
	}
}

func TestADryRunRefusesNobody(t *testing.T) {
	var log strings.Builder
	g := newGate(t, Header{DryRun: true}, &log)
	if status, answer := call(t, g, `{"id":"`+bad+`"}`); status != 200 || answer != "{}" {
		t.Errorf("%d %q", status, answer)
	}
	if n := g.Status(); n.Refused != 1 || !n.DryRun || len(n.Wallets) != 1 || n.Wallets[0].Wallet != bad || n.Wallets[0].Refused != 1 {
		t.Errorf("counted %+v", n)
	}
	if !strings.Contains(log.String(), "wallet="+bad) || !strings.Contains(log.String(), "dry_run=true") || !strings.Contains(log.String(), "topic=broadcaster-addresses") {
		t.Errorf("logged %s", log.String())
	}
}

func TestAWalletIsLoggedOnceAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		g := newGate(t, Header{}, &log)
		lines := func() int { return strings.Count(log.String(), "wallet refused") }
		for range 100 {
			call(t, g, `{"id":"`+bad+`"}`)
		}
		if lines() != 1 {
			t.Errorf("100 refusals made %d lines", lines())
		}
		time.Sleep(time.Hour) // of the bubble
		call(t, g, `{"id":"`+bad+`"}`)
		if lines() != 2 || !strings.Contains(log.String(), "refused=101") {
			t.Errorf("after an hour: %s", log.String())
		}
	})
}

func TestTheCountersAreBounded(t *testing.T) {
	tally := newTally()
	now := time.Now()
	id := func(n int) (w [20]byte) {
		binary.BigEndian.PutUint64(w[:], uint64(n+1))
		return w
	}
	for n := range maxWallets + 100 {
		tally.asked(id(n), false, now)
		tally.asked(id(0), n%2 == 0, now) // comes all the time, so stays
	}
	c := tally.counters()
	if len(c.Wallets) != maxWallets || c.Forgotten != 100 || c.Wallets[0].Refused == 0 {
		t.Errorf("%d wallets, %d forgotten, first %+v", len(c.Wallets), c.Forgotten, c.Wallets[0])
	}
}

func TestAChainedWebhookHasTheLastWordOnWhatTheGateAllows(t *testing.T) {
	asked := make(chan string, 16)
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 256)
		n, _ := r.Body.Read(b)
		asked <- string(b[:n])
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/price":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"priceInfo":{"pricePerUnit":7,"pixelsPerUnit":1}}`)
		case "/no":
			http.Error(w, "go away", http.StatusPaymentRequired)
		case "/moved":
			http.Redirect(w, r, "/price", http.StatusFound)
		case "/nothing":
			w.WriteHeader(http.StatusNoContent)
		case "/big":
			fmt.Fprint(w, strings.Repeat("x", maxUpstream+1))
		case "/crash":
			panic(http.ErrAbortHandler)
		}
	}))
	defer upstream.Close()
	refused := 0
	for _, c := range []struct {
		claim, path, wallet string
		lenient             bool
		status              int
		answer              string
	}{
		{"a price", "/price", good, false, 200, `{"priceInfo":{"pricePerUnit":7,"pixelsPerUnit":1}}`},
		{"a refusal", "/no", good, false, 402, "go away\n"},
		{"a refusal, though failures allow", "/no", good, true, 402, "go away\n"},
		{"a redirect is no 200", "/moved", good, false, 302, "<"},
		{"an empty 204 is a refusal as before", "/nothing", good, true, 204, ""},
		{"an answer without end", "/big", good, false, 502, "authentication is not available\n"},
		{"a crash", "/crash", good, false, 502, "authentication is not available\n"},
		{"a crash that counts as leave", "/crash", good, true, 200, "{}"},
		{"a denied wallet never gets there", "/price", bad, true, 403, "not served by this orchestrator\n"},
	} {
		u, err := url.Parse(upstream.URL + c.path)
		if err != nil {
			t.Fatal(err)
		}
		u.User = url.UserPassword("me", "secret")
		g := newGate(t, Header{Chain: u.String(), ChainAllows: c.lenient}, nil)
		body := `{"id":"` + c.wallet + `"}`
		status, answer := call(t, g, body)
		if status != c.status || (answer != c.answer && !(c.answer == "<" && status == 302)) {
			t.Errorf("%s: %d %q, want %d %q", c.claim, status, answer, c.status, c.answer)
		}
		if c.wallet == bad && len(asked) != 0 {
			t.Errorf("%s: it was asked %q", c.claim, <-asked)
		}
		if c.wallet == good {
			if got := <-asked; got != body {
				t.Errorf("%s: it was asked %q", c.claim, got)
			}
		}
		refused += int(g.Status().UpstreamRefused)
	}
	if refused != 4 {
		t.Errorf("%d refusals were counted, want 4", refused)
	}
}

func TestAChainedWebhookThatHangsIsGivenUp(t *testing.T) {
	release := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer upstream.Close()
	defer close(release)
	g := newGate(t, Header{Chain: upstream.URL, ChainAllows: true}, nil)
	g.upstream = 50 * time.Millisecond
	if status, answer := call(t, g, `{"id":"`+good+`"}`); status != 200 || answer != "{}" {
		t.Errorf("%d %q", status, answer)
	}
	if n := g.Status(); n.UpstreamFailed != 1 {
		t.Errorf("counted %+v", n)
	}
}

func TestThePathIsMadeOnceAndKeptSecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gate.path")
	first, err := LoadPath(file)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 || !validPath(first) {
		t.Fatalf("%q, %v, %v", first, info.Mode(), err)
	}
	if again, err := LoadPath(file); err != nil || again != first {
		t.Errorf("read back as %q, %v", again, err)
	}
	other, err := LoadPath(filepath.Join(t.TempDir(), "gate.path"))
	if err != nil || other == first {
		t.Errorf("two files hold %q and %q", first, other)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadPath(file); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a file that others read: %v", err)
	}
	for _, junk := range []string{"", "x\n", strings.ToUpper(path), path + "\n\n", path + path} {
		if err := errors.Join(os.WriteFile(file, []byte(junk), 0o600), os.Chmod(file, 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPath(file); !errors.Is(err, errPath) {
			t.Errorf("%q is read: %v", junk, err)
		}
	}
	if _, err := LoadPath(filepath.Join(t.TempDir(), "none", "gate.path")); err == nil {
		t.Error("a missing directory is made up")
	}
}

func FuzzABodyNamesAWalletOrNone(f *testing.F) {
	f.Add(`{"id":"` + bad + `"}`)
	f.Add(`{"url":"rtmp://x","id":"0x0000000000000000000000000000000000000000"}`)
	f.Add(`{"id":"` + good + `","id":"` + bad + `"}`)
	f.Add(`{"id":["` + bad + `"]}`)
	f.Fuzz(func(t *testing.T, body string) {
		id, err := readID([]byte(body))
		if err != nil && id != ([20]byte{}) {
			t.Fatalf("%q gives %x beside %v", body, id, err)
		}
		if err == nil && !strings.Contains(strings.ToLower(body), fmt.Sprintf("%x", id)) && !strings.Contains(body, `\`) {
			t.Fatalf("%q was read as %x", body, id)
		}
	})
}
