package broker

import (
	"fmt"
	"strings"
	"testing"

	"banmesh/internal/broker/frame"
)

func TestManyClientsThatNeverFinishTheirPacketsAreThinnedOut(t *testing.T) {
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{TotalQueued: 1 << 20}})
	healthy := join(t, b, "healthy")
	healthy.subscribe("t", 1)
	half := publishBytes("t", strings.Repeat("x", 120<<10), 1, 1, false)[:60<<10]
	var slow []*client
	for i := range 30 { // 1.8 MB
		c := join(t, b, fmt.Sprint("slow-", i))
		_, _ = c.nc.Write(half)
		slow = append(slow, c)
	}
	eventually(t, "some were cut", func() bool { return value(b.count.kicked.WithLabelValues("too much memory")) > 0 })
	eventually(t, "the others hold less than all may", func() bool {
		total := 0
		b.connsMu.Lock()
		defer b.connsMu.Unlock()
		for c := range b.conns {
			total += c.holds()
		}
		return total <= 1<<20
	})
	cut := value(b.count.kicked.WithLabelValues("too much memory"))
	if cut == len(slow) {
		t.Error("all were cut, though some had room")
	}
	healthy.publish("t", "m", 1, false)
	if _, payload, _ := healthy.message(); payload != "m" {
		t.Errorf("got %q", payload)
	}
}

func TestManyClientsThatReadNothingAreThinnedOut(t *testing.T) {
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{TotalQueued: 2 << 20}})
	for i := range 8 {
		join(t, b, fmt.Sprint("stalled-", i)).subscribe("t", 0)
	}
	healthy, pub := join(t, b, "healthy"), join(t, b, "pub")
	healthy.subscribe("t", 1)
	payload := strings.Repeat("x", 100_000)
	for i := 0; value(b.count.kicked.WithLabelValues("too much memory")) == 0; i++ {
		if i == 5000 {
			t.Fatal("nobody was cut")
		}
		pub.publish("t", payload, uint16(i+1), false)
		if topic, _, _ := healthy.message(); topic != "t" {
			t.Fatal("a healthy client got something else")
		}
	}
	healthy.wantNothing()
}

// A length that is announced costs nothing before its bytes come.
func TestAnAnnouncedLengthEarnsNoMemory(t *testing.T) {
	b := open(t)
	c := join(t, b, "liar")
	c.send(frame.Publish<<4, 0x80, 0x80, 0x07) // 114,688 bytes
	c.send(0)
	var holds int
	eventually(t, "the bytes were read", func() bool {
		b.connsMu.Lock()
		defer b.connsMu.Unlock()
		for c := range b.conns {
			holds = int(c.unfinished.Load())
		}
		return holds > 0
	})
	if holds > 2*readChunk {
		t.Errorf("five bytes hold %d", holds)
	}
}
