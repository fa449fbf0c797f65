package broker

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"banmesh/internal/ban"
	"banmesh/internal/broker/frame"
	"banmesh/internal/broker/retained"
)

// alive wants that the broker still serves others, fully.
func alive(t *testing.T, b *Broker) {
	t.Helper()
	a := newAuthor(t.Name())
	pub, sub := a.join(t, b), newAuthor("reader of "+t.Name()).join(t, b)
	topic, card := a.card(t, uint64(time.Now().UnixNano()))
	sub.subscribe(topic, 1)
	pub.publish(topic, card, 1, true)
	if _, payload, _ := sub.message(); payload != card {
		t.Error("a healthy client got something else")
	}
}

// Malformed packets of every kind close their own connection and no other.
func TestMalformedPacketsCostTheirSenderTheConnection(t *testing.T) {
	t.Parallel()
	b := community(t)
	good := newAuthor("alice").connecting(time.Now().Add(time.Minute), "broker.example").bytes()
	good = slices.Clip(good) // so that every append makes a copy
	for name, sent := range map[string][]byte{
		"no CONNECT first":              {0xc0, 0},
		"a PUBLISH first":               publishBytes("a", "b", 1, 1, false),
		"type 0":                        append(good, 0, 0),
		"type 15":                       append(good, 0xf0, 0),
		"a packet of a server":          append(good, 0xd0, 0),
		"a second CONNECT":              append(good, good...),
		"a length without end":          append(good, 0x30, 0x80, 0x80, 0x80, 0x80, 0x80),
		"a length before login":         {0x10, 0xff, 0xff, 0xff, 0xff, 0xff},
		"a huge CONNECT":                {0x10, 0xff, 0xff, 0xff, 0x7f},
		"a huge packet":                 append(good, 0x30, 0xff, 0xff, 0xff, 0x7f),
		"an empty SUBSCRIBE":            append(good, 0x82, 2, 0, 1),
		"a SUBSCRIBE cut off":           append(good, 0x82, 5, 0, 1, 0, 0, 0),
		"a SUBSCRIBE with identifier 0": append(good, whole(0x82, 0, 0, 0, 1, 'a', 0)...),
		"wrong flags":                   append(good, 0x80, 6, 0, 1, 0, 1, 'a', 0),
		"QoS 3":                         append(good, publishBytes("a", "b", 1, 3, false)...),
		"a topic with a wildcard":       append(good, publishBytes("a/#", "b", 1, 1, false)...),
		"a topic that is no text":       append(good, publishBytes("a\xff", "b", 1, 1, false)...),
		"a topic with U+0000":           append(good, publishBytes("a\x00", "b", 1, 1, false)...),
		"an empty topic":                append(good, publishBytes("", "b", 1, 1, false)...),
		"a wildcard inside a level":     append(good, whole(0x82, append([]byte{0, 1}, append(text("a+/b"), 0)...)...)...),
		"random bytes":                  []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"bytes after a CONNECT":         func() []byte { g := append([]byte(nil), good...); g[1]++; return append(g, 'x') }(),
		"a PUBACK of three bytes":       append(good, 0x40, 3, 0, 1, 0),
		"a PINGREQ with a body":         append(good, 0xc0, 1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			c := dial(t, b)
			_, _ = c.nc.Write(sent)
			c.wantClosed()
		})
	}
	alive(t, b)
	if n := value(b.count.panics); n != 0 {
		t.Errorf("the engine failed %d times", n)
	}
}

func TestAConnectionWithoutALoginEnds(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.ConnectTime = 100 * time.Millisecond })
	idle, slow := dial(t, b), dial(t, b)
	go func() { // one byte at a time earns no time
		for range 1000 {
			if _, err := slow.nc.Write([]byte{0x10}); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	idle.wantClosed()
	slow.wantClosed()
	alive(t, b)
}

func TestConnectionsAreLimited(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.Connections = 3 })
	var held []*client
	for i := range 3 {
		held = append(held, newAuthor(fmt.Sprint(i)).join(t, b))
	}
	late := newAuthor("late")
	if got := dial(t, b).refusal(late.connecting(time.Now().Add(time.Minute), "broker.example")); got != frame.RefusedUnavailable {
		t.Errorf("CONNACK %d, want that the server is unavailable", got)
	}
	if value(b.count.turnedAway.WithLabelValues("full")) != 1 {
		t.Error("not counted")
	}
	held[0].nc.Close()
	eventually(t, "there is room", func() bool { return b.open.Load() == 2 })
	late.join(t, b).wantNothing()
}

