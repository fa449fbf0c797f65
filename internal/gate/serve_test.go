package gate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// reseal replaces the checksum by the right one.
func reseal(b []byte) []byte {
	if len(b) < sha256.Size {
		return b
	}
	content := bytes.Clone(b[:len(b)-sha256.Size])
	sum := sha256.Sum256(content)
	return append(content, sum[:]...)
}

// running is a gate that serves.
type running struct {
	t    *testing.T
	gate *Gate
	file string
	url  string
	stop func() error
}

// run serves a file's list; nil bytes are no file.
func run(t *testing.T, b []byte, o Options) *running {
	t.Helper()
	r := &running{t: t, gate: New(slog.New(slog.DiscardHandler)), file: filepath.Join(t.TempDir(), "wallets")}
	if b != nil {
		r.write(b)
	}
	if o.Socket.Listener == nil {
		var err error
		if o.Socket, err = Listen("127.0.0.1:0", nil); err != nil {
			t.Fatal(err)
		}
	}
	o.File = r.file
	r.url = URL(o.Socket.Listener.Addr().String(), path)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.gate.Run(ctx, o) }()
	ended := false
	r.stop = func() error {
		if ended {
			return nil
		}
		ended = true
		cancel()
		return <-done
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *running) write(b []byte) {
	r.t.Helper()
	if err := WriteFile(r.file, b); err != nil {
		r.t.Fatal(err)
	}
}

// ask posts a wallet and gives status and body.
func (r *running) ask(who string) (int, string) {
	r.t.Helper()
	resp, err := http.Post(r.url, "application/json", strings.NewReader(`{"id":"`+who+`"}`))
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || !resp.Close {
		r.t.Fatalf("the answer: %v, closes %v", err, resp.Close)
	}
	return resp.StatusCode, string(b)
}

// until waits for a status.
func (r *running) until(ready func(Status) bool) {
	r.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for !ready(r.gate.Status()) {
		select {
		case <-tick.C:
		case <-late:
			r.t.Fatalf("the status stays %+v", r.gate.Status())
		}
	}
}

