package livepeer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"banmesh/internal/gate"
	"banmesh/internal/wallet"
)

const (
	bad        = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	good       = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
	secretPath = "00112233445566778899aabbccddeeff"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(built.directory)
		os.Exit(code)
	}))
}

// list gives the bytes of a list that denies wallets for a day.
func list(t *testing.T, h gate.Header, denied ...string) []byte {
	t.Helper()
	var entries []gate.Entry
	for _, d := range denied {
		w, err := wallet.Parse(d)
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, gate.Entry{Wallet: w, Until: time.Now().Add(24 * time.Hour), Reason: gate.Reason{Topic: "broadcaster-addresses", Class: "manual"}})
	}
	h.Path, h.Written = secretPath, time.Now()
	b, err := gate.Encode(h, entries)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestTheDoubleFollowsTheContract holds the double to the table of answers
// that go-livepeer's source gives, without our gate.
func TestTheDoubleFollowsTheContract(t *testing.T) {
	for _, c := range []struct {
		claim, answer string
		status        int
		ok            bool
		price         int64
		err           string
	}{
		{"an empty object", `{}`, 200, true, 0, ""},
		{"null", `null`, 200, true, 0, ""},
		{"a price", `{"priceInfo":{"pricePerUnit":7,"pixelsPerUnit":2}}`, 200, true, 7, ""},
		{"an empty body", ``, 200, false, 0, "authentication failed: unexpected end of JSON input"},
		{"no JSON", `welcome`, 200, false, 0, "authentication failed: invalid character"},
		{"no content", ``, 204, false, 0, "authentication failed: "},
		{"created", `{}`, 201, false, 0, "authentication failed: {}"},
		{"forbidden", `go away`, 403, false, 0, "authentication failed: go away"},
		{"a fault", `oops`, 500, false, 0, "authentication failed: oops"},
	} {
		var got string
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			got = r.Method + " " + r.Header.Get("Content-Type") + " " + string(b)
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.answer)
		}))
		session, err := Orchestrator{s.URL, s.Client()}.Authenticate(good)
		s.Close()
		if (err == nil) != c.ok || err != nil && !strings.HasPrefix(err.Error(), c.err) {
			t.Errorf("%s: %v", c.claim, err)
		}
		if c.price > 0 && (session == nil || session.PriceInfo == nil || session.PriceInfo.PricePerUnit != c.price) {
			t.Errorf("%s: the price was not read: %+v", c.claim, session)
		}
		if want := `POST application/json {"id":"` + good + `"}`; got != want {
			t.Errorf("%s: the call was %s, want %s", c.claim, got, want)
		}
	}
	if _, err := (Orchestrator{"http://127.0.0.1:1/", http.DefaultClient}).Authenticate(good); err == nil || !strings.HasPrefix(err.Error(), "authentication failed: Post ") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestTheGateFulfilsTheContract(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/price":
			_, _ = io.WriteString(w, `{"priceInfo":{"pricePerUnit":7,"pixelsPerUnit":2}}`)
		case "/no":
			http.Error(w, "pay first", http.StatusForbidden)
		case "/empty":
		}
	}))
	defer upstream.Close()
	for _, c := range []struct {
		claim  string
		h      gate.Header
		wallet string
		refuse string // the text that the gateway sees; "" when it is admitted
	}{
		{"a wallet that nobody denied", gate.Header{}, good, ""},
		{"a denied wallet", gate.Header{}, bad, "authentication failed: not served by this orchestrator\n"},
		{"a denied wallet in a dry run", gate.Header{DryRun: true}, bad, ""},
		{"a message of the operator's", gate.Header{Message: "write to abuse@example.org"}, bad, "authentication failed: write to abuse@example.org\n"},
		{"an off-chain node's caller", gate.Header{}, "0x" + strings.Repeat("0", 40), ""},
		{"a chained webhook that sets a price", gate.Header{Chain: upstream.URL + "/price"}, good, ""},
		{"a chained webhook that refuses", gate.Header{Chain: upstream.URL + "/no"}, good, "authentication failed: pay first\n"},
		{"a chained webhook with an empty 200 refuses as before", gate.Header{Chain: upstream.URL + "/empty"}, good, "authentication failed: unexpected end of JSON input"},
		{"a chained webhook cannot admit a denied wallet", gate.Header{Chain: upstream.URL + "/price"}, bad, "authentication failed: not served by this orchestrator\n"},
		{"a chained webhook that is gone", gate.Header{Chain: "http://127.0.0.1:1"}, good, "authentication failed: authentication is not available\n"},
		{"a chained webhook that is gone and may", gate.Header{Chain: "http://127.0.0.1:1", ChainAllows: true}, good, ""},
	} {
		file := filepath.Join(t.TempDir(), "wallets")
		if err := gate.WriteFile(file, list(t, c.h, bad)); err != nil {
			t.Fatal(err)
		}
		socket, err := gate.Listen("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		url := gate.URL(socket.Listener.Addr().String(), secretPath)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- gate.New(slog.New(slog.DiscardHandler)).Run(ctx, gate.Options{File: file, Socket: socket})
		}()
		_, err = Orchestrator{url, &http.Client{Timeout: 20 * time.Second}}.Authenticate(c.wallet)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.claim, err)
		}
		if (err == nil) != (c.refuse == "") || err != nil && err.Error() != c.refuse {
			t.Errorf("%s: %v, want %q", c.claim, err, c.refuse)
		}
	}
}

