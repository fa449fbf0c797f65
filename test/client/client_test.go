// Package client tests the client module against the agent's own handlers.
package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"banmesh.example/client"
	"banmesh/internal/ban"
	"banmesh/internal/export"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const badWallet = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"

// everyTopic are the topics of the tests.
var everyTopic = []string{"sshd", "livepeer", "spam", "broadcaster-addresses"}

// agent is the agent's side: the real handlers on a unix socket.
type agent struct {
	t      *testing.T
	socket string
	table  *export.Table
	server *http.Server
	done   chan error

	mu       sync.Mutex
	offences []export.Offence
}

func (a *agent) Report(_ context.Context, o export.Offence) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if o.Topic == "closed" {
		return export.ErrUnwelcome
	}
	a.offences = append(a.offences, o)
	return nil
}

func (a *agent) reported() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.offences)
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{t: t, socket: filepath.Join(t.TempDir(), "query.sock"), table: export.NewTable(nil)}
	t.Cleanup(a.stop)
	return a
}

func (a *agent) start() {
	a.t.Helper()
	h, err := export.New(export.Options{Bans: a.table, Offences: a, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		a.t.Fatal(err)
	}
	mux := http.NewServeMux()
	h.RegisterLocal(mux)
	l, err := net.Listen("unix", a.socket)
	if err != nil {
		a.t.Fatal(err)
	}
	a.server, a.done = &http.Server{Handler: mux}, make(chan error, 1)
	go func() { a.done <- a.server.Serve(l) }()
}

func (a *agent) stop() {
	if a.server == nil {
		return
	}
	a.server.Close()
	<-a.done
	a.server = nil
}

func (a *agent) ban(target string, topic ban.Topic) {
	a.table.Apply([]export.Entry{{Target: ban.MustTarget(target), Topic: topic, Until: time.Now().Add(time.Hour), Class: ban.ClassScan}}, nil)
}

func (a *agent) lift(target string, topic ban.Topic) {
	a.table.Apply(nil, []export.Key{{Target: ban.MustTarget(target), Topic: topic}})
}

func open(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	c, err := client.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// eventually waits until a claim holds.
func eventually(t *testing.T, claim string, holds func() bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", claim)
		}
	}
}

func wallet(t *testing.T, s string) [20]byte {
	t.Helper()
	w, ok := ban.MustTarget(s).Wallet()
	if !ok {
		t.Fatal(s)
	}
	return w
}

func TestAClientKnowsWhatTheAgentKnows(t *testing.T) {
	a := newAgent(t)
	a.ban("192.0.2.7", "sshd")
	a.ban("192.0.2.7", "livepeer")
	a.ban("198.51.100.0/24", "sshd")
	a.ban("2001:db8:1:2::/64", "sshd")
	a.ban("2001:db8:5::1", "sshd")
	a.ban("2001:db8:8000::/33", "sshd")
	a.ban(badWallet, "broadcaster-addresses")
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]bool{
		"192.0.2.7": true, "::ffff:192.0.2.7": true, "192.0.2.8": false,
		"198.51.100.0": true, "198.51.100.255": true, "198.51.101.0": false,
		"2001:db8:1:2::": true, "2001:db8:1:2:ffff:ffff:ffff:ffff": true, "2001:db8:1:3::": false,
		"2001:db8:5::1": true, "2001:db8:5::1%eth0": true, "2001:db8:5::2": false,
		"2001:db8:8000::": true, "2001:db8:7fff::": false,
	} {
		addr := netip.MustParseAddr(s)
		if got := c.Banned(addr); got != want {
			t.Errorf("Banned(%s) = %v", s, got)
		}
		if got := len(c.LookupIP(addr)) > 0; got != want {
			t.Errorf("LookupIP(%s) finds: %v", s, got)
		}
	}
	if c.Banned(netip.Addr{}) {
		t.Error("the invalid address is banned")
	}
	if got := c.LookupIP(netip.MustParseAddr("192.0.2.7")); len(got) != 2 || got[0].Target != "192.0.2.7" || got[0].Class != "scan" || got[0].Origin != "network" || time.Until(got[0].Until) > time.Hour+time.Second {
		t.Errorf("192.0.2.7 is banned for %+v", got)
	}
	if got := c.LookupIP(netip.MustParseAddr("198.51.100.9")); len(got) != 1 || got[0].Target != "198.51.100.0/24" {
		t.Errorf("198.51.100.9 is banned for %+v", got)
	}
	w := wallet(t, badWallet)
	if got := c.LookupWallet(w); !c.Denied(w) || len(got) != 1 || got[0].Target != badWallet {
		t.Errorf("the wallet is banned for %+v", got)
	}
	w[0]++
	if c.Denied(w) || c.LookupWallet(w) != nil {
		t.Error("another wallet is banned")
	}
	if s := c.Status(); !s.Connected || !s.Ready || s.Stale() || s.Bans != 7 || s.Heard.IsZero() {
		t.Errorf("status %+v", s)
	}
}

