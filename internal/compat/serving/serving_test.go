package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// serve answers on loopback until the test ends.
func serve(t *testing.T, h http.Handler, o Options) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan error, 1)
	go func() { over <- Serve(ctx, l, h, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func ask(t *testing.T, at string) string {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Those who send half a header, or ask once and then sit there, take no more
// than the bound, and whoever asks is answered meanwhile.
func TestSlowHeadersKeepNobodyOut(t *testing.T) {
	t.Parallel()
	const most = 16
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "up") }), Options{MaxConns: most})
	var open atomic.Int32
	for i := range 5 * most {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		half := "GET / HTTP/1.1\r\nHost: a\r\nX-Slow: "
		if i%3 == 0 {
			half = "GET / HTTP/1.1\r\nHost: a\r\n\r\n" // asks, and stays
		}
		if _, err := io.WriteString(c, half); err != nil {
			t.Fatal(err)
		}
		open.Add(1)
		go func() {
			io.Copy(io.Discard, c) //nolint:errcheck // it is ended
			open.Add(-1)
		}()
		if i%most == 0 {
			if got := ask(t, at); got != "up" {
				t.Fatal(got)
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); open.Load() > most; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d connections are open, at most %d are to be", open.Load(), most)
		}
	}
	if got := ask(t, at); got != "up" {
		t.Fatal(got)
	}
}

func TestLongHeadersAndBodiesAreRefused(t *testing.T) {
	t.Parallel()
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err != nil)
	}), Options{MaxBody: 1000})
	for name, x := range map[string]struct {
		header, body int
		want         string
	}{
		"limit":     {0, 1000, "1000 false"},
		"limit + 1": {0, 1001, "1000 true"},
		"header":    {maxHeader + 8<<10, 0, ""}, // net/http adds 4 KB
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+at+"/", strings.NewReader(strings.Repeat("x", x.body)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Long", strings.Repeat("x", x.header))
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if refused := answer.StatusCode == http.StatusRequestHeaderFieldsTooLarge; err != nil || refused != (x.want == "") || !refused && string(b) != x.want {
			t.Errorf("%s: %d %s %v", name, answer.StatusCode, b, err)
		}
	}
}

// Sixteen readers that take a kilobyte a second hold no more than the bound,
// and one that reads at once is answered.
func TestSlowReadersHoldWhatIsAllowed(t *testing.T) {
	const size, held, readers = 6 << 20, 18 << 20, 16
	s := &Sender{Held: held}
	var cut, begun atomic.Int32
	at := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := make([]byte, size) // every answer is another one
		begun.Add(1)
		if err := s.Send(w, body); err != nil {
			cut.Add(1)
		}
	}), Options{})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range readers {
		c, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		go func() { // a kilobyte a second
			b := make([]byte, 1024)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		if i%5 == 4 {
			if got := len(ask(t, at)); got != size {
				t.Fatalf("%d bytes of %d", got, size)
			}
		}
	}
	for deadline := time.Now().Add(20 * time.Second); int(begun.Load()) < readers || cut.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d answers were cut off", cut.Load(), readers)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		runtime.ReadMemStats(&after)
		grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
		if grown <= held+size+8<<20 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("slow readers hold %d MB", grown>>20)
		}
	}
	if got := len(ask(t, at)); got != size {
		t.Errorf("%d bytes of %d", got, size)
	}
}

// Readers of one answer share it: none of them is cut off for the others.
func TestEqualAnswersCountOnce(t *testing.T) {
	t.Parallel()
	s := &Sender{Held: 100}
	body := make([]byte, 80)
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if err := s.Send(httptest.NewRecorder(), body); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if err := s.Send(httptest.NewRecorder(), make([]byte, 200)); err != nil {
		t.Errorf("one that is larger than all that is allowed: %v", err)
	}
	if len(s.sending) != 0 {
		t.Errorf("%d are left", len(s.sending))
	}
	for _, x := range s.sending[:cap(s.sending)] {
		if x != nil {
			t.Fatal("an answer that was sent is held")
		}
	}
}

// stuck is a reader that takes its first part, and the second one when it may.
type stuck struct {
	*httptest.ResponseRecorder
	wait func()
}

func (s *stuck) Write(b []byte) (int, error) {
	s.wait()
	return s.ResponseRecorder.Write(b)
}

// Of a reader that stalls and one that goes on the first is cut off, however
// long ago either of them began.
func TestTheReaderThatStallsIsCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &Sender{Held: 3 * part}
		send := func(each time.Duration, parts int) (got error) {
			w := &stuck{ResponseRecorder: httptest.NewRecorder(), wait: func() { time.Sleep(each) }}
			return s.Send(w, make([]byte, parts*part))
		}
		var running sync.WaitGroup
		running.Go(func() {
			if err := send(grace/10, 2000); err != nil {
				t.Errorf("the quick one: %v", err)
			}
		})
		running.Go(func() {
			if err := send(time.Minute, 2); !errors.Is(err, ErrCut) {
				t.Errorf("the slow one: %v", err)
			}
		})
		time.Sleep(time.Second)
		if err := send(0, 1); err != nil {
			t.Errorf("a newer one: %v", err)
		}
		running.Wait()
	})
}

// The first wrong credentials of a source are answered at once, the rest wait,
// no more than some at a time; other sources are none of its business.
func TestGuessesArePaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := &Guesses{Log: slog.New(slog.DiscardHandler)}
		guess := func(from string) (time.Duration, int) {
			w := httptest.NewRecorder()
			began := time.Now()
			status := g.Wrong(t.Context(), w, netip.MustParseAddr(from), http.StatusForbidden)
			if w.Header().Get("Connection") != "close" {
				t.Error("a guess costs no connection")
			}
			return time.Since(began), status
		}
		for i := range freeGuesses + 3 {
			// Addresses of one /64 are one source.
			took, status := guess(fmt.Sprintf("2001:db8::%x", i+1))
			if want := i >= freeGuesses; took != map[bool]time.Duration{true: guessPause}[want] || status != http.StatusForbidden {
				t.Errorf("guess %d took %v: %d", i, took, status)
			}
		}
		if took, _ := guess("192.0.2.7"); took != 0 {
			t.Errorf("another source waits %v", took)
		}
		var waiting sync.WaitGroup
		var many atomic.Int32
		for range maxPaused + 10 {
			waiting.Go(func() {
				if _, status := guess("2001:db8::1"); status == http.StatusTooManyRequests {
					many.Add(1)
				}
			})
		}
		waiting.Wait()
		if many.Load() != 10 {
			t.Errorf("%d were refused at once", many.Load())
		}
		time.Sleep(forgetGuesses)
		if took, _ := guess("2001:db8::1"); took != 0 {
			t.Errorf("after the pause of a source it waits %v", took)
		}
		if r := g.Refused(); r.Count != uint64(freeGuesses+3+1+maxPaused+10+1) || r.From != netip.MustParseAddr("2001:db8::1") {
			t.Errorf("%+v", r)
		}
	})
}

func TestSourcesOfGuessesAreBounded(t *testing.T) {
	t.Parallel()
	g := &Guesses{Log: slog.New(slog.DiscardHandler)}
	for i := range 3 * maxSources {
		g.note(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
	}
	if len(g.sources) != maxSources {
		t.Errorf("%d sources are remembered", len(g.sources))
	}
}
