package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"banmesh/internal/compat/lists"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a spool, and a server that is believed to be the list's.
type world struct {
	*testing.T
	f      *Fetcher
	server *httptest.Server
	list   lists.Origin
	now    time.Time
	asked  int
}

func newWorld(t *testing.T, answer http.HandlerFunc) *world {
	t.Helper()
	w := &world{T: t, now: t0}
	w.server = httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		w.asked++
		answer(out, r)
	}))
	t.Cleanup(w.server.Close)
	w.f = &Fetcher{Spool: t.TempDir(), Version: "1", Now: func() time.Time { return w.now }, testingOnlyTLS: w.server.Client().Transport.(*http.Transport).TLSClientConfig}
	w.list = lists.Origin{Name: "drop", URL: w.server.URL + "/drop.txt", Every: time.Hour, Private: true}
	return w
}

func (w *world) fetch() (Outcome, error) {
	w.Helper()
	return w.f.Fetch(context.Background(), w.list)
}

func (w *world) want(want Outcome) {
	w.Helper()
	if got, err := w.fetch(); got != want || err != nil {
		w.Fatalf("%q, %v; want %q", got, err, want)
	}
}

func (w *world) fails(want string) {
	w.Helper()
	_, err := w.fetch()
	if err == nil || !strings.Contains(err.Error(), want) {
		w.Fatalf("%v; want %q", err, want)
	}
	if r := w.record(); r.Error == "" || !r.Tried.Equal(w.now) {
		w.Fatalf("the record says %+v", r)
	}
	if left, err := filepath.Glob(w.f.Spool + "/.new-*"); len(left) > 0 || err != nil {
		w.Errorf("left behind: %q, %v", left, err)
	}
}

func (w *world) record() lists.Fetched {
	w.Helper()
	r, err := lists.ReadFetched(w.f.Spool, "drop")
	if err != nil {
		w.Fatal(err)
	}
	return r
}

// spooled gives the list in the spool as the agent reads it.
func (w *world) spooled() string {
	w.Helper()
	e, err := lists.ReadSpooled(w.f.Spool, "drop", w.record(), lists.Options{})
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(e.Targets)
}

func TestAListIsFetchedAndAskedForByItsConditions(t *testing.T) {
	text, etag := "203.0.113.0/24\n", `"one"`
	w := newWorld(t, func(out http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") == etag && r.Header.Get("If-Modified-Since") == "Sun, 01 Mar 2026 11:00:00 GMT" {
			out.WriteHeader(http.StatusNotModified)
			return
		}
		out.Header().Set("ETag", etag)
		out.Header().Set("Last-Modified", "Sun, 01 Mar 2026 11:00:00 GMT")
		out.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(out)
		defer z.Close()
		fmt.Fprint(z, text)
	})
	w.want(Changed)
	if got := w.spooled(); got != "[203.0.113.0/24]" {
		t.Errorf("the spool has %s", got)
	}
	w.now = w.now.Add(59 * time.Minute)
	w.want(NotDue)
	w.now = w.now.Add(time.Minute)
	w.want(Unchanged)
	if r := w.record(); !r.Changed.Equal(t0) || !r.Confirmed.Equal(w.now) || w.asked != 2 {
		t.Errorf("after 304: %+v, asked %d times", r, w.asked)
	}
	text, etag = "203.0.113.0/25\n", `"two"`
	w.f.Force = true
	w.want(Changed)
	if got := w.spooled(); got != "[203.0.113.0/25]" {
		t.Errorf("the spool has %s", got)
	}
	// The same list under another validator is no change.
	etag = `"three"`
	w.want(Unchanged)
	for path, want := range map[string]os.FileMode{lists.BodyFile(w.f.Spool, "drop"): 0o644, lists.RecordFile(w.f.Spool, "drop"): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	// Another address is another list.
	w.list.URL = w.server.URL + "/other.txt"
	w.want(Changed)
	w.list.Name = "else"
	if err := Tidy(w.f.Spool, []lists.Origin{w.list}); err != nil {
		t.Fatal(err)
	}
	if _, err := lists.ReadFetched(w.f.Spool, "drop"); !errors.Is(err, lists.ErrNotFetched) {
		t.Errorf("a list that is not configured stays: %v", err)
	}
}

