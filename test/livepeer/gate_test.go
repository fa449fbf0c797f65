package livepeer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"go.uber.org/goleak"

	"banmesh/internal/ban"
	"banmesh/internal/gate"
	"banmesh/internal/wallet"
)

const (
	bad        = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
	good       = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"
	secretPath = "00112233445566778899aabbccddeeff"
	// hostVariable makes the test's own binary the process that systemd would
	// start with the gate's socket.
	hostVariable = "BANMESH_TEST_GATE_HOST"
)

func TestMain(m *testing.M) {
	if os.Getenv(hostVariable) != "" {
		if err := host(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(built.directory)
		os.Exit(code)
	}))
}

// host serves the gate on the socket that it inherits, until SIGTERM.
func host() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// The deadline is another test's: here a busy machine must not let it pass.
	g, err := gate.New(gate.Options{Wallets: list{bad: true}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Path: secretPath, Deadline: 10 * time.Second})
	if err != nil {
		return err
	}
	// systemd writes the number of the process that it starts; the test cannot
	// know it before.
	if err := os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())); err != nil {
		return err
	}
	l, inherited, err := gate.Listen("127.0.0.1:0", activation.Files(true))
	if err != nil || !inherited {
		return errors.Join(errors.New("no socket was inherited"), err)
	}
	fmt.Println("up")
	err = g.Run(ctx, l)
	c := g.Counters()
	fmt.Printf("allowed %d refused %d unanswered %d\n", c.Allowed, c.Refused, c.Unanswered)
	return err
}

// list denies the wallets that it names.
type list map[string]bool

func (l list) Denied(w [20]byte) (gate.Denial, bool) {
	return gate.Denial{Topic: "broadcaster-addresses", Class: ban.ClassManual}, l[wallet.Format(w)]
}

// TestTheDoubleFollowsTheContract holds the double to the table of answers
// that go-livepeer's source gives, without our gate.
func TestTheDoubleFollowsTheContract(t *testing.T) {
	t.Parallel()
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

// slow answers after a while.
type slow struct {
	takes time.Duration
	list
}

func (s slow) Denied(w [20]byte) (gate.Denial, bool) {
	t := time.NewTimer(s.takes)
	defer t.Stop()
	<-t.C
	return s.list.Denied(w)
}

func TestTheGateFulfilsTheContract(t *testing.T) {
	t.Parallel()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A server notices that the caller went only once the body is read.
		_, _ = io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/price":
			_, _ = io.WriteString(w, `{"priceInfo":{"pricePerUnit":7,"pixelsPerUnit":2}}`)
		case "/no":
			http.Error(w, "pay first", http.StatusForbidden)
		case "/empty":
		case "/hangs":
			<-r.Context().Done()
		}
	}))
	defer upstream.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	chain := func(path string) *url.URL {
		u, err := url.Parse(upstream.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	nobody := &url.URL{Scheme: "http", Host: dead.Addr().String(), Path: "/"}
	denies := list{bad: true}
	for _, c := range []struct {
		claim  string
		o      gate.Options
		wallet string
		refuse string // the text that the gateway sees; "" when it is admitted
	}{
		{"a wallet that nobody denied", gate.Options{Wallets: denies}, good, ""},
		{"a denied wallet", gate.Options{Wallets: denies}, bad, "authentication failed: not served by this orchestrator\n"},
		{"a denied wallet in a dry run", gate.Options{Wallets: denies, DryRun: true}, bad, ""},
		{"an off-chain node's caller", gate.Options{Wallets: denies}, "0x" + strings.Repeat("0", 40), ""},
		{"a lookup of a denied wallet that takes too long", gate.Options{Wallets: slow{time.Second, denies}, Deadline: 20 * time.Millisecond}, bad, ""},
		{"a lookup of a denied wallet within the deadline", gate.Options{Wallets: slow{time.Millisecond, denies}, Deadline: 10 * time.Second}, bad, "authentication failed: not served by this orchestrator\n"},
		{"a chained webhook that sets a price", gate.Options{Wallets: denies, Upstream: chain("/price")}, good, ""},
		{"a chained webhook that refuses", gate.Options{Wallets: denies, Upstream: chain("/no")}, good, "authentication failed: pay first\n"},
		{"a chained webhook with an empty 200 refuses as before", gate.Options{Wallets: denies, Upstream: chain("/empty")}, good, "authentication failed: unexpected end of JSON input"},
		{"a chained webhook cannot admit a denied wallet", gate.Options{Wallets: denies, Upstream: chain("/price")}, bad, "authentication failed: not served by this orchestrator\n"},
		{"a chained webhook that hangs", gate.Options{Wallets: denies, Upstream: chain("/hangs"), UpstreamTimeout: 50 * time.Millisecond}, good, "authentication failed: authentication is not available\n"},
		{"a chained webhook that hangs and may", gate.Options{Wallets: denies, Upstream: chain("/hangs"), UpstreamTimeout: 50 * time.Millisecond, UpstreamAllow: true}, good, ""},
		{"a chained webhook that is gone", gate.Options{Wallets: denies, Upstream: nobody}, good, "authentication failed: authentication is not available\n"},
		{"a chained webhook that is gone and may", gate.Options{Wallets: denies, Upstream: nobody, UpstreamAllow: true}, good, ""},
	} {
		c.o.Path, c.o.Log = secretPath, slog.New(slog.DiscardHandler)
		g, err := gate.New(c.o)
		if err != nil {
			t.Fatal(err)
		}
		l, _, err := gate.Listen("127.0.0.1:0", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- g.Run(ctx, l) }()
		_, err = Orchestrator{g.URL(l), &http.Client{Timeout: 20 * time.Second}}.Authenticate(c.wallet)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", c.claim, err)
		}
		if (err == nil) != (c.refuse == "") || err != nil && err.Error() != c.refuse {
			t.Errorf("%s: %v, want %q", c.claim, err, c.refuse)
		}
	}
}

