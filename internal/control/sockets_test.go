package control

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"
)

// pipes is a listener whose connections a test makes.
type pipes struct {
	calls  chan net.Conn
	closed context.Context
	close  context.CancelFunc
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.closed.Done():
		return nil, net.ErrClosed
	}
}
func (p pipes) Close() error   { p.close(); return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "unix"} }

// A restart lets a request come to its end whose connection was accepted before it,
// and one that waits for something to happen ends soon.
func TestServeAnswersWhomItAcceptedBeforeTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pipes{calls: make(chan net.Conn)}
		p.closed, p.close = context.WithCancel(t.Context())
		ctx, stop := context.WithCancel(t.Context())
		over := make(chan error, 1)
		go func() {
			over <- Serve(ctx, p, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/wait" {
					<-r.Context().Done()
				}
				_, _ = io.WriteString(w, "done")
			}), slog.New(slog.DiscardHandler))
		}()
		var ends []net.Conn
		for range 2 {
			here, there := net.Pipe()
			p.calls <- there
			ends = append(ends, here)
		}
		synctest.Wait()
		stop()
		synctest.Wait()
		for i, path := range []string{"/", "/wait"} {
			go func() { _, _ = io.WriteString(ends[i], "GET "+path+" HTTP/1.0\r\n\r\n") }()
			if b, err := io.ReadAll(ends[i]); err != nil || !strings.HasSuffix(string(b), "done") {
				t.Errorf("%s is answered with %q, %v", path, b, err)
			}
		}
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
}

// A manager keeps a socket: who calls between two processes is answered by the second.
func TestAKeptSocketIsTakenOver(t *testing.T) {
	dir := t.TempDir()
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	said := func() (string, []int) {
		b, rights := make([]byte, 100), make([]byte, 100)
		n, m, _, _, err := manager.ReadMsgUnix(b, rights)
		if err != nil {
			t.Fatal(err)
		}
		if m == 0 {
			return string(b[:n]), nil
		}
		messages, err := unix.ParseSocketControlMessage(rights[:m])
		if err != nil {
			t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&messages[0])
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n]), fds
	}

	path := filepath.Join(dir, "agent.sock")
	first := OpenSockets()
	l, err := first.Listen("control", path, ControlMode)
	if err != nil {
		t.Fatal(err)
	}
	text, fds := said()
	if text != "FDSTORE=1\nFDNAME=control" || len(fds) != 1 {
		t.Fatalf("the manager hears %q with %v", text, fds)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	first.Close(false)
	call, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("between two processes: %v", err)
	}
	defer call.Close()

	second := &Sockets{kept: map[string]*os.File{"control": os.NewFile(uintptr(fds[0]), "control")}, names: []string{"control"}}
	if l, err = second.Listen("control", path, ControlMode); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	answer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	answer.Close()
	second.Close(true)
	if text, _ := said(); text != "FDSTOREREMOVE=1\nFDNAME=control" {
		t.Errorf("of a process that failed the manager hears %q", text)
	}

	// A file that somebody took away is made anew.
	third := &Sockets{kept: map[string]*os.File{}}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	third.kept["control"] = f
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	again, err := third.Listen("control", path, ControlMode)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if conn, err := net.Dial("unix", path); err != nil {
		t.Errorf("after its file was taken away: %v", err)
	} else {
		conn.Close()
	}
}