// Who does nothing of use makes room, and who listens stays.
func TestIdleConnectionsGoFirst(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64
	b := community(t, func(o *Options) {
		o.Limits.Connections = 3
		o.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	listening, publishing, idle := newAuthor("listening").join(t, b), newAuthor("publishing"), newAuthor("idle").join(t, b)
	listening.subscribe("banmesh/1/net/sshd/+/+/head", 1)
	topic, card := publishing.card(t, 1)
	pub := publishing.join(t, b)
	pub.publish(topic, card, 1, true)
	late := newAuthor("late")
	if got := dial(t, b).refusal(late.connecting(time.Now().Add(time.Minute), "broker.example")); got != frame.RefusedUnavailable {
		t.Errorf("CONNACK %d: somebody went at once", got)
	}
	ahead.Store(int64(idleLeast))
	late.join(t, b)
	idle.wantClosed()
	listening.wantNothing()
	pub.wantNothing()
}

// A client that is known takes the place of one that is not.
func TestTheUnknownMakeRoomForTheKnown(t *testing.T) {
	t.Parallel()
	friend := newAuthor("friend")
	b := community(t, func(o *Options) {
		o.Limits.Connections = 2
		o.Vouched = []ban.Operator{friend.feed.Operator}
	})
	var held []*client
	for i := range 2 {
		c := newAuthor(fmt.Sprint(i)).join(t, b)
		c.subscribe("banmesh/1/net/sshd/+/+/head", 1)
		held = append(held, c)
	}
	if got := dial(t, b).refusal(newAuthor("stranger").connecting(time.Now().Add(time.Minute), "broker.example")); got != frame.RefusedUnavailable {
		t.Errorf("CONNACK %d for a stranger", got)
	}
	friend.join(t, b).subscribe("banmesh/1/net/sshd/+/+/head", 1)
	eventually(t, "one of them went", func() bool { return value(b.count.kicked.WithLabelValues("room for another")) == 1 })
	held[1].wantClosed() // the newest
	held[0].wantNothing()
}

func TestAnAddressWithTooManyConnectionsIsTold(t *testing.T) {
	t.Parallel()
	b := community(t)
	near, far := net.Pipe()
	defer far.Close()
	go b.serveConn(&counted{Conn: near, refused: "too many from its address", leave: func() {}})
	c := &client{t: t, nc: far, r: bufio.NewReader(far)}
	if got := c.refusal(newAuthor("one more").connecting(time.Now().Add(time.Minute), "broker.example")); got != frame.RefusedUnavailable {
		t.Errorf("CONNACK %d", got)
	}
	eventually(t, "it is counted", func() bool { return value(b.count.turnedAway.WithLabelValues("too many from its address")) == 1 })
}

func TestTheGuardOutlivesTheLackOfDescriptors(t *testing.T) { // alone: it takes the descriptors of all
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	b := community(t)
	first := newAuthor("first").join(t, b)
	// A client that has its own descriptor already connects when the broker
	// cannot get another.
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	none := before
	none.Cur = 0
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	restore := sync.OnceFunc(func() { _ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before) })
	defer restore()
	to := b.Addr().(*net.TCPAddr)
	if err := syscall.Connect(fd, &syscall.SockaddrInet4{Port: to.Port, Addr: [4]byte(to.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "accepting fails more than once", func() bool { return value(b.count.acceptErrors) > 1 })
	first.wantNothing()
	restore()
	alive(t, b)
}

func TestAClientThatDoesNotReadStallsNobody(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{MaxQueued: 256 << 10, StallTime: time.Second}})
	stalled := join(t, b, "stalled")
	stalled.subscribe("t", 1)
	healthy, pub := join(t, b, "healthy"), join(t, b, "pub")
	healthy.subscribe("t", 1)
	payload := strings.Repeat("x", 3000)
	var done sync.WaitGroup
	const n = 5000 // 15 MB, more than any socket buffer
	done.Go(func() {
		for range n {
			if _, got, _ := healthy.message(); got != payload {
				t.Error("wrong payload")
				return
			}
		}
	})
	for i := range n {
		pub.publish("t", payload, uint16(i+1), false)
	}
	done.Wait()
	stalled.wantClosed()
	if value(b.count.kicked.WithLabelValues("slow reader"))+value(b.count.kicked.WithLabelValues("stalled reader")) == 0 {
		t.Error("the stalled client was not cut for it")
	}
}

func TestAFastPublisherWaitsForAReaderThatReads(t *testing.T) {
	t.Parallel()
	b := start(t, Options{Open: true, Anonymous: AccessFull, Limits: Limits{MaxQueued: 256 << 10}})
	const n = 2000
	payload := strings.Repeat("x", 10_000) // 20 MB in all
	sub, pub := join(t, b, "sub"), join(t, b, "pub")
	sub.subscribe("t", 1)
	var done sync.WaitGroup
	done.Go(func() {
		for i := range n {
			if i%50 == 0 {
				time.Sleep(2 * time.Millisecond) // slower than the publisher
			}
			sub.message()
		}
	})
	go func() { _, _ = io.Copy(io.Discard, pub.nc) }() // acknowledgements
	for i := range n {
		pub.send(publishBytes("t", payload, uint16(i+1), 1, false)...)
	}
	done.Wait()
	if got := value(b.count.kicked.WithLabelValues("slow reader")); got != 0 {
		t.Errorf("%d readers were cut", got)
	}
	if value(b.count.heldUp) == 0 {
		t.Error("the publisher never waited: the test shows nothing")
	}
}

func TestAClientThatDoesNotAcknowledgeIsCut(t *testing.T) {
	t.Parallel()
	b := open(t)
	c, pub := join(t, b, "c"), join(t, b, "pub")
	c.subscribe("t", 1)
	go func() { _, _ = io.Copy(io.Discard, c.nc) }()
	for i := range maxUnacked + 10 {
		if _, err := pub.nc.Write(publishBytes("t", "x", uint16(i%60000+1), 1, false)); err != nil {
			t.Fatal(err)
		}
		pub.want(frame.Puback)
	}
	eventually(t, "it was cut", func() bool { return value(b.count.kicked.WithLabelValues("does not acknowledge")) == 1 })
}

func TestAForeignAcknowledgementIsHarmless(t *testing.T) {
	t.Parallel()
	b := open(t)
	c, pub := join(t, b, "c"), join(t, b, "pub")
	c.subscribe("t", 1)
	for id := range uint16(200) {
		c.send(frame.AppendPuback(nil, id+1)...)
	}
	pub.publish("t", "m", 1, false)
	if _, payload, _ := c.message(); payload != "m" {
		t.Errorf("got %q", payload)
	}
}

func TestAPublisherThatIsTooFastIsSlowedDown(t *testing.T) {
	b := community(t, func(o *Options) { o.Limits.PublishRate, o.Limits.PublishBurst = 100, 10 })
	pub := newAuthor("fast").join(t, b)
	began := time.Now()
	for range 30 {
		pub.publish("not/a/feed", "x", 1, true)
	}
	if d := time.Since(began); d < 150*time.Millisecond {
		t.Errorf("30 publications took %v at 100 a second and 10 at once", d)
	}
	if value(b.count.paced) == 0 {
		t.Error("nothing was counted")
	}
}

// A filter with wildcards may look at everything and find nothing, thousands
// of times in one packet.
func TestSearchesArePaidForWhateverTheyFind(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.PublishRate, o.Limits.PublishBurst, o.Limits.MaxSearch = 1e6, 1e6, 100_000 })
	for i := range 10_000 {
		m := &retained.Message{Topic: fmt.Sprintf("banmesh/1/net/sshd/operator%d/node/head", i), Payload: []byte("x")}
		if _, err := b.store.Put(m, nil); err != nil {
			t.Fatal(err)
		}
	}
	once := newAuthor("once").join(t, b)
	if q := once.subscribe("banmesh/1/net/+/+/+/dispute", 1); q != 1 {
		t.Errorf("granted %#x", q)
	}
	once.wantNothing()
	who := b.sessions.get(newAuthor("once").feed.Node.String()).who
	b.perIP.mu.Lock()
	if paid := 1e6 - b.perIP.keys.entries[who].rate.level; paid < 10_000/searchPrice {
		t.Errorf("it paid %v", paid)
	}
	b.perIP.mu.Unlock()
	greedy := newAuthor("greedy").join(t, b)
	body := []byte{0, 1}
	for range 4000 {
		body = append(append(body, text("banmesh/1/net/+/+/+/dispute")...), 1)
	}
	greedy.send(whole(0x82, body...)...)
	greedy.wantClosed()
	if value(b.count.kicked.WithLabelValues("asks for too much")) != 1 {
		t.Error("it was cut for something else")
	}
	once.wantNothing()
}