func TestAClientFollowsChanges(t *testing.T) {
	a := newAgent(t)
	a.ban("192.0.2.1", "sshd")
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: []string{"sshd", "broadcaster-addresses"}})
	changes := make(chan client.Change, 16)
	c.OnChange(func(ch client.Change) { changes <- ch })
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a.ban("192.0.2.2", "spam") // not followed
	a.ban(badWallet, "broadcaster-addresses")
	eventually(t, "the wallet is banned", func() bool { return c.Denied(wallet(t, badWallet)) })
	if c.Banned(two) {
		t.Error("a topic that was not asked for bans")
	}
	a.lift("192.0.2.1", "sshd")
	eventually(t, "the address is free", func() bool { return !c.Banned(one) })
	a.ban("192.0.2.1", "sshd")
	eventually(t, "the address is banned again", func() bool { return c.Banned(one) })

	// The listener's changes lead to the same state.
	state := map[string]bool{}
	eventually(t, "the listener knows both", func() bool {
		for len(changes) > 0 {
			ch := <-changes
			if ch.Reset {
				clear(state)
			}
			for _, b := range ch.Lifted {
				delete(state, b.Target)
			}
			for _, b := range ch.Added {
				state[b.Target] = true
			}
		}
		return len(state) == 2 && state["192.0.2.1"] && state[badWallet]
	})
}

func TestAClientGoesOnWithoutTheAgent(t *testing.T) {
	a := newAgent(t)
	a.ban("192.0.2.1", "sshd")
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	one := netip.MustParseAddr("192.0.2.1")
	eventually(t, "the client says that nobody answers", func() bool { return c.Status().Error != "" })
	if s := c.Status(); s.Ready || s.Stale() || c.Banned(one) {
		t.Errorf("before the agent ever ran: %+v", s)
	}
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.WaitReady(short); !errors.Is(err, client.ErrNotReady) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without an agent: %v", err)
	}
	a.start()
	eventually(t, "the ban is known", func() bool { return c.Banned(one) })
	a.stop()
	eventually(t, "the client is stale", func() bool { return c.Status().Stale() })
	if !c.Banned(one) {
		t.Error("a ban was forgotten with the agent")
	}
	// Meanwhile a ban is lifted and another made: the new run has a new state.
	a.lift("192.0.2.1", "sshd")
	a.ban("192.0.2.2", "sshd")
	a.start()
	eventually(t, "the new agent's state is known", func() bool { return !c.Banned(one) && c.Banned(netip.MustParseAddr("192.0.2.2")) })
	if s := c.Status(); s.Stale() || s.Bans != 1 {
		t.Errorf("after the agent came back: %+v", s)
	}
	c.Close()
	if !c.Banned(netip.MustParseAddr("192.0.2.2")) {
		t.Error("a closed client forgets")
	}
}

