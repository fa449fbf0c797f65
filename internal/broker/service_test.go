package broker

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"banmesh/internal/broker/frame"
)

func TestSystemdHearsReadyWatchdogAndStopping(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	b := community(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.TellSystemd(ctx) }()
	hear := func() string {
		t.Helper()
		buf := make([]byte, 256)
		_ = socket.SetReadDeadline(time.Now().Add(patience))
		n, err := socket.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n])
	}
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := hear(); got != want {
			t.Errorf("heard %q, want %q", got, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for got := hear(); got != "STOPPING=1"; got = hear() {
		if got != "WATCHDOG=1" {
			t.Fatalf("heard %q", got)
		}
	}
}

func TestHealthAndMetricsAreServed(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	c := a.join(t, b)
	topic, card := a.card(t, 1)
	c.publish(topic, card, 1, true)
	c.publish("not/a/feed", "x", 2, true)
	ask := func(path string) (int, string) {
		w := httptest.NewRecorder()
		b.Public().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		body, err := io.ReadAll(w.Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(body)
	}
	if code, body := ask("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %s", code, body)
	}
	code, body := ask("/metrics")
	for _, want := range []string{
		"banmesh_broker_connections 1\n", "banmesh_broker_publications_total 2\n", "banmesh_broker_publications_admitted_total 1\n",
		`banmesh_broker_publications_refused_total{reason="topic"} 1` + "\n", `banmesh_broker_logins_total{method="key"} 1` + "\n",
		"banmesh_broker_retained_messages 1\n", "banmesh_broker_store_healthy 1\n",
	} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %q", want)
		}
	}
	b.connsMu.Lock()
	b.closing = true
	b.connsMu.Unlock()
	if code, _ := ask("/healthz"); code != http.StatusServiceUnavailable {
		t.Errorf("/healthz while draining: %d", code)
	}
}

// A locked buffer is a log's destination.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLogsHaveAddressesOnlyWhereAsked(t *testing.T) {
	t.Parallel()
	for _, asked := range []bool{false, true} {
		var log lockedBuffer
		b := community(t, func(o *Options) {
			o.LogAddresses = asked
			o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		c := newAuthor("alice").join(t, b)
		c.publish("not/a/feed", "x", 1, true)
		c.send(0xf0, 0) // no packet of MQTT 3.1.1
		c.wantClosed()
		d := dial(t, b)
		d.send(connecting{id: "x", flags: 2, keepalive: 60}.bytes()...)
		d.want(frame.Connack)
		eventually(t, "it is logged", func() bool {
			s := log.String()
			return strings.Contains(s, "client gone") && strings.Contains(s, "turned away")
		})
		if got := strings.Contains(log.String(), "127.0.0.1"); got != asked {
			t.Errorf("addresses in the log: %v, asked for: %v\n%s", got, asked, log.String())
		}
		if s := b.Sessions(); len(s) > 0 && (s[0].Address != "") != asked {
			t.Errorf("status: %+v", s)
		}
	}
}

func TestAClientCanBeKicked(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	c := a.join(t, b)
	if err := b.Kick(a.feed.Node.String()); err != nil {
		t.Fatal(err)
	}
	c.wantClosed()
	eventually(t, "it is forgotten", func() bool { return errors.Is(b.Kick(a.feed.Node.String()), ErrUnknown) })
}

func TestFeedsAreListed(t *testing.T) {
	t.Parallel()
	b := community(t)
	a := newAuthor("alice")
	c := a.join(t, b)
	topic, card := a.card(t, 3)
	c.publish(topic, card, 1, true)
	topic, head := a.head(9)
	c.publish(topic, head, 2, true)
	topic, chunk := a.chunk(0, 4)
	c.publish(topic, chunk, 3, true)
	feeds := b.Feeds()
	if len(feeds) != 2 {
		t.Fatalf("%+v", feeds)
	}
	if f := feeds[0]; f.Name != "net/operators/"+a.feed.Operator.String()+"/card" || f.Number != 3 || f.Messages != 1 {
		t.Errorf("%+v", f)
	}
	if f := feeds[1]; f.Name != "net/"+a.feed.String() || f.Number != 9 || f.Epoch != a.epoch || f.Messages != 2 || f.Bytes != len(head)+len(chunk) {
		t.Errorf("%+v", f)
	}
}
