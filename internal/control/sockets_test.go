package control

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
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