func TestABanEndsWithoutTheAgent(t *testing.T) {
	a := newAgent(t)
	a.table.Apply([]export.Entry{{Target: ban.MustTarget("192.0.2.1"), Topic: "sshd", Until: time.Now().Add(2 * time.Second)}}, nil)
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.stop()
	one := netip.MustParseAddr("192.0.2.1")
	if !c.Banned(one) {
		t.Fatal("not banned")
	}
	eventually(t, "the ban ended", func() bool { return !c.Banned(one) })
}

func TestOffencesReachTheAgentOrAreCounted(t *testing.T) {
	a := newAgent(t)
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	ip := netip.MustParseAddr("::ffff:192.0.2.7")
	if !c.Report(client.Offence{Topic: "livepeer", IP: ip, Class: "scan"}) {
		t.Fatal("the queue refuses the first offence")
	}
	for _, o := range []client.Offence{
		{Topic: "No Topic", IP: ip, Class: "scan"},
		{Topic: "livepeer", Class: "scan"},
		{Topic: "livepeer", IP: ip},
	} {
		if c.Report(o) {
			t.Errorf("%+v was taken", o)
		}
	}
	a.start()
	eventually(t, "the agent knows the offence that waited for it", func() bool { return a.reported() == 1 })
	if o := a.offences[0]; o.Target != ban.MustTarget("192.0.2.7") || o.Class != ban.ClassScan {
		t.Errorf("the agent was told %+v", o)
	}
	c.Report(client.Offence{Topic: "closed", IP: ip, Class: "scan"})
	eventually(t, "what was dropped is counted", func() bool { return c.Status().Dropped == 4 && c.Status().Reported == 1 })
	a.stop()
	full := false
	for range 3000 {
		full = full || !c.Report(client.Offence{Topic: "livepeer", IP: ip, Class: "scan"})
	}
	if !full {
		t.Error("the queue has no end")
	}
}

func TestAListenerRefusesBannedPeers(t *testing.T) {
	a := newAgent(t)
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(c.Listener(plain)) }()
	defer func() { s.Close(); <-done }()
	transport := &http.Transport{DisableKeepAlives: true}
	ask := func() error {
		resp, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://" + plain.Addr().String())
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	a.ban("127.0.0.1", "sshd")
	eventually(t, "the peer is refused", func() bool { return ask() != nil })
	a.lift("127.0.0.1", "sshd")
	eventually(t, "the peer is admitted again", func() bool { return ask() == nil })
}

func TestMiddlewareRefusesPeersAndWallets(t *testing.T) {
	a := newAgent(t)
	a.ban("192.0.2.7", "sshd")
	a.ban(badWallet, "broadcaster-addresses")
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	h := c.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") }),
		func(r *http.Request) ([20]byte, bool) {
			return client.WalletFromPayment(r.Header.Get("Livepeer-Payment"))
		})
	bad := wallet(t, badWallet)
	for _, q := range []struct {
		claim, peer, payment string
		want                 int
	}{
		{"anybody", "192.0.2.8:1234", "", 200},
		{"a banned peer", "192.0.2.7:1234", "", 403},
		{"a banned peer, IPv4 in IPv6", "[::ffff:192.0.2.7]:1234", "", 403},
		{"a banned wallet", "192.0.2.8:1234", payment(bad), 403},
		{"another wallet", "192.0.2.8:1234", payment([20]byte{1}), 200},
		{"a unix socket's peer", "@", "", 200},
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = q.peer
		r.Header.Set("Livepeer-Payment", q.payment)
		r.Header.Set("X-Forwarded-For", "192.0.2.7") // says nothing
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != q.want {
			t.Errorf("%s: %d, want %d", q.claim, w.Code, q.want)
		}
	}
}

// payment builds a payment header: a ticket_params message (field 1), the
// sender (field 2) and a number (field 5).
func payment(w [20]byte) string {
	b := append([]byte{1<<3 | 2, 3, 'a', 'b', 'c', 2<<3 | 2, 20}, w[:]...)
	return base64.StdEncoding.EncodeToString(append(b, 5<<3, 0x96, 0x01))
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	if _, err := client.Open(t.Context(), client.Options{Topics: []string{"a/b"}}); !errors.Is(err, client.ErrBadTopic) {
		t.Errorf("a topic that is none: %v", err)
	}
	if _, err := client.Open(t.Context(), client.Options{}); !errors.Is(err, client.ErrNoTopics) {
		t.Errorf("no topics: %v", err)
	}
}

// A program for which the agent is optional calls the same methods without it.
func TestANilOrZeroClientBansNobody(t *testing.T) {
	for _, c := range []*client.Client{nil, {}} {
		ip := netip.MustParseAddr("192.0.2.7")
		if c.Banned(ip) || c.Denied([20]byte{1}) || c.LookupIP(ip) != nil || c.LookupWallet([20]byte{1}) != nil {
			t.Error("it bans")
		}
		if c.Report(client.Offence{Topic: "livepeer", IP: ip, Class: "scan"}) {
			t.Error("it takes reports")
		}
		if err := c.WaitReady(t.Context()); !errors.Is(err, client.ErrClosed) {
			t.Errorf("it is ready: %v", err)
		}
		if s := c.Status(); s.Ready || s.Connected || s.Error == "" {
			t.Errorf("status %+v", s)
		}
		c.OnChange(func(client.Change) {})()
		plain, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l := c.Listener(plain)
		dialled, err := net.Dial("tcp", plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		accepted, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(accepted.Close(), dialled.Close(), l.Close(), c.Close()); err != nil {
			t.Error(err)
		}
		w := httptest.NewRecorder()
		c.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }), nil).
			ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code != http.StatusTeapot {
			t.Errorf("the middleware answers %d", w.Code)
		}
		if _, err := c.ErrorLog("livepeer", nil).Write([]byte("x")); err != nil {
			t.Error(err)
		}
	}
}

// A connection that was accepted before its ban does not outlive it.
func TestAListenerClosesTheNewlyBanned(t *testing.T) {
	a := newAgent(t)
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := c.Listener(plain)
	defer l.Close()
	accept := func() (theirs, ours net.Conn) {
		t.Helper()
		theirs, err := net.Dial("tcp", plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if ours, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return theirs, ours
	}
	theirs, ours := accept()
	defer theirs.Close()
	defer ours.Close()
	if _, ok := ours.(interface{ CloseWrite() error }); !ok {
		t.Error("the connection lost what TCP connections can do")
	}
	a.ban("127.0.0.0/30", "sshd")
	_ = theirs.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := theirs.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the banned peer's connection: %v", err)
	}
	if _, err := ours.Read(make([]byte, 1)); err == nil {
		t.Error("the server reads on")
	}
}

// net/http's own error log is evidence that stands in no file.
func TestFailedHandshakesAreReportedWithoutALog(t *testing.T) {
	a := newAgent(t)
	a.start()
	c := open(t, client.Options{Socket: a.socket, Topics: everyTopic})
	var seen strings.Builder
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(c.ErrorLog("livepeer", &seen), "", 0)
	s.StartTLS()
	for _, garbage := range []string{"SSH-2.0-probe\r\n", "SSH-2.0-again\r\n", ""} {
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, garbage); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).CloseWrite()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}
	s.Close()
	eventually(t, "both probes are known", func() bool { return a.reported() == 2 })
	if o := a.offences[0]; o.Target != ban.MustTarget("127.0.0.1") || o.Class != ban.ClassScan {
		t.Errorf("the agent was told %+v", o)
	}
	if n := strings.Count(seen.String(), "http: TLS handshake error from 127.0.0.1:"); n != 3 {
		t.Errorf("%d of 3 lines went on:\n%s", n, seen.String())
	}
}