func TestASubscribeIsChargedByFilter(t *testing.T) {
	t.Parallel()
	b := community(t, func(o *Options) { o.Limits.PublishRate, o.Limits.PublishBurst = 0.001, 1000 })
	c := newAuthor("alice").join(t, b)
	who := b.sessions.get(newAuthor("alice").feed.Node.String()).who
	paid := func() float64 {
		b.perIP.mu.Lock()
		defer b.perIP.mu.Unlock()
		return 1000 - b.perIP.keys.entries[who].rate.level
	}
	c.subscribe("banmesh/1/net/sshd/+/+/head", 1)
	one := paid()
	body := []byte{0, 1}
	for i := range 10 * filterPrice {
		body = append(append(body, text(fmt.Sprintf("banmesh/1/net/sshd/+/+/delta/%d", i))...), 1)
	}
	c.send(whole(0x82, body...)...)
	c.answer(frame.Suback)
	if many := paid() - one; many < 10 || one < 1 {
		t.Errorf("one filter costs %v, %d cost %v", one, 10*filterPrice, many)
	}
}

func TestAnAddressAndTheNetworksAroundItAreLimited(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		most, room int // of one address, of all together
		addresses  func(i int) string
	}{
		"one IPv4 address":      {2, 2, func(int) string { return "192.0.2.1" }},
		"an IPv4 /24":           {2, 8, func(i int) string { return fmt.Sprintf("192.0.2.%d", i) }},
		"an IPv6 /64":           {2, 2, func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }},
		"an IPv6 /56":           {2, 4, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i) }},
		"an IPv6 /48":           {2, 8, func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i<<8) }},
		"an IPv6 /32":           {2, 128, func(i int) string { return fmt.Sprintf("2001:db8:%x::1", i) }},
		"loopback, not limited": {2, 200, func(int) string { return "127.0.0.1" }},
	} {
		w := newPerIPLimit()
		n := 0
		for n < 200 && w.enter(addr(c.addresses(n)), c.most, now) {
			n++
		}
		if n != c.room {
			t.Errorf("%s: %d connections, want %d", name, n, c.room)
		}
		if n == 200 {
			continue
		}
		w.leave(addr(c.addresses(0)), now)
		if !w.enter(addr(c.addresses(0)), c.most, now) {
			t.Errorf("%s: refused after one left", name)
		}
	}
}

