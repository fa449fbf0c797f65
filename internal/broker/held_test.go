package broker

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
)

func TestManyClientsThatNeverFinishTheirPacketsAreThinnedOut(t *testing.T) {
	t.Parallel()
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
	t.Parallel()
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
	t.Parallel()
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

// The filters of one address, or of one operator, take a part of the memory at
// most, however many connections and keys they come with.
func TestFiltersAreCountedForTheirAddress(t *testing.T) {
	t.Parallel()
	const total = 1 << 20
	b := community(t, func(o *Options) { o.Limits.TotalQueued = total })
	from := payer{network: netip.MustParsePrefix("192.0.2.1/32")}
	granted, refused := 0, 0
	var clients []*client
	for i := range 4 {
		a := newAuthor(fmt.Sprint("key ", i))
		c := a.join(t, b)
		clients = append(clients, c)
		b.sessions.get(a.feed.Node.String()).payers = []payer{from}
		for j := range 60 {
			other := newAuthor(fmt.Sprint(i, " ", j)).feed // levels that nobody has
			if c.subscribe("banmesh/1/net/sshd/"+other.Operator.String()+"/"+other.Node.String()+"/head", 1) == 1 {
				granted++
			} else {
				refused++
			}
		}
	}
	b.heldMu.Lock()
	held := b.held[from]
	b.heldMu.Unlock()
	if held > total/heldShare || held < total/heldShare*9/10 || refused == 0 {
		t.Errorf("%d bytes for %d filters, %d refused; the part is %d", held, granted, refused, total/heldShare)
	}
	// Another address has a part of its own, and closed connections give theirs back.
	if q := newAuthor("bob").join(t, b).subscribe("banmesh/1/net/sshd/+/+/head", 1); q != 1 {
		t.Errorf("another one is granted %#x", q)
	}
	for _, c := range clients {
		c.nc.Close()
	}
	eventually(t, "nothing is charged any more", func() bool {
		b.heldMu.Lock()
		defer b.heldMu.Unlock()
		return b.held[from] == 0
	})
}

// Levels that the first to subscribe paid for count after it left, as long as
// somebody else needs them.
func TestFiltersCountAfterTheFirstSubscriberLeft(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.TotalQueued = 1 << 20 })
	var filters []string
	for i := range 20 {
		other := newAuthor(fmt.Sprint("other ", i)).feed
		filters = append(filters, "banmesh/1/net/sshd/"+other.Operator.String()+"/"+other.Node.String()+"/head")
	}
	for round := range 2 {
		first, second := newAuthor(fmt.Sprint("first ", round)).join(t, b), newAuthor(fmt.Sprint("second ", round)).join(t, b)
		for _, f := range filters {
			if q1, q2 := first.subscribe(f, 1), second.subscribe(f, 1); q1 != 1 || q2 != 1 {
				t.Fatalf("granted %#x and %#x", q1, q2)
			}
		}
		both := b.index.bytes()
		first.nc.Close()
		eventually(t, "the first has left", func() bool { return b.index.subscriptions() == len(filters) })
		if got, want := b.index.bytes(), both-len(filters)*filterBytes; got != want {
			t.Errorf("%d bytes are left, want %d", got, want)
		}
		second.nc.Close()
		eventually(t, "both have left", func() bool { return b.index.bytes() == 0 })
	}
	// The index's content bounds the grants, whoever was charged.
	c := newAuthor("last").join(t, b)
	b.index.mu.Lock()
	b.index.count += b.limits.TotalQueued / filterShare / filterBytes
	b.index.mu.Unlock()
	if q := c.subscribe(filters[0], 1); q == 1 {
		t.Error("a filter is granted beyond what the index may have")
	}
}