// TestNothingThatHappensToTheGateRefusesACustomer kills, stops and restarts the
// gate and tears its file while orchestrators ask without a pause: no wallet that
// should pass is refused, and a denied one is admitted only while the file is torn.
func TestNothingThatHappensToTheGateRefusesACustomer(t *testing.T) {
	t.Parallel()
	whole := list(t, gate.Header{}, bad)
	file := filepath.Join(t.TempDir(), "wallets")
	if err := gate.WriteFile(file, whole); err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	m := &Manager{Program: build(t, "gate"), File: file, Watchdog: 1500 * time.Millisecond, Log: &said}
	address, err := StartManager(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Stop()
	load := StartLoad(t.Context(), gate.URL(address, secretPath), 4, good, bad)
	served := func(n int) {
		t.Helper()
		if !load.Wait(t.Context(), n) {
			t.Fatalf("no calls come through\n%s", said.String())
		}
	}
	again := func(claim string, happen func() error) {
		t.Helper()
		starts := m.Starts()
		if err := happen(); err != nil {
			t.Fatal(err)
		}
		served(100)
		if m.Starts() == starts {
			t.Errorf("%s: the gate was not replaced", claim)
		}
	}
	served(100)
	for range 5 {
		again("killed", func() error { return m.Signal(unix.SIGKILL) })
		again("stopped in an orderly way", func() error { return m.Signal(unix.SIGTERM) })
	}
	again("hanging", func() error { return m.Signal(unix.SIGSTOP) })
	if n := load.Admitted(bad); n > 0 {
		t.Errorf("a denied wallet was admitted %d times", n)
	}
	for _, damage := range []func() error{
		func() error { return os.Truncate(file, 100) },
		func() error { return os.WriteFile(file, []byte("x"), 0o600) },
		func() error { return os.Remove(file) },
	} {
		before := load.Admitted(bad)
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		for load.Admitted(bad) == before {
			served(20)
		}
		if err := gate.WriteFile(file, whole); err != nil {
			t.Fatal(err)
		}
		for refused := load.Refused(bad); load.Refused(bad) == refused; {
			served(20)
		}
	}
	asked, longest, faults := load.Stop()
	// A call that was accepted within microseconds of a SIGKILL and had not got
	// to the manager is lost; so few fit in there.
	if len(faults) > 2 {
		t.Errorf("%d calls were lost: %v", len(faults), errors.Join(faults...))
	}
	if n := load.Refused(good); n > 0 {
		t.Errorf("a customer was refused %d times", n)
	}
	t.Logf("%d starts, %d calls, %d lost, longest %s", m.Starts(), asked, len(faults), longest.Round(time.Millisecond))
}
