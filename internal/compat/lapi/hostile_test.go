package lapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/compat/serving"
	"banmesh/internal/compat/usage"
	"banmesh/internal/export"
)

// Whoever guesses keys waits, behind however many names; the bouncer with a key
// behind the same address does not, also when it asks for the first time in the midst
// of it.
func TestGuessedKeysNeverLockTheBouncerOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		n.ban("192.0.2.7", "sshd", time.Hour)
		began := time.Now()
		var guessing sync.WaitGroup
		const guesses = 500
		for i := range guesses {
			guessing.Go(func() {
				for {
					switch w := n.ask("GET", "/v1/decisions", fmt.Sprint("guess ", i), custom, ""); w.Code {
					case http.StatusTooManyRequests: // at once, and to be asked again
						time.Sleep(time.Second)
					case http.StatusForbidden:
						return
					default:
						t.Errorf("a guess is answered %d", w.Code)
						return
					}
				}
			})
		}
		synctest.Wait()
		asked := time.Now()
		if answer, err := n.poll("true", n.key, custom); err != nil || len(answer.New) != 1 {
			t.Errorf("the bouncer is told %v: %v", answer, err)
		}
		if waited := time.Since(asked); waited != 0 {
			t.Errorf("the bouncer waits %v", waited)
		}
		guessing.Wait()
		if took := time.Since(began); took < 5*time.Second {
			t.Errorf("%d guesses took %v", guesses, took)
		}
		if r := n.Refused(); r.Count < guesses || !r.From.IsValid() {
			t.Errorf("%+v", r)
		}
		if got := len(n.Clients()); got != 1 {
			t.Errorf("%d clients are remembered", got)
		}
	})
}

// A hundred bouncers that read a kilobyte a second, each in the midst of another
// answer, hold no more than the bound, and a quick one is answered.
func TestAHundredSlowBouncersHoldLittle(t *testing.T) {
	const bans, held, slow = 5_000, 4 << 20, 100
	n := newNode(t, func(o *Options) { o.Held = held })
	var list []export.Entry
	for i := range bans {
		target, err := ban.TargetOfAddr(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, export.Entry{Target: target, Topic: "sshd", Class: ban.ClassAuth, Until: n.clock.wall.Add(time.Hour)})
	}
	n.table.Apply(list, nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- serving.Serve(ctx, l, n.Server, serving.Options{Log: slog.New(slog.DiscardHandler)}) }()
	defer func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	}()
	path := "/v1/decisions/stream?startup=true"
	quick := func() {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Api-Key", n.key)
		r.Header.Set("User-Agent", custom)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var got told
		if err := json.NewDecoder(answer.Body).Decode(&got); err != nil || len(got.New) < bans {
			t.Fatalf("%d of %d bans: %v", len(got.New), bans, err)
		}
	}
	quick()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range slow {
		n.ban(fmt.Sprintf("203.0.113.%d", i), "sshd", time.Hour) // every answer is another one
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\nX-Api-Key: %s\r\nUser-Agent: %s\r\n\r\n", path, n.key, custom)
		if _, err := io.ReadFull(c, make([]byte, 1024)); err != nil {
			t.Fatal(err)
		}
	}
	quick()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		runtime.ReadMemStats(&after)
		grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if grown <= 4*held { // all hundred are 60 MB
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("slow bouncers hold %d MB", grown>>20)
		}
	}
}

// A bouncer that asks for many answers at once, or says that it is another program, waits
// for itself; the others are answered as they are.
func TestABouncerThatAsksForMuchKeepsItselfWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t, nil)
		two := n.add(t, "two")
		n.ban("203.0.113.16/28", "sshd", time.Hour)
		over := n.turn("one")
		var waiting sync.WaitGroup
		for i := range 20 {
			waiting.Go(func() {
				if answer, err := n.poll(fmt.Sprint("true&value=", i), n.key, firewall); err != nil || len(answer.New) != 0 {
					t.Errorf("%v: %v", answer, err)
				}
			})
		}
		synctest.Wait()
		for userAgent, want := range map[string]int{custom: 1, firewall: 16} {
			if answer, err := n.poll("true", two, userAgent); err != nil || len(answer.New) != want {
				t.Errorf("%s is told %v: %v", userAgent, answer.New, err)
			}
		}
		over()
		waiting.Wait()
	})
}

// Of a hundred megabytes of metrics about one is read.
func TestAHundredMegabytesOfMetricsAreRefused(t *testing.T) {
	t.Parallel()
	n := newNode(t, nil)
	for _, known := range []bool{false, true} {
		body := &endless{left: 100 << 20}
		r, err := http.NewRequest(http.MethodPost, "/v1/usage-metrics", body)
		if err != nil {
			t.Fatal(err)
		}
		r.RemoteAddr = "198.51.100.1:1"
		r.Header.Set("X-Api-Key", n.key)
		if known {
			r.ContentLength = 100 << 20
		}
		w := recorder{header: http.Header{}}
		n.ServeHTTP(&w, r)
		if read := 100<<20 - body.left; w.status != http.StatusRequestEntityTooLarge || read > usage.MaxBody+1 || known && read > 0 {
			t.Errorf("%d after %d bytes", w.status, read)
		}
	}
}

type recorder struct {
	header http.Header
	status int
	bytes.Buffer
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

type endless struct{ left int }

func (e *endless) Read(b []byte) (int, error) {
	n := min(len(b), e.left)
	if n == 0 {
		return 0, io.EOF
	}
	clear(b[:n])
	e.left -= n
	return n, nil
}

// What is reported for several operators together is divided among those whose
// bans the bouncer is told, and whose name is no origin of its own.
func TestTrafficWithoutAnOperatorIsDivided(t *testing.T) {
	t.Parallel()
	shared := &usage.Attribution{Elapsed: func() time.Duration { return 0 }, Bans: func(yield func(usage.Ban) bool) {
		_ = yield(usage.Ban{Topic: "sshd", Operator: "alice"}) && yield(usage.Ban{Topic: "nginx", Operator: "list_drop"}) && yield(usage.Ban{Topic: "sshd", Operator: "here", Here: true})
	}}
	n := newNode(t, func(o *Options) { o.Shared = shared })
	web := n.add(t, "web", "nginx")
	report := func(key, origin string, packets int) {
		t.Helper()
		body := fmt.Sprintf(`{"remediation_components":[{"metrics":[{"items":[{"name":"dropped","value":%d,"unit":"packet","labels":{"origin":%q}}]}]}]}`, packets, origin)
		if w := n.ask("POST", "/v1/usage-metrics", key, firewall, body); w.Code != http.StatusCreated {
			t.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	report(n.key, OriginNetwork, 10)
	report(n.key, OriginHere, 1000)
	report(n.key, "lists:theirs", 1000)
	report(web, OriginNetwork, 4)
	if alice, list := shared.Of("alice"), shared.Of("list_drop"); alice != 5 || list != 9 {
		t.Errorf("%d %d", alice, list)
	}
	n = newNode(t, func(o *Options) {
		o.Shared, o.Operator = shared, func(ban.Topic, ban.Target) string { return "alice" }
	})
	n.ban("192.0.2.7", "sshd", time.Hour)
	if _, err := n.poll("true", n.key, firewall); err != nil {
		t.Fatal(err)
	}
	report(n.key, OriginNetwork, 100) // alice has an origin
	if alice, list := shared.Of("alice"), shared.Of("list_drop"); alice != 5 || list != 109 {
		t.Errorf("%d %d", alice, list)
	}
}