func TestOneOperatorsClientsHoldAPart(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{TotalQueued: 1 << 20}})
	half := publishBytes("t", strings.Repeat("x", 120<<10), 1, 1, false)[:60<<10]
	one := identity{method: "key", operator: newAuthor("one").feed.Operator}
	for i := range 6 { // 360 KB, less than all may hold
		c := join(t, b, fmt.Sprint("half-", i))
		s := b.sessions.get(fmt.Sprint("half-", i))
		s.c.identified.Store(&one)
		_, _ = c.nc.Write(half)
	}
	eventually(t, "some were cut", func() bool { return value(b.count.kicked.WithLabelValues("too much memory")) > 0 })
}

// On a disk that takes nothing, acknowledgements are bounded, and end with
// their connection.
func TestPendingAcknowledgementsAreBoundedAndGoWithTheConnection(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.StateDir = t.TempDir() })
	a := newAuthor("alice")
	c := a.join(t, b)
	guard := b.sessions.get(a.feed.Node.String()).c
	const never = 1 << 60
	for i := range maxUnsettled - 1 {
		b.acknowledge(guard, uint16(i+1), b.now(), never)
	}
	c.send(publishBytes("not/a/feed", "x", 9, 1, true)...) // waits behind them
	eventually(t, "it waits", func() bool { return guard.unsettled.len() == maxUnsettled })
	c.send(publishBytes("not/a/feed", "x", 10, 1, true)...)
	c.wantClosed()
	if value(b.count.kicked.WithLabelValues("state cannot be written")) != 1 {
		t.Error("it was cut for something else")
	}
	eventually(t, "nothing waits any more", func() bool {
		b.unsettledMu.Lock()
		defer b.unsettledMu.Unlock()
		return len(b.unsettled) == 0 && guard.unsettled.len() == 0
	})
}

func TestAcknowledgementsComeInOrderWhenDurable(t *testing.T) {
	t.Parallel()
	var p pendingAcks
	if p.add(0, 1, time.Time{}, 0) {
		t.Error("one that waits for nothing waits")
	}
	for id, sequence := range []uint64{5, 7, 0, 9} {
		if !p.add(sequence, uint16(id), time.Time{}, 4) {
			t.Errorf("%d does not wait", id)
		}
	}
	for _, c := range []struct {
		durable uint64
		want    string
	}{{4, "[]"}, {5, "[0]"}, {8, "[1 2]"}, {9, "[3]"}} {
		ids := []uint16{}
		for _, due := range p.take(c.durable) {
			ids = append(ids, due.id)
		}
		if got := fmt.Sprint(ids); got != c.want {
			t.Errorf("up to %d: %s, want %s", c.durable, got, c.want)
		}
	}
}

func TestGoodbyesAreSpread(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		n    int
		last time.Duration
	}{{1, 0}, {2, goodbyeGap}, {50, 49 * goodbyeGap}, {100, 99 * 100 * time.Millisecond}, {1000, 999 * 10 * time.Millisecond}, {10_000, 9999 * time.Millisecond}} {
		if got := goodbyeAt(c.n-1, c.n, 10*time.Second); got != c.last {
			t.Errorf("the last of %d hears it after %v, want %v", c.n, got, c.last)
		}
	}
}

// A thousand nodes that each follow a thousand operators fit the default
// limits: filters that clients share are charged once.
func TestAThousandFollowersOfAThousandOperatorsFitTheLimits(t *testing.T) {
	t.Parallel()
	const nodes, operators = 1000, 1000
	b := community(t)
	held := func() int {
		b.heldMu.Lock()
		defer b.heldMu.Unlock()
		return b.heldAll
	}
	var after [3]int
	for i := range after {
		c := newAuthor(fmt.Sprint("node ", i)).join(t, b)
		for o := range operators {
			id := ban.Operator{0: byte(o >> 8), 1: byte(o)}
			if got := c.subscribe("banmesh/1/net/+/"+id.String()+"/+/head", 0); got != 0 {
				t.Fatalf("filter %d of node %d: %#x", o, i, got)
			}
		}
		after[i] = held()
	}
	each := (after[2] - after[0]) / 2
	if all, most := after[0]+(nodes-1)*each, b.limits.TotalQueued/filterShare; all > most {
		t.Errorf("a thousand nodes hold %d bytes of filters, the limit is %d", all, most)
	}
}