// However many addresses come and go, few are remembered, and each costs as
// much as the first.
func TestTheAddressesThatAreRememberedAreBounded(t *testing.T) {
	t.Parallel()
	w := newPerIPLimit()
	now := time.Now()
	for i := range 3 * maxRemembered {
		a := netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1})
		w.enter(a, 1, now)
		w.leave(a, now)
	}
	if n := len(w.origins.entries); n > maxRemembered+10 {
		t.Errorf("%d are remembered, want at most %d", n, maxRemembered)
	}
	now = now.Add(2 * forget)
	for i := range maxRemembered {
		a := netip.AddrFrom4([4]byte{200, byte(i >> 8), byte(i), 1})
		w.enter(a, 1, now)
		w.leave(a, now)
	}
	if n := len(w.origins.ring) - w.origins.first; n > 2*maxRemembered+10 {
		t.Errorf("the ring has %d places", n)
	}
}

func TestLeavingDoesNotRefillABucket(t *testing.T) {
	t.Parallel()
	w := newPerIPLimit()
	now := time.Now()
	four := addr("192.0.2.1")
	w.enter(four, 2, now)
	w.enter(four, 2, now)
	l := Limits{AddressRate: 1, AddressBurst: 1}
	who := identity{method: "anonymous"}
	if d := w.wait(who, four, 1, now, &l); d != 0 {
		t.Errorf("the first waits %v", d)
	}
	w.leave(four, now)
	w.leave(four, now)
	w.enter(four, 2, now)
	if d := w.wait(who, four, 1, now, &l); d <= 0 {
		t.Error("the bucket was refilled by leaving")
	}
}

func TestAClockThatJumpsNeitherFreezesNorFloods(t *testing.T) {
	t.Parallel()
	var k bucket
	now := time.Now()
	for range 5 {
		k.take(now, 1, 10, 5)
	}
	if d := k.take(now, 1, 10, 5); d != 100*time.Millisecond {
		t.Errorf("the sixth of a burst of five waits %v", d)
	}
	back := now.Add(-24 * time.Hour)
	if d := k.take(back, 1, 10, 5); d != 200*time.Millisecond {
		t.Errorf("after a jump back it waits %v", d)
	}
	if d := k.take(back.Add(time.Second), 1, 10, 5); d != 0 {
		t.Errorf("a second later it waits %v", d)
	}
	ahead := now.Add(1000 * time.Hour)
	n := 0
	for k.take(ahead, 1, 10, 5) == 0 {
		n++
	}
	if n != 5 {
		t.Errorf("a jump ahead gave %d at once, want the burst", n)
	}
}

func TestAPanicCostsOneClientItsConnection(t *testing.T) {
	t.Parallel()
	b := open(t)
	c := join(t, b, "victim")
	c.subscribe("t", 1)
	s := b.sessions.get("victim")
	s.c.testingOnlyPanic.Store(true)
	c.send(frame.Pingreq<<4, 0)
	c.wantClosed()
	eventually(t, "it is forgotten", func() bool {
		_, known := b.engine.Clients.Get("victim")
		return b.sessions.get("victim") == nil && !known && b.index.subscriptions() == 0
	})
	if value(b.count.panics) != 1 {
		t.Error("not counted")
	}
	join(t, b, "victim").wantNothing()
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }
