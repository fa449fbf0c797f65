package page

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
)

// read reads events of the stream until one has come, or it ended.
func event(r *bufio.Reader) (string, error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSpace(data), nil
		}
	}
}

func (x *site) follow(ctx context.Context) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.base+livePath, nil)
	if err != nil {
		return nil, err
	}
	return x.client.Do(r)
}

func TestChangesAreToldUntilTheSessionEnds(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	resp, err := x.follow(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	if got, err := event(r); err != nil || !strings.Contains(got, `"bans":12345`) {
		t.Fatalf("first %q, %v", got, err)
	}
	x.node.mu.Lock()
	x.node.status.Bans++
	x.node.mu.Unlock()
	if got, err := event(r); err != nil || !strings.Contains(got, `"bans":12346`) {
		t.Fatalf("then %q, %v", got, err)
	}
	x.server.Close()
	if got, err := event(r); err == nil {
		t.Errorf("after the session's end: %q", got)
	}
}

func TestAThousandFollowAndOneMoreIsRefused(t *testing.T) {
	t.Parallel()
	h := newHub(nil, nil)
	var all []*reader
	for range MaxLive {
		r, ok := h.join()
		if !ok {
			t.Fatalf("refused with %d", len(all))
		}
		all = append(all, r)
	}
	if _, ok := h.join(); ok {
		t.Error("one more is let in")
	}
	h.leave(all[0])
	if _, ok := h.join(); !ok {
		t.Error("the place of one that left is not given away")
	}
}

// A reader that takes nothing has so many messages waiting, and is let go.
func TestASlowReaderIsLetGo(t *testing.T) {
	t.Parallel()
	h := newHub(nil, nil)
	slow, _ := h.join()
	quick, _ := h.join()
	for i := range livePending {
		h.tell(fmt.Append(nil, i))
		<-quick.messages
	}
	select {
	case <-slow.gone:
		t.Fatal("let go at the limit")
	default:
	}
	h.tell([]byte("one more"))
	<-slow.gone
	if h.count() != 1 || string(<-quick.messages) != "one more" {
		t.Errorf("%d follow", h.count())
	}
	h.leave(slow)
}

// A thousand browsers, each with a connection of its own, cost little, and one
// more is told so.
func TestAThousandBrowsersFollowInBoundedMemory(t *testing.T) {
	x := show(t).signIn()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	before := heap()
	open := make([]*http.Response, MaxLive)
	for i := range open {
		resp, err := x.follow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if open[i] = resp; resp.StatusCode != http.StatusOK {
			t.Fatalf("the %dth: %s", i+1, resp.Status)
		}
	}
	if resp, err := x.follow(ctx); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("one more: %v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	x.server.hub.tell(message(state{Bans: 777_777}))
	for i, resp := range open {
		for r := bufio.NewReaderSize(resp.Body, 128); ; {
			got, err := event(r)
			if err != nil {
				t.Fatalf("the %dth ended: %v", i+1, err)
			}
			if strings.Contains(got, "777777") {
				break
			}
		}
	}
	// Both ends of a thousand connections are in this process.
	if used := heap() - before; used > 128<<20 {
		t.Errorf("they take %d MiB", used>>20)
	} else {
		t.Logf("they take %d KiB each, with the clients' ends", used>>10/MaxLive)
	}
	if a := x.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("meanwhile: %s", a.Status)
	}
	cancel()
	for _, r := range open {
		r.Body.Close()
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestASocketThatIsNotReadHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	x := show(t).signIn()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var open []*http.Response
	for range 50 {
		resp, err := x.follow(ctx)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp) // and nothing is read of it
	}
	if n := x.server.hub.count(); n != 50 {
		t.Errorf("%d follow", n)
	}
	for i := range 2000 {
		x.server.hub.tell(message(state{Bans: i}))
	}
	if a := x.get("/"); a.StatusCode != http.StatusOK {
		t.Errorf("meanwhile: %s", a.Status)
	}
	cancel()
	for _, r := range open {
		r.Body.Close()
	}
}
