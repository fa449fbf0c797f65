package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers with a handler on a socket of the test's own, until the test
// or stop ends it.
func serve(t *testing.T, handler http.Handler) (path string, stop func() error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "run", "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, handler, slog.New(slog.DiscardHandler)) }()
	stopped := false
	stop = func() error {
		cancel()
		if stopped {
			return nil
		}
		stopped = true
		return <-done
	}
	t.Cleanup(func() { _ = stop() })
	return path, stop
}

func TestOnlyTheOwnerAndTheGroupMayConnect(t *testing.T) {
	path, stop := serve(t, http.NotFoundHandler())
	info, err := os.Stat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket || info.Mode().Perm() != 0o660 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(path + ".new"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary name is left: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a stopped server leaves its socket: %v", err)
	}
}

func TestASocketIsTakenOverFromTheDeadAlone(t *testing.T) {
	path, stop := serve(t, http.NotFoundHandler())
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another agent answers") {
		t.Errorf("beside a living agent: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the living agent's socket is gone: %v", err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// A killed agent leaves a socket that nobody answers on.
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("after a dead agent: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Errorf("over a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "mine" {
		t.Errorf("the file is now %q, %v", b, err)
	}
}

func TestEachCodeHasItsStatusAndReachesTheClientWithItsHint(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /refuse", Handle(func(r *http.Request) (any, error) {
		var code string
		if err := Decode(r, &code); err != nil {
			return nil, err
		}
		if code == "" {
			return nil, io.ErrUnexpectedEOF
		}
		return nil, Refuse(code, "do this", "no %s", "way")
	}))
	path, _ := serve(t, mux)
	c := NewClient(path)
	for code, status := range map[string]int{CodeBad: 400, CodeMissing: 404, CodeRefused: 409, CodeAsk: 409, CodeInternal: 500} {
		err := c.Post(t.Context(), "/refuse", code, nil)
		no, ok := errors.AsType[*RefusedError](err)
		if !ok || *no != (RefusedError{Code: code, Text: "no way", Hint: "do this"}) {
			t.Errorf("%s: %v", code, err)
		}
		w := httptest.NewRecorder()
		WriteError(w, Refuse(code, "", "x"))
		if w.Code != status || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: status %d, %v", code, w.Code, w.Header())
		}
	}
	err := c.Post(t.Context(), "/refuse", "", nil)
	if no, ok := errors.AsType[*RefusedError](err); !ok || no.Code != CodeInternal || no.Text != io.ErrUnexpectedEOF.Error() {
		t.Errorf("any other error: %v", err)
	}
	if err := c.Get(t.Context(), "/nowhere", nil, nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an answer that is no JSON: %v", err)
	}
}

func TestARequestIsReadStrictly(t *testing.T) {
	for body, fault := range map[string]string{
		`{"peer":"alice"}`:               "",
		`{"peer":"alice"}` + "\n ":       "",
		`{"peer":"alice","pear":"x"}`:    `unknown field "pear"`,
		`{"peer":"alice"}{"peer":"bob"}`: "more than one value",
		`{"peer":"alice"} x`:             "more than one value",
		`{"peer":`:                       "unexpected EOF",
		``:                               "EOF",
	} {
		var q PeerRequest
		err := Decode(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body)), &q)
		if fault == "" {
			if err != nil || q.Peer != "alice" {
				t.Errorf("%q: %+v, %v", body, q, err)
			}
			continue
		}
		if no, ok := errors.AsType[*RefusedError](err); !ok || no.Code != CodeBad || !strings.Contains(no.Text, fault) {
			t.Errorf("%q: %v, want %q", body, err, fault)
		}
	}
}

func TestABodyBeyondTheLimitIsRefusedAndOneOfItIsNot(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /size", Handle(func(r *http.Request) (any, error) {
		var s string
		err := Decode(r, &s)
		return len(s), err
	}))
	path, _ := serve(t, mux)
	c := NewClient(path)
	var n int
	if err := c.Post(t.Context(), "/size", strings.Repeat("x", MaxBody-2), &n); err != nil || n != MaxBody-2 {
		t.Errorf("of the limit: %d, %v", n, err)
	}
	if err := c.Post(t.Context(), "/size", strings.Repeat("x", MaxBody-1), &n); err == nil {
		t.Error("one byte beyond the limit was taken")
	}
}