// process is a running host.
type process struct {
	cmd *exec.Cmd
	out *bufio.Reader
	err bytes.Buffer
}

// start runs the host on a socket, as systemd does, and waits until it is up.
func start(t *testing.T, socket *os.File) *process {
	t.Helper()
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), hostVariable+"=1", "LISTEN_FDS=1", "LISTEN_FDNAMES="+gate.SocketName)
	p.cmd.ExtraFiles = []*os.File{socket}
	p.cmd.Stderr = &p.err
	pipe, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(pipe)
	if line, err := p.out.ReadString('\n'); err != nil || line != "up\n" {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		t.Fatalf("the host said %q, %v: %s", line, err, p.err.String())
	}
	return p
}

// stop ends the host in an orderly way and gives its last words.
func (p *process) stop(t *testing.T) string {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	words, err := p.out.ReadString('\n')
	if err != nil {
		t.Errorf("the host ended without a word: %v", err)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("the host: %v: %s", err, p.err.String())
	}
	return words
}

// TestARestartUnderLoadRefusesNobody restarts the process behind the socket
// while orchestrators ask without a pause: no wallet that should pass is
// refused, none that should not is admitted, and no call hangs.
func TestARestartUnderLoadRefusesNobody(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	// The process must not be the only holder of the socket, or its end would
	// close the queue: systemd is the other one, here the test is.
	target := "http://" + listener.Addr().String() + "/" + secretPath

	var mu sync.Mutex
	var took []time.Duration
	var faults []error
	admitted, refused := 0, 0
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			// go-livepeer's client has no time limit; this one turns a call that
			// hangs into an error.
			c := &http.Client{Timeout: 20 * time.Second, Transport: http.DefaultTransport.(*http.Transport).Clone()}
			defer c.CloseIdleConnections()
			o := Orchestrator{target, c}
			for n := 0; ctx.Err() == nil; n++ {
				who, denied := good, (i+n)%4 == 0
				if denied {
					who = bad
				}
				began := time.Now()
				_, err := o.Authenticate(who)
				mu.Lock()
				took = append(took, time.Since(began))
				switch {
				case denied && err == nil:
					faults = append(faults, errors.New("a denied wallet was admitted"))
				case denied && !strings.HasSuffix(err.Error(), "not served by this orchestrator\n"), !denied && err != nil:
					faults = append(faults, err)
				case denied:
					refused++
				default:
					admitted++
				}
				mu.Unlock()
			}
		})
	}
	const restarts = 12
	for range restarts {
		p := start(t, socket)
		mu.Lock()
		until := len(took) + 300
		mu.Unlock()
		deadline := time.After(30 * time.Second)
		for tick := time.NewTicker(time.Millisecond); ; {
			mu.Lock()
			enough := len(took) >= until
			mu.Unlock()
			if enough {
				tick.Stop()
				break
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatal("no calls come through")
			}
		}
		if words := p.stop(t); !strings.HasSuffix(words, "unanswered 0\n") {
			t.Errorf("the host: %s", words)
		}
	}
	last := start(t, socket) // serves the queue
	cancel()
	callers.Wait()
	last.stop(t)
	for i, err := range faults {
		if i == 5 {
			t.Fatalf("and %d more", len(faults)-5)
		}
		t.Error(err)
	}
	slices.Sort(took)
	longest := took[len(took)-1]
	if longest > 10*time.Second {
		t.Errorf("a call took %s", longest)
	}
	t.Logf("%d restarts, %d admitted, %d refused, longest call %s", restarts, admitted, refused, longest.Round(time.Millisecond))
}