func TestAFetchThatFailsKeepsTheListOfBefore(t *testing.T) {
	answer := func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "203.0.113.0/24\n") }
	w := newWorld(t, func(out http.ResponseWriter, r *http.Request) { answer(out, r) })
	w.f.testingOnlyLimit = 1 << 20
	w.want(Changed)
	w.f.Force = true
	bomb := func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(out)
		defer z.Close()
		for range 64 {
			z.Write(make([]byte, 1<<20))
		}
	}
	elsewhere := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "198.51.100.7\n") }))
	defer elsewhere.Close()
	secret := httptest.NewTLSServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "198.51.100.7\n") }))
	defer secret.Close()
	for _, c := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"an error of the server", "500 Internal Server Error", func(out http.ResponseWriter, _ *http.Request) { http.Error(out, "no", http.StatusInternalServerError) }},
		{"too many questions", "429 Too Many Requests", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Retry-After", "7200")
			out.WriteHeader(http.StatusTooManyRequests)
		}},
		{"304 of nobody's question", "304 Not Modified", func(out http.ResponseWriter, _ *http.Request) { out.WriteHeader(http.StatusNotModified) }},
		{"a server that never answers", "deadline exceeded", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }},
		{"one that stops amid the list", "deadline exceeded", func(out http.ResponseWriter, r *http.Request) {
			fmt.Fprint(out, "203.0.113.0/24\n")
			out.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
		{"a list that is too large", "larger than", func(out http.ResponseWriter, _ *http.Request) {
			for range 40 {
				out.Write(bytes.Repeat([]byte("198.51.100.7\n"), 4096))
			}
		}},
		{"one that says so", "larger than", func(out http.ResponseWriter, _ *http.Request) { out.Header().Set("Content-Length", "1048577") }},
		{"a gzip bomb", "larger than", bomb},
		{"damaged gzip", "gzip", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(out, "203.0.113.0/24\n")
		}},
		{"another packing", "br", func(out http.ResponseWriter, _ *http.Request) {
			out.Header().Set("Content-Encoding", "br")
			fmt.Fprint(out, "203.0.113.0/24\n")
		}},
		{"redirections in a ring", "more than 5 redirections", func(out http.ResponseWriter, r *http.Request) {
			http.Redirect(out, r, "/again", http.StatusFound)
		}},
		{"a redirection to plain HTTP", "without encryption", func(out http.ResponseWriter, r *http.Request) {
			http.Redirect(out, r, elsewhere.URL, http.StatusFound)
		}},
		{"a redirection into this machine", "not of the public internet", func(out http.ResponseWriter, r *http.Request) {
			http.Redirect(out, r, secret.URL, http.StatusFound)
		}},
		{"a redirection to a file", "no address of a list", func(out http.ResponseWriter, r *http.Request) {
			http.Redirect(out, r, "file:///etc/passwd", http.StatusFound)
		}},
		{"headers without end", "header", func(out http.ResponseWriter, _ *http.Request) {
			for i := range 100 {
				out.Header().Set(fmt.Sprint("X-", i), strings.Repeat("a", 4096))
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			answer, w.T, w.f.testingOnlyTime = c.answer, t, 0
			if c.want == "deadline exceeded" { // of a server that does nothing more
				w.f.testingOnlyTime = 300 * time.Millisecond
			}
			w.now = w.now.Add(time.Hour)
			w.fails(c.want)
			if got := w.spooled(); got != "[203.0.113.0/24]" || !w.record().Confirmed.Equal(t0) {
				t.Errorf("the spool has %s, %+v", got, w.record())
			}
		})
	}
	w.T, w.f.testingOnlyTime = t, 0
	answer = func(out http.ResponseWriter, _ *http.Request) {
		out.Header().Set("Retry-After", "7200")
		out.WriteHeader(http.StatusTooManyRequests)
	}
	w.fails("429")
	w.f.Force = false
	w.now = w.now.Add(2*time.Hour - time.Second)
	w.want(NotDue)
	w.now = w.now.Add(time.Second)
	answer = func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "203.0.113.0/25\n") }
	w.want(Changed)
}