func TestAClientSaysWhoDoesNotAnswer(t *testing.T) {
	path, stop := serve(t, Handle(func(r *http.Request) (any, error) { return r.URL.Query(), nil }))
	c := NewClient(path)
	var q url.Values
	if err := c.Get(t.Context(), "/x", url.Values{"a": {"1&<2"}}, &q); err != nil || q.Get("a") != "1&<2" {
		t.Errorf("%v, %v", q, err)
	}
	var raw []byte
	if err := c.Get(t.Context(), "/x", url.Values{"a": {"<"}}, &raw); err != nil || !bytes.Equal(raw, []byte(`{"a":["<"]}`+"\n")) {
		t.Errorf("the bytes are %q, %v", raw, err)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), "/x", nil, nil); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("without a socket: %v", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if err := c.Get(t.Context(), "/x", nil, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("on a dead agent's socket: %v", err)
	}
}

// A request that is under way when the agent stops is answered.
func TestServeWaitsForRequestsUnderWay(t *testing.T) {
	arrived, release := make(chan struct{}), make(chan struct{})
	path, stop := serve(t, Handle(func(*http.Request) (any, error) {
		close(arrived)
		<-release
		return "done", nil
	}))
	answer := make(chan error, 1)
	go func() {
		var s string
		err := NewClient(path).Get(context.Background(), "/", nil, &s)
		if err == nil && s != "done" {
			err = errors.New("answered " + s)
		}
		answer <- err
	}()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// The listener closes before requests are waited for.
	for {
		conn, err := net.Dial("unix", path)
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("it does not wait: %v", err)
	case <-time.After(50 * time.Millisecond): // a server that does not wait is back long before
	}
	close(release)
	if err := errors.Join(<-answer, <-stopped); err != nil {
		t.Error(err)
	}
}

func TestAStreamArrivesWholeOrFails(t *testing.T) {
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /whole", Stream(func(w io.Writer) (int64, error) {
		n, err := w.Write(big)
		return int64(n), err
	}))
	mux.HandleFunc("GET /torn", Stream(func(w io.Writer) (int64, error) {
		n, _ := w.Write(big)
		return int64(n), io.ErrUnexpectedEOF
	}))
	mux.HandleFunc("GET /none", Stream(func(io.Writer) (int64, error) { return 0, Refuse(CodeRefused, "do this", "no way") }))
	path, _ := serve(t, mux)
	c := NewClient(path)
	var b bytes.Buffer
	if n, err := c.Stream(t.Context(), "/whole", &b); err != nil || n != int64(len(big)) || !bytes.Equal(b.Bytes(), big) {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := c.Stream(t.Context(), "/torn", io.Discard); err == nil {
		t.Error("half an answer passed for a whole one")
	}
	if _, err := c.Stream(t.Context(), "/none", io.Discard); err == nil || err.Error() != "no way" {
		t.Errorf("refused: %v", err)
	}
}

func TestAnEmptyListingIsAnEmptyArray(t *testing.T) {
	b, err := json.Marshal(Explanation{Standings: []Standing{}})
	if err != nil || !strings.Contains(string(b), `"standings":[]`) {
		t.Errorf("%s, %v", b, err)
	}
}

// Whoever asks an agent that is killed meanwhile hears that it does not run, and whoever
// wanted something changed that it may be so or not.
func TestAnAgentThatEndsBeforeItAnswersIsNotRunning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.Close()
		}
	}()
	if err := NewClient(path).Get(t.Context(), "/x", nil, nil); !errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	err = NewClient(path).Post(t.Context(), "/x", struct{}{}, nil)
	if !errors.Is(err, ErrUnanswered) || errors.Is(err, ErrNotRunning) || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
}

// An answer that is cut off leaves a change as unknown as none, and so does one that does
// not come in time.
func TestAChangeWhoseAnswerIsCutOffOrLateIsUnknown(t *testing.T) {
	t.Parallel()
	late := make(chan struct{})
	path, stop := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/late" {
			select {
			case <-late:
			case <-r.Context().Done():
			}
			return
		}
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte("{"))
	}))
	defer func() {
		close(late)
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	var answer any
	if err := NewClient(path).Post(t.Context(), "/cut", struct{}{}, &answer); !errors.Is(err, ErrUnanswered) {
		t.Errorf("cut off: %v", err)
	}
	hasty := NewClient(path)
	hasty.http.Timeout = 20 * time.Millisecond
	if err := hasty.Post(t.Context(), "/late", struct{}{}, &answer); !errors.Is(err, ErrUnanswered) {
		t.Errorf("late: %v", err)
	}
}