func encode(t *testing.T, h Header, entries []Entry) []byte {
	t.Helper()
	h.Path, h.Written = path, time.Now()
	b, err := Encode(h, entries)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTheFileDecidesWhoIsDenied(t *testing.T) {
	t.Parallel()
	r := run(t, nil, Options{})
	expect := func(claim string, status int, answer string) {
		t.Helper()
		if s, a := r.ask(bad); s != status || a != answer {
			t.Errorf("%s: %d %q, want %d %q", claim, s, a, status, answer)
		}
		if s, a := r.ask(good); s != 200 || a != "{}" {
			t.Errorf("%s: a wallet that nobody denied: %d %q", claim, s, a)
		}
	}
	none := func(s Status) bool { return s.Fault != "" }
	some := func(s Status) bool { return s.Fault == "" && s.Listed == 1 }
	expect("no file", 200, "{}")
	entries := denied(bad)
	entries[0].Contact = "appeals@example.org"
	r.write(encode(t, Header{}, entries))
	r.until(some)
	expect("a list with a contact", 403, "not served by this orchestrator; to object: appeals@example.org\n")
	if err := os.Truncate(r.file, 90); err != nil {
		t.Fatal(err)
	}
	r.until(none)
	expect("a torn file", 200, "{}")
	r.write(encode(t, Header{Message: "no service here"}, denied(bad)))
	r.until(some)
	expect("a message", 403, "no service here\n")
	r.write(encode(t, Header{DryRun: true}, denied(bad)))
	r.until(func(s Status) bool { return s.DryRun })
	expect("a dry run", 200, "{}")
	if err := os.Remove(r.file); err != nil {
		t.Fatal(err)
	}
	r.until(none)
	expect("the file is gone", 200, "{}")
	r.write(encode(t, Header{}, denied(bad)))
	r.until(some)
	resp, err := http.Get(r.url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil || s.Refused != 3 || s.Listed != 1 || s.Sum == "" || s.Written.IsZero() || len(s.Wallets) != 2 {
		t.Errorf("the status: %v %+v", err, s)
	}
}

func TestALongPastListStillDenies(t *testing.T) {
	t.Parallel()
	b, err := Encode(Header{Path: path, Written: time.Now().Add(-100 * 24 * time.Hour)}, denied(bad))
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, b, Options{})
	if status, _ := r.ask(bad); status != 403 {
		t.Errorf("a list of 100 days ago: %d", status)
	}
}

func TestARequestInPiecesIsAnswered(t *testing.T) {
	t.Parallel()
	r := run(t, encode(t, Header{}, denied(bad)), Options{})
	address := strings.Split(r.url, "/")[2]
	body := `{"id":"` + bad + `"}`
	whole := fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	for _, c := range []struct{ claim, first, second, want string }{
		{"in two pieces", whole[:30], whole[30:], "HTTP/1.1 403"},
		{"chunked", fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", path, len(body), body), "", "HTTP/1.1 403"},
		{"a long header", "POST /" + path + " HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", peekSize) + "\r\nContent-Length: 2\r\n\r\n{}", "", "HTTP/1.1 200"},
		{"too large", "POST /" + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n", "", "HTTP/1.1 413"},
		{"another path", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "", "HTTP/1.1 404"},
		{"no request", "\x16\x03\x01\r\n\r\n", "", ""},
		{"nothing", "", "", ""},
	} {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, first := io.WriteString(conn, c.first)
		_, second := io.WriteString(conn, c.second)
		err = errors.Join(first, second, conn.(*net.TCPConn).CloseWrite())
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := io.ReadAll(conn)
		conn.Close()
		if !strings.HasPrefix(string(answer), c.want) || c.want == "" && len(answer) > 0 {
			t.Errorf("%s: %q, want %q", c.claim, answer, c.want)
		}
	}
}

func TestRunAnswersWhatItAcceptedAndStops(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-release
		fmt.Fprint(w, "{}")
	}))
	defer upstream.Close()
	r := run(t, encode(t, Header{Chain: upstream.URL, ChainAllows: true}, nil), Options{})
	answered := make(chan int, 1)
	go func() {
		status, _ := r.ask(good)
		answered <- status
	}()
	<-entered
	done := make(chan error, 1)
	go func() { done <- r.stop() }()
	address := strings.Split(r.url, "/")[2]
	for { // until it no longer listens
		conn, err := net.Dial("tcp", address)
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-done:
		t.Fatalf("Run ended (%v) before a call that it accepted was answered", err)
	case status := <-answered:
		t.Fatalf("answered early: %d", status)
	default:
	}
	close(release)
	if status := <-answered; status != 200 {
		t.Error(status)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestACallThatAnotherProcessAcceptedIsAnswered(t *testing.T) {
	t.Parallel()
	s, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	caller, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	body := `{"id":"` + bad + `"}`
	fmt.Fprintf(caller, "POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
	conn, err := s.Listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	// The first process looks at the bytes, as every call begins, and is killed.
	if b, err := peek(conn, 0); err != nil || len(b) == 0 {
		t.Fatal(err)
	}
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	fd, err := dup(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	again, err := Listen("127.0.0.1:0", []*os.File{os.NewFile(fd, callName)})
	if err != nil || len(again.Calls) != 1 {
		t.Fatalf("%d calls, %v", len(again.Calls), err)
	}
	s.Listener.Close()
	run(t, encode(t, Header{}, denied(bad)), Options{Socket: again})
	answer, err := io.ReadAll(caller)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 403") {
		t.Errorf("%q, %v", answer, err)
	}
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:8936", "nonsense"} {
		if s, err := Listen(address, nil); err == nil {
			s.Listener.Close()
			t.Errorf("it listens on %s", address)
		}
	}
	s, err := Listen("127.0.0.1:0", nil)
	if err != nil || s.Inherited {
		t.Fatalf("%v, inherited %v", err, s.Inherited)
	}
	defer s.Listener.Close()
	file := func(l net.Listener, name string) *os.File {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fd, err := dup(f)
		if err != nil {
			t.Fatal(err)
		}
		return os.NewFile(fd, name)
	}
	other := file(s.Listener, "control")
	defer other.Close()
	taken, err := Listen("127.0.0.1:0", []*os.File{other, file(s.Listener, SocketName)})
	if err != nil || !taken.Inherited || taken.Listener.Addr().String() != s.Listener.Addr().String() {
		t.Fatalf("%v, inherited %v", err, taken.Inherited)
	}
	taken.Listener.Close()
	if _, err := other.Stat(); err != nil {
		t.Errorf("a socket that is not the gate's was closed: %v", err)
	}
	open, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := Listen("", []*os.File{file(open, SocketName)}); !errors.Is(err, errLoopback) {
		t.Errorf("a socket that the world reaches is taken over: %v", err)
	}
}

// TestTheServiceManagerHearsLifeAndKeepsCalls plays systemd's end of the
// notification socket.
func TestTheServiceManagerHearsLifeAndKeepsCalls(t *testing.T) {
	name := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "200000")
	service := OpenService()
	if service == nil || service.Watchdog() != 200*time.Millisecond || os.Getenv("NOTIFY_SOCKET") != "" {
		t.Fatalf("the service manager is not found: %+v", service)
	}
	defer service.Close()
	r := run(t, encode(t, Header{}, denied(bad)), Options{Service: service})
	heard := map[string]bool{}
	hear := func() {
		_ = manager.SetReadDeadline(time.Now().Add(20 * time.Second))
		b, rights := make([]byte, 256), make([]byte, 256)
		n, nr, _, _, err := manager.ReadMsgUnix(b, rights)
		if err != nil {
			t.Fatal(err)
		}
		if nr > 0 {
			heard["a descriptor with "+string(b[:n])] = true
			closeRights(t, rights[:nr])
			return
		}
		heard[string(b[:n])] = true
	}
	for !heard["READY=1"] || !heard["WATCHDOG=1"] {
		hear()
	}
	if status, _ := r.ask(bad); status != 403 {
		t.Error(status)
	}
	for !heard["a descriptor with FDSTORE=1\nFDNAME=call"] {
		hear()
	}
	if (*Service)(nil).Watchdog() != 0 {
		t.Error("no manager waits for signs of life")
	}
}

// A caller may send the header and the body apart; the next process can only
// answer when neither was taken out of the socket.
func TestACallInPiecesStaysInTheSocket(t *testing.T) {
	t.Parallel()
	s, err := Listen("127.0.0.1:0", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Listener.Close()
	caller, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	conn, err := s.Listener.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	body := `{"id":"` + bad + `"}`
	header := fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", path, len(body))
	if _, err := io.WriteString(caller, header); err != nil {
		t.Fatal(err)
	}
	if b, err := peek(conn, 0); err != nil || string(b) != header {
		t.Fatalf("%q, %v", b, err)
	}
	type call struct {
		body []byte
		err  error
	}
	read := make(chan call, 1)
	go func() {
		_, _, b, err := readCall(conn)
		read <- call{b, err}
	}()
	if _, err := io.WriteString(caller, body); err != nil {
		t.Fatal(err)
	}
	if c := <-read; c.err != nil || string(c.body) != body {
		t.Errorf("%q, %v", c.body, c.err)
	}
	if b, err := peek(conn, 0); err != nil || string(b) != header+body {
		t.Errorf("the socket still has %q, %v", b, err)
	}
}
