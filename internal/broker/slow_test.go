package broker

import (
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A stuck socket is one whose writes last until it is let go.
type stuckSocket struct {
	syscall.RawConn
	written chan struct{}
	free    chan struct{}
}

func (s *stuckSocket) Write(func(uintptr) bool) error {
	close(s.written)
	<-s.free
	return syscall.EPIPE
}

// occupy keeps the flusher of a client busy with another client.
func occupy(t *testing.T, b *Broker, with *conn) (free func()) {
	t.Helper()
	nc := dial(t, b).nc
	other := newConn(b, nc, with.number)
	stuck := &stuckSocket{written: make(chan struct{}), free: make(chan struct{})}
	other.raw = stuck
	other.out.mu.Lock()
	other.out.append([]byte("x"))
	other.out.claim()
	other.out.mu.Unlock()
	b.flush.add(other)
	<-stuck.written
	free = sync.OnceFunc(func() { close(stuck.free) })
	t.Cleanup(free)
	return free
}

// A reader whose socket has room is not slow, however much the broker has not
// written to it yet.
func TestAReaderIsNotCutBecauseTheBrokerIsBehind(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{MaxQueued: 256 << 10}})
	healthy, pub := join(t, b, "healthy"), join(t, b, "pub") // of two flushers
	healthy.subscribe("t", 0)
	free := occupy(t, b, b.sessions.get("healthy").c)
	payload := strings.Repeat("x", 100<<10)
	const n = 5 // twice as much as may wait
	for i := range n {
		pub.publish("t", payload, uint16(i+1), false)
	}
	if value(b.count.heldUp) == 0 {
		t.Error("the publisher was not held up")
	}
	free()
	for range n {
		if _, got, _ := healthy.message(); got != payload {
			t.Fatal("wrong payload")
		}
	}
}

// Those that read nothing have no say in whether a publisher waits for those
// that do.
func TestReadersThatReadNothingAreNotCounted(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{MaxQueued: 256 << 10}})
	for _, id := range []string{"stalled-1", "stalled-2", "reading"} {
		join(t, b, id).subscribe("t", 0)
		o := &b.sessions.get(id).c.out
		o.mu.Lock()
		o.busy, o.began, o.queued = true, time.Now(), b.limits.MaxQueued/2
		o.took = time.Now().Add(time.Hour) // it reads throughout
		if id != "reading" {
			o.took = time.Now().Add(-time.Hour)
		}
		o.mu.Unlock()
	}
	join(t, b, "pub").publish("t", "m", 1, false)
	if got := value(b.count.heldUp); got != 1 {
		t.Errorf("held up %d times, want once", got)
	}
}