func TestAPrivateAddressIsAskedOnlyWhereTheListSaysSo(t *testing.T) {
	w := newWorld(t, func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "203.0.113.0/24\n") })
	w.list.Private = false
	w.fails("not of the public internet")
	if w.asked != 0 {
		t.Error("it was asked")
	}
	open := httptest.NewServer(http.HandlerFunc(func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "203.0.113.0/24\n") }))
	defer open.Close()
	w.f.Force = true
	w.list = lists.Origin{Name: "drop", URL: open.URL, Every: time.Hour, Private: true}
	w.fails("without encryption")
	w.list.HTTP = true
	w.want(Changed)
	for a, want := range map[string]bool{
		"93.184.216.34": true, "2606:4700::1": true, "127.0.0.1": false, "10.1.2.3": false, "192.168.1.1": false, "169.254.169.254": false, "100.64.0.1": false,
		"0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "240.0.0.1": false, "::1": false, "fe80::1": false, "fd00::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::ffff:127.0.0.1": false, "::127.0.0.1": false,
	} {
		if err := mayDial(netip.AddrPortFrom(netip.MustParseAddr(a), 443).String()); (err == nil) != want {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// A fetch that is killed between the list and its record leaves two that do not
// agree: the agent takes neither, and the next fetch asks for the whole list.
func TestAFetchThatWasKilledIsMadeGood(t *testing.T) {
	w := newWorld(t, func(out http.ResponseWriter, r *http.Request) {
		if r.Header.Get("If-None-Match") != "" {
			out.WriteHeader(http.StatusNotModified)
			return
		}
		out.Header().Set("ETag", `"one"`)
		fmt.Fprint(out, "203.0.113.0/24\n")
	})
	w.want(Changed)
	if err := os.WriteFile(lists.BodyFile(w.f.Spool, "drop"), []byte("203.0.113.0/24\n198.51.100.7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.f.Spool+"/.new-1", []byte("2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lists.ReadSpooled(w.f.Spool, "drop", w.record(), lists.Options{}); !errors.Is(err, lists.ErrBetween) {
		t.Errorf("read all the same: %v", err)
	}
	w.f.Force = true
	w.want(Changed)
	if got := w.spooled(); got != "[203.0.113.0/24]" {
		t.Errorf("the spool has %s", got)
	}
	if err := Tidy(w.f.Spool, []lists.Origin{w.list}); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(w.f.Spool + "/.new-*"); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := os.WriteFile(lists.RecordFile(w.f.Spool, "drop"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.want(Changed)
}

func TestTwoFetchesDoNotMeet(t *testing.T) {
	dir := t.TempDir() + "/spool"
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, errLocked) {
		t.Errorf("a second one: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestALinkInTheSpoolIsNotFollowed(t *testing.T) {
	w := newWorld(t, func(out http.ResponseWriter, _ *http.Request) { fmt.Fprint(out, "203.0.113.0/24\n") })
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("198.51.100.7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{lists.BodyFile(w.f.Spool, "drop"), lists.RecordFile(w.f.Spool, "drop")} {
		if err := os.Symlink(outside, path); err != nil {
			t.Fatal(err)
		}
	}
	w.want(Changed)
	if b, err := os.ReadFile(outside); err != nil || string(b) != "198.51.100.7\n" {
		t.Errorf("%q, %v", b, err)
	}
	if got := w.spooled(); got != "[203.0.113.0/24]" {
		t.Errorf("the spool has %s", got)
	}
}
